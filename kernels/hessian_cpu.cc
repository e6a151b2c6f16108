#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/gemm.h"
#include "kernels/gram_tile.h"
#include "kernels/hessian.h"
#include "llmc/float_formats.h"
#include "llmc/parallel.h"
#include "llmc/tensor.h"

namespace llmc::kernels {
namespace {

// The rows of one call are packed and multiplied this many steps at a time.
constexpr int64_t kStepsPerPass = 1024;

float LoadAsFloat(const TokenRows& x, int64_t token, int64_t feature) {
  const int64_t i = token * x.stride + feature;
  return x.dtype == DType::kF32 ? static_cast<const float*>(x.data)[i]
                                : Bf16ToFloat(static_cast<const uint16_t*>(x.data)[i]);
}

// One step of one panel: kPanel lanes; zero beyond the features or the tokens.
void PackFloatStep(const TokenRows& x, int64_t token, int64_t feature, uint32_t* lanes) {
  const int64_t width = std::min(kPanel, x.features - feature);
  std::fill_n(lanes, kPanel, 0u);
  for (int64_t f = 0; f < width; ++f) {
    lanes[f] = std::bit_cast<uint32_t>(LoadAsFloat(x, token, feature + f));
  }
}

void PackPairStep(const TokenRows& x, int64_t token, int64_t feature, uint32_t* lanes) {
  const int64_t width = std::min(kPanel, x.features - feature);
  const uint16_t* const even = static_cast<const uint16_t*>(x.data) + token * x.stride + feature;
  const bool has_odd = token + 1 < x.tokens;
  std::fill_n(lanes, kPanel, 0u);
  for (int64_t f = 0; f < width; ++f) lanes[f] = even[f];
  if (!has_odd) return;
  const uint16_t* const odd = even + x.stride;
  for (int64_t f = 0; f < width; ++f) lanes[f] |= static_cast<uint32_t>(odd[f]) << 16;
}

// Adds the Gram tiles of at most kStepsPerPass steps by the vector kernels.
class PackedPass {
 public:
  PackedPass(const TokenRows& x, bool is_bf16_dot)
      : is_bf16_dot_(is_bf16_dot),
        tokens_per_step_(is_bf16_dot ? 2 : 1),
        num_panels_((x.features + kPanel - 1) / kPanel),
        panels_(DType::kU32, {num_panels_ * kPanel * Steps(x.tokens)}) {}

  int64_t tokens_per_pass() const { return kStepsPerPass * tokens_per_step_; }

  void Add(const TokenRows& x, const Triangle& triangle, float* gram) {
    num_steps_ = Steps(x.tokens);
    ParallelFor(num_panels_, [&](int64_t p) { PackPanel(x, p); });
    ParallelFor(triangle.num_tiles(), [&](int64_t t) { AddTile(triangle.tile(t), gram); });
  }

 private:
  int64_t Steps(int64_t tokens) const {
    return std::min((tokens + tokens_per_step_ - 1) / tokens_per_step_, kStepsPerPass);
  }

  uint32_t* Panel(int64_t p) { return panels_.as<uint32_t>() + p * kPanel * num_steps_; }

  void PackPanel(const TokenRows& x, int64_t p) {
    uint32_t* lanes = Panel(p);
    for (int64_t s = 0; s < num_steps_; ++s, lanes += kPanel) {
      if (is_bf16_dot_) {
        PackPairStep(x, s * 2, p * kPanel, lanes);
      } else {
        PackFloatStep(x, s, p * kPanel, lanes);
      }
    }
  }

  void AddTile(const TriangleTile& tile, float* gram) {
    GramTile work;
    work.row_panels = Panel(tile.row / kPanel);
    work.col_panels = Panel(tile.col / kPanel);
    work.num_steps = num_steps_;
    work.rows = tile.rows;
    work.cols = tile.cols;
    work.is_diagonal = tile.row == tile.col;
    work.out = gram + tile.offset;
    is_bf16_dot_ ? AddGramTileBf16Dot(work) : AddGramTileFma(work);
  }

  const bool is_bf16_dot_;
  const int64_t tokens_per_step_;
  const int64_t num_panels_;
  int64_t num_steps_ = 0;
  HostTensor panels_;  // U32 [num_panels, num_steps, kPanel].
};

TokenRows Slice(const TokenRows& x, int64_t first, int64_t count) {
  TokenRows slice = x;
  const int64_t offset = first * x.stride * ElementSize(x.dtype);
  slice.data = static_cast<const std::byte*>(x.data) + offset;
  slice.tokens = std::min(count, x.tokens - first);
  return slice;
}

void AddGramPacked(const TokenRows& x, bool is_bf16_dot, float* gram) {
  PackedPass pass(x, is_bf16_dot);
  const Triangle triangle(x.features);
  for (int64_t t = 0; t < x.tokens; t += pass.tokens_per_pass()) {
    pass.Add(Slice(x, t, pass.tokens_per_pass()), triangle, gram);
  }
}

void AddGramBlas(const TokenRows& x, float* gram) {
  const Triangle triangle(x.features);
  const int64_t stride = (x.features + 15) / 16 * 16;
  HostTensor wide(DType::kF32, {std::min(x.tokens, kStepsPerPass), stride});
  for (int64_t first = 0; first < x.tokens; first += kStepsPerPass) {
    const TokenRows slice = Slice(x, first, kStepsPerPass);
    const Matrix<float> rows{wide.as<float>(), slice.tokens, x.features, stride};
    ParallelFor(slice.tokens, [&](int64_t t) {
      for (int64_t f = 0; f < x.features; ++f) rows.at(t, f) = LoadAsFloat(slice, t, f);
    });
    ParallelFor(triangle.num_tiles(), [&](int64_t t) {
      const TriangleTile tile = triangle.tile(t);
      Gemm(rows.block(0, tile.row, slice.tokens, tile.rows),
           rows.block(0, tile.col, slice.tokens, tile.cols),
           Matrix<float>{gram + tile.offset, tile.rows, tile.cols, tile.cols},
           {.transposed = Transposed::kFirst, .beta = 1});
    });
  }
}

GramMethod BestMethod(DType dtype) {
  if (dtype == DType::kBF16 && HasGramTileBf16Dot()) return GramMethod::kBf16Dot;
  return HasGramTileFma() ? GramMethod::kFma : GramMethod::kBlas;
}

absl::Status Check(const TokenRows& x, std::span<float> gram, GramMethod method) {
  if (x.dtype != DType::kF32 && x.dtype != DType::kBF16) {
    return absl::InvalidArgumentError(
        absl::StrCat("AddGram: dtype ", SafetensorsName(x.dtype), ", expected F32 or BF16"));
  }
  if (x.tokens < 0 || x.features <= 0 || x.stride < x.features) {
    return absl::InvalidArgumentError(absl::StrCat("AddGram: ", x.tokens, " tokens of ", x.features,
                                                   " features with stride ", x.stride));
  }
  if (std::ssize(gram) != Triangle(x.features).num_elements()) {
    return absl::InvalidArgumentError(absl::StrCat("AddGram: gram of ", gram.size(), ", expected ",
                                                   Triangle(x.features).num_elements()));
  }
  const bool is_present =
      method == GramMethod::kBlas || (method == GramMethod::kFma && HasGramTileFma()) ||
      (method == GramMethod::kBf16Dot && HasGramTileBf16Dot() && x.dtype == DType::kBF16);
  return is_present ? absl::OkStatus()
                    : absl::UnimplementedError("AddGram: method not available on this CPU");
}

}  // namespace

absl::Status AddGram(const TokenRows& x, std::span<float> gram, GramMethod method) {
  if (method == GramMethod::kBest) method = BestMethod(x.dtype);
  LLMC_RETURN_IF_ERROR(Check(x, gram, method));
  if (x.tokens == 0) return absl::OkStatus();
  if (method == GramMethod::kBlas) {
    AddGramBlas(x, gram.data());
  } else {
    AddGramPacked(x, method == GramMethod::kBf16Dot, gram.data());
  }
  return absl::OkStatus();
}

}  // namespace llmc::kernels
