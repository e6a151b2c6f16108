#include "calibration/hessian.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "ATen/ops/maximum.h"
#include "absl/strings/str_cat.h"
#include "kernels/fixed_point.h"
#include "model/torch_tensor.h"

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

template <typename T>
std::span<T> Elements(const at::Tensor& tensor) {
  return {static_cast<T*>(tensor.data_ptr()), static_cast<size_t>(tensor.numel())};
}

}  // namespace

HessianAccumulator::HessianAccumulator(int64_t in_features, int64_t num_chunks,
                                       const RankPlace& place)
    : triangle_(in_features),
      scale_bits_(ScaleBits(num_chunks)),
      place_(place),
      largest_(in_features, kernels::kZeroExponent) {}

absl::Status HessianAccumulator::Add(const kernels::TokenRows& rows, int64_t sequences) {
  if (!partial_.defined()) {
    LLMC_ASSIGN_OR_RETURN(partial_, device().Zeros(at::kFloat, {triangle_.num_elements()}));
  }
  if (rows.features != in_features()) {
    return absl::InvalidArgumentError(
        absl::StrCat("Hessian: rows of ", rows.features, " features, expected ", in_features()));
  }
  kernels::DeviceQueue* const queue = device().queue();
  const std::span<float> gram = Elements<float>(partial_);
  LLMC_RETURN_IF_ERROR(queue == nullptr ? kernels::AddGram(rows, gram)
                                        : kernels::AddGram(rows, gram.data(), *queue));
  tokens_ += rows.tokens;
  sequences_ += sequences;
  return absl::OkStatus();
}

absl::StatusOr<at::Tensor> HessianAccumulator::ChunkExponents() const {
  LLMC_ASSIGN_OR_RETURN(at::Tensor exponents, device().New(at::kShort, {in_features()}));
  const float* const gram = Elements<float>(partial_).data();
  const std::span<int16_t> out = Elements<int16_t>(exponents);
  if (device().is_host()) {
    kernels::DiagonalExponents(triangle_, gram, out);
  } else {
    LLMC_RETURN_IF_ERROR(
        kernels::DiagonalExponents(triangle_, gram, out.data(), *device().queue()));
  }
  return exponents;
}

absl::StatusOr<std::vector<int16_t>> HessianAccumulator::ToHost(const at::Tensor& exponents) const {
  std::vector<int16_t> host(in_features());
  LLMC_RETURN_IF_ERROR(device().Download(exponents, std::as_writable_bytes(std::span(host))));
  return host;
}

absl::Status HessianAccumulator::ShareExponents(Collective& collective) {
  std::vector<int16_t> shared(in_features(), kernels::kZeroExponent);
  absl::Status local;
  if (collective.rank() == 0) {
    if (!exponents_.empty()) {
      shared = exponents_;
    } else if (partial_.defined()) {
      const absl::StatusOr<at::Tensor> exponents = ChunkExponents();
      absl::StatusOr<std::vector<int16_t>> host =
          exponents.ok() ? ToHost(*exponents) : exponents.status();
      local = host.status();
      if (host.ok()) shared = *std::move(host);
    }
  }
  LLMC_RETURN_IF_ERROR(At("Hessian", collective.AgreeOnStatus(local)));
  LLMC_RETURN_IF_ERROR(
      At("Hessian", collective.Broadcast(std::as_writable_bytes(std::span(shared)), 0)));
  SetExponents(std::move(shared));
  return absl::OkStatus();
}

void HessianAccumulator::SetExponents(std::vector<int16_t> exponents) {
  exponents_ = std::move(exponents);
  FillUnknown(exponents_);
  device_exponents_ = at::Tensor();
}

absl::Status HessianAccumulator::EndChunk() {
  if (exponents_.empty()) {
    return absl::FailedPreconditionError("Hessian: EndChunk before the exponents are known");
  }
  if (!partial_.defined()) return absl::OkStatus();
  if (!totals_.defined()) {
    LLMC_ASSIGN_OR_RETURN(totals_, device().Zeros(at::kLong, {triangle_.num_elements()}));
  }
  LLMC_ASSIGN_OR_RETURN(const at::Tensor exponents, ChunkExponents());
  LLMC_RETURN_IF_ERROR(CatchTorch("Hessian", [&] {
    chunk_largest_ =
        chunk_largest_.defined() ? at::maximum(chunk_largest_, exponents) : exponents;
  }));
  return AddChunk();
}

absl::StatusOr<const int16_t*> HessianAccumulator::DeviceExponents() {
  if (!device_exponents_.defined()) {
    const std::span<const int16_t> exponents(exponents_);
    LLMC_ASSIGN_OR_RETURN(device_exponents_, device().Upload({DType::kI16,
                                                              {in_features()},
                                                              std::as_bytes(exponents)}));
  }
  return Elements<int16_t>(device_exponents_).data();
}

absl::Status HessianAccumulator::AddChunk() {
  float* const gram = Elements<float>(partial_).data();
  int64_t* const totals = Elements<int64_t>(totals_).data();
  if (device().is_host()) {
    kernels::AddToFixedPoint(triangle_, {scale_bits_, exponents_}, gram, totals);
    return absl::OkStatus();
  }
  LLMC_ASSIGN_OR_RETURN(const int16_t* const exponents, DeviceExponents());
  return kernels::AddToFixedPoint(triangle_, {scale_bits_, exponents}, gram, totals,
                                  *device().queue());
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

absl::Status HessianAccumulator::TakeLargest() {
  if (!chunk_largest_.defined()) return absl::OkStatus();
  LLMC_ASSIGN_OR_RETURN(largest_, ToHost(chunk_largest_));
  chunk_largest_ = at::Tensor();
  return absl::OkStatus();
}

absl::StatusOr<HessianSum> HessianAccumulator::Reduce(Collective& collective, int root) {
  partial_ = at::Tensor();
  LLMC_RETURN_IF_ERROR(At("Hessian", collective.AgreeOnStatus(TakeLargest())));
  LLMC_RETURN_IF_ERROR(At("Hessian", ReduceCounts(collective)));
  HessianSum sum{.tokens = tokens_, .sequences = sequences_};
  const auto bad = std::find(largest_.begin(), largest_.end(), kernels::kNotFiniteExponent);
  if (bad != largest_.end()) {
    totals_ = at::Tensor();
    return absl::FailedPreconditionError(absl::StrCat(
        "Hessian: input feature ", bad - largest_.begin(), " is not finite, expected numbers"));
  }
  sum.needs_rescale = tokens_ > 0 && !WindowFits();
  if (sum.needs_rescale) {
    totals_ = at::Tensor();
    return sum;
  }
  LLMC_RETURN_IF_ERROR(At("Hessian", ReduceTotals(collective, root)));
  return sum;
}

absl::Status HessianAccumulator::ReduceTotals(Collective& collective, int root) {
  if (collective.world_size() > 1) {
    absl::Status local;
    if (!totals_.defined()) {
      absl::StatusOr<at::Tensor> zeros = device().Zeros(at::kLong, {triangle_.num_elements()});
      local = zeros.status();
      if (zeros.ok()) totals_ = *std::move(zeros);
    }
    LLMC_RETURN_IF_ERROR(collective.AgreeOnStatus(local));
    LLMC_RETURN_IF_ERROR(ReduceSumTensor(collective, place_, totals_, root));
  }
  if (root >= 0 && root != collective.rank()) totals_ = at::Tensor();
  return absl::OkStatus();
}

void HessianAccumulator::Restart() {
  SetExponents(largest_);
  largest_.assign(in_features(), kernels::kZeroExponent);
  chunk_largest_ = at::Tensor();
  totals_ = at::Tensor();
  partial_ = at::Tensor();
  tokens_ = 0;
  sequences_ = 0;
}

absl::StatusOr<at::Tensor> HessianAccumulator::Finish() {
  const int64_t n = in_features();
  if (!totals_.defined()) return device().Zeros(at::kFloat, {n, n});
  LLMC_ASSIGN_OR_RETURN(at::Tensor hessian, device().New(at::kFloat, {n, n}));
  const double factor = 2.0 / static_cast<double>(std::max<int64_t>(1, sequences_));
  const int64_t* const totals = Elements<int64_t>(totals_).data();
  float* const full = Elements<float>(hessian).data();
  if (device().is_host()) {
    kernels::ExpandFixedPoint(triangle_, {scale_bits_, exponents_}, factor, totals, full);
  } else {
    LLMC_ASSIGN_OR_RETURN(const int16_t* const exponents, DeviceExponents());
    LLMC_RETURN_IF_ERROR(kernels::ExpandFixedPoint(triangle_, {scale_bits_, exponents},
                                                   {factor, totals, full}, *device().queue()));
  }
  totals_ = at::Tensor();
  return hessian;
}

}  // namespace llmc
