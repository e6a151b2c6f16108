#include "calibration/exact_sums.h"

#include <cmath>
#include <limits>

namespace llmc {
namespace {

constexpr int kFractionBits = 64;
constexpr double kLargest = 1125899906842624.0;  // 2^50
constexpr int kLimbBits = 32;
constexpr int kLimbs = 4;

}  // namespace

void ExactSums::Add(std::span<const double> values) {
  for (size_t i = 0; i < sums_.size(); ++i) {
    if (!(std::fabs(values[i]) <= kLargest)) {
      sums_[i].overflow = true;
      continue;
    }
    sums_[i].value += static_cast<Sum::Fixed>(std::ldexp(values[i], kFractionBits));
  }
}

// Limbs of 32 bits add up in 64-bit integers; the highest keeps the sign.
absl::Status ExactSums::Reduce(Collective& collective) {
  if (collective.world_size() == 1) return absl::OkStatus();
  constexpr int kStride = kLimbs + 1;
  std::vector<int64_t> limbs(sums_.size() * kStride);
  for (size_t i = 0; i < sums_.size(); ++i) {
    int64_t* limb = &limbs[i * kStride];
    for (int k = 0; k + 1 < kLimbs; ++k) {
      limb[k] = static_cast<int64_t>(static_cast<uint32_t>(sums_[i].value >> (kLimbBits * k)));
    }
    limb[kLimbs - 1] = static_cast<int64_t>(sums_[i].value >> (kLimbBits * (kLimbs - 1)));
    limb[kLimbs] = sums_[i].overflow ? 1 : 0;
  }
  LLMC_RETURN_IF_ERROR(collective.AllReduceSum(limbs));
  for (size_t i = 0; i < sums_.size(); ++i) {
    const int64_t* limb = &limbs[i * kStride];
    Sum::Fixed total = 0;
    for (int k = kLimbs - 1; k >= 0; --k) total = total * (Sum::Fixed{1} << kLimbBits) + limb[k];
    sums_[i] = {total, limb[kLimbs] != 0};
  }
  return absl::OkStatus();
}

double ExactSums::Get(int64_t i) const {
  if (sums_[i].overflow) return std::numeric_limits<double>::infinity();
  return std::ldexp(static_cast<double>(sums_[i].value), -kFractionBits);
}

}  // namespace llmc
