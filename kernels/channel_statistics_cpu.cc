#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/channel_statistics.h"
#include "kernels/cpu_clones.h"

namespace llmc::kernels {
namespace {

// Tokens whose magnitudes are added in float32.
constexpr int64_t kBlockTokens = 64;

absl::Status Check(const TokenRows& x, size_t size) {
  if (x.dtype != DType::kF32 && x.dtype != DType::kBF16) {
    return absl::InvalidArgumentError("channel statistics: expected F32 or BF16 rows");
  }
  if (static_cast<int64_t>(size) != x.features || x.stride < x.features) {
    return absl::InvalidArgumentError(absl::StrCat("channel statistics: ", size, " values for ",
                                                   x.features, " features, stride ", x.stride));
  }
  return absl::OkStatus();
}

LLMC_CLONES void WidenRow(const uint16_t* from, int64_t n, float* to) {
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = static_cast<uint32_t>(from[i]) << 16;
    std::memcpy(&to[i], &bits, sizeof(bits));
  }
}

// `poison` stays 0 while all values are finite: 0 times infinity or NaN is NaN.
LLMC_CLONES void FoldExtrema(const float* x, int64_t n, float* min, float* max, float* poison) {
  for (int64_t i = 0; i < n; ++i) {
    poison[i] += x[i] * 0.0f;
    min[i] = x[i] < min[i] ? x[i] : min[i];
    max[i] = x[i] > max[i] ? x[i] : max[i];
  }
}

LLMC_CLONES void AddMagnitudes(const float* x, int64_t n, float* sums) {
  for (int64_t i = 0; i < n; ++i) sums[i] += std::fabs(x[i]);
}

LLMC_CLONES void AddSquares(const float* x, int64_t n, double* sums) {
  for (int64_t i = 0; i < n; ++i) {
    const double value = x[i];
    sums[i] += value * value;
  }
}

// Row `token` as float32, in `wide` when it has to be widened.
const float* Row(const TokenRows& x, int64_t token, std::vector<float>& wide) {
  if (x.dtype == DType::kF32) return static_cast<const float*>(x.data) + token * x.stride;
  wide.resize(x.features);
  WidenRow(static_cast<const uint16_t*>(x.data) + token * x.stride, x.features, wide.data());
  return wide.data();
}

}  // namespace

absl::Status ChannelExtrema(const TokenRows& x, std::span<float> min, std::span<float> max) {
  LLMC_RETURN_IF_ERROR(Check(x, min.size()));
  LLMC_RETURN_IF_ERROR(Check(x, max.size()));
  std::fill(min.begin(), min.end(), std::numeric_limits<float>::infinity());
  std::fill(max.begin(), max.end(), -std::numeric_limits<float>::infinity());
  std::vector<float> wide;
  std::vector<float> poison(x.features);
  for (int64_t token = 0; token < x.tokens; ++token) {
    FoldExtrema(Row(x, token, wide), x.features, min.data(), max.data(), poison.data());
  }
  const auto bad = std::find_if(poison.begin(), poison.end(), [](float p) { return p != 0; });
  if (bad == poison.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("channel ", bad - poison.begin(), " is not finite, expected numbers"));
}

absl::Status ChannelMagnitudes(const TokenRows& x, std::span<double> sums) {
  LLMC_RETURN_IF_ERROR(Check(x, sums.size()));
  std::fill(sums.begin(), sums.end(), 0.0);
  std::vector<float> wide;
  std::vector<float> block(x.features);
  for (int64_t first = 0; first < x.tokens; first += kBlockTokens) {
    std::fill(block.begin(), block.end(), 0.0f);
    const int64_t last = std::min(x.tokens, first + kBlockTokens);
    for (int64_t token = first; token < last; ++token) {
      AddMagnitudes(Row(x, token, wide), x.features, block.data());
    }
    for (int64_t i = 0; i < x.features; ++i) sums[i] += block[i];
  }
  return absl::OkStatus();
}

absl::Status ChannelSquares(const TokenRows& x, std::span<double> sums) {
  LLMC_RETURN_IF_ERROR(Check(x, sums.size()));
  std::fill(sums.begin(), sums.end(), 0.0);
  std::vector<float> wide;
  for (int64_t token = 0; token < x.tokens; ++token) {
    AddSquares(Row(x, token, wide), x.features, sums.data());
  }
  return absl::OkStatus();
}

}  // namespace llmc::kernels
