#include "calibration/hessian.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/fixed_point.h"

namespace llmc {
namespace {

// A later chunk's diagonal may be up to 2^(2 * kGrowth) times chunk 0's.
constexpr int kGrowth = 6;

// More would keep bits that FP32 partial sums do not have.
constexpr int kMaxScaleBits = 44;

// The smallest column that needs no other exponent keeps this many bits.
constexpr int kMinBits = 24;

// For an input that chunk 0 never excited at all: unit variance over 256 tokens.
constexpr int16_t kUnknownExponent = 4;

// |H_ij| < 2^(e_i + e_j + 2 kGrowth) for every chunk, so that the sum of all of
// them, and rounding, stays below 2^63.
int ScaleBits(int64_t num_chunks) {
  const int chunk_bits = std::bit_width(static_cast<uint64_t>(num_chunks));
  return std::min(kMaxScaleBits, 61 - chunk_bits - 2 * kGrowth);
}

bool IsKnown(int16_t exponent) {
  return exponent != kernels::kZeroExponent && exponent != kernels::kNotFiniteExponent;
}

// Gives columns that chunk 0 left at 0 the median exponent of the others.
void FillUnknown(std::vector<int16_t>& exponents) {
  std::vector<int16_t> known;
  std::copy_if(exponents.begin(), exponents.end(), std::back_inserter(known), IsKnown);
  int16_t median = kUnknownExponent;
  if (!known.empty()) {
    const auto middle = known.begin() + std::ssize(known) / 2;
    std::nth_element(known.begin(), middle, known.end());
    median = *middle;
  }
  for (int16_t& e : exponents) {
    if (!IsKnown(e)) e = median;
  }
}

HostTensor Zeros(DType dtype, Shape shape) {
  HostTensor tensor(dtype, std::move(shape));
  std::memset(tensor.bytes().data(), 0, tensor.bytes().size());
  return tensor;
}

std::span<float> Floats(HostTensor& tensor) {
  return {tensor.as<float>(), static_cast<size_t>(tensor.num_elements())};
}

}  // namespace

HessianAccumulator::HessianAccumulator(int64_t in_features, int64_t num_chunks)
    : triangle_(in_features),
      scale_bits_(ScaleBits(num_chunks)),
      largest_(in_features, kernels::kZeroExponent) {}

absl::Status HessianAccumulator::Add(const kernels::TokenRows& rows, int64_t sequences) {
  if (partial_.num_bytes() == 0) partial_ = Zeros(DType::kF32, {triangle_.num_elements()});
  if (rows.features != in_features()) {
    return absl::InvalidArgumentError(
        absl::StrCat("Hessian: rows of ", rows.features, " features, expected ", in_features()));
  }
  LLMC_RETURN_IF_ERROR(kernels::AddGram(rows, Floats(partial_)));
  tokens_ += rows.tokens;
  sequences_ += sequences;
  return absl::OkStatus();
}

absl::Status HessianAccumulator::ShareExponents(Collective& collective) {
  std::vector<int16_t> shared(in_features(), kernels::kZeroExponent);
  if (collective.rank() == 0) {
    if (!exponents_.empty()) {
      shared = exponents_;
    } else if (partial_.num_bytes() != 0) {
      kernels::DiagonalExponents(triangle_, partial_.as<float>(), shared);
    }
  }
  LLMC_RETURN_IF_ERROR(
      At("Hessian", collective.Broadcast(std::as_writable_bytes(std::span(shared)), 0)));
  SetExponents(std::move(shared));
  return absl::OkStatus();
}

void HessianAccumulator::SetExponents(std::vector<int16_t> exponents) {
  exponents_ = std::move(exponents);
  FillUnknown(exponents_);
}

absl::Status HessianAccumulator::EndChunk() {
  if (exponents_.empty()) {
    return absl::FailedPreconditionError("Hessian: EndChunk before the exponents are known");
  }
  if (partial_.num_bytes() == 0) return absl::OkStatus();
  if (totals_.num_bytes() == 0) totals_ = Zeros(DType::kI64, {triangle_.num_elements()});
  std::vector<int16_t> exponents(in_features());
  kernels::DiagonalExponents(triangle_, partial_.as<float>(), exponents);
  for (int64_t i = 0; i < in_features(); ++i) largest_[i] = std::max(largest_[i], exponents[i]);
  kernels::AddToFixedPoint(triangle_, {scale_bits_, exponents_}, partial_.as<float>(),
                           totals_.as<int64_t>());
  return absl::OkStatus();
}

bool HessianAccumulator::WindowFits() const {
  const int slack = (scale_bits_ - kMinBits) / 2;
  for (int64_t i = 0; i < in_features(); ++i) {
    if (largest_[i] == kernels::kZeroExponent) continue;
    if (largest_[i] > exponents_[i] + kGrowth || largest_[i] < exponents_[i] - slack) return false;
  }
  return true;
}

absl::Status HessianAccumulator::ReduceCounts(Collective& collective) {
  std::vector<int64_t> counts = {tokens_, sequences_};
  LLMC_RETURN_IF_ERROR(collective.AllReduceSum(counts));
  tokens_ = counts[0];
  sequences_ = counts[1];
  std::vector<int64_t> largest(largest_.begin(), largest_.end());
  LLMC_RETURN_IF_ERROR(collective.AllReduceMax(std::span<int64_t>(largest)));
  std::transform(largest.begin(), largest.end(), largest_.begin(),
                 [](int64_t e) { return static_cast<int16_t>(e); });
  return absl::OkStatus();
}

absl::StatusOr<HessianSum> HessianAccumulator::Reduce(Collective& collective, int root) {
  partial_ = HostTensor();
  LLMC_RETURN_IF_ERROR(At("Hessian", ReduceCounts(collective)));
  HessianSum sum{.tokens = tokens_, .sequences = sequences_};
  const auto bad = std::find(largest_.begin(), largest_.end(), kernels::kNotFiniteExponent);
  if (bad != largest_.end()) {
    totals_ = HostTensor();
    return absl::FailedPreconditionError(absl::StrCat(
        "Hessian: input feature ", bad - largest_.begin(), " is not finite, expected numbers"));
  }
  sum.needs_rescale = tokens_ > 0 && !WindowFits();
  if (sum.needs_rescale) {
    totals_ = HostTensor();
    return sum;
  }
  LLMC_RETURN_IF_ERROR(At("Hessian", ReduceTotals(collective, root)));
  return sum;
}

absl::Status HessianAccumulator::ReduceTotals(Collective& collective, int root) {
  if (collective.world_size() > 1) {
    if (totals_.num_bytes() == 0) totals_ = Zeros(DType::kI64, {triangle_.num_elements()});
    const std::span<int64_t> totals(totals_.as<int64_t>(), totals_.num_elements());
    LLMC_RETURN_IF_ERROR(root < 0 ? collective.AllReduceSum(totals)
                                  : collective.ReduceSum(totals, root));
  }
  if (root >= 0 && root != collective.rank()) totals_ = HostTensor();
  return absl::OkStatus();
}

void HessianAccumulator::Restart() {
  exponents_ = largest_;
  FillUnknown(exponents_);
  largest_.assign(in_features(), kernels::kZeroExponent);
  totals_ = HostTensor();
  partial_ = HostTensor();
  tokens_ = 0;
  sequences_ = 0;
}

HostTensor HessianAccumulator::Finish() {
  const int64_t n = in_features();
  if (totals_.num_bytes() == 0) return Zeros(DType::kF32, {n, n});
  HostTensor hessian(DType::kF32, {n, n});
  const double factor = 2.0 / static_cast<double>(std::max<int64_t>(1, sequences_));
  kernels::ExpandFixedPoint(triangle_, {scale_bits_, exponents_}, factor, totals_.as<int64_t>(),
                            hessian.as<float>());
  totals_ = HostTensor();
  return hessian;
}

}  // namespace llmc
