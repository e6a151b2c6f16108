#include "kernels/damping.h"

#include <cmath>
#include <vector>

namespace llmc::kernels {

absl::StatusOr<Diagonal> ExamineDiagonal(std::span<const float> diagonal) {
  const auto n = std::ssize(diagonal);
  Diagonal examined;
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float value = diagonal[i];
    if (!(value >= 0) || !std::isfinite(value)) {
      return absl::FailedPreconditionError(
          absl::StrCat("Hessian: diagonal entry ", i, " is ", value, ", expected >= 0 and finite"));
    }
    sum += value;
    examined.num_dead += value == 0;
  }
  if (examined.num_dead == n) {
    return absl::FailedPreconditionError("Hessian: all 0, expected at least one calibration token");
  }
  examined.live_mean = sum / static_cast<double>(n - examined.num_dead);
  return examined;
}

absl::Status CheckFactoring(int64_t n, std::span<const int32_t> order,
                            const InverseFactorOptions& options) {
  if (!(options.dampening_frac > 0) || !(options.dampening_frac <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("dampening_frac: ", options.dampening_frac, ", expected a number in (0, 1]"));
  }
  if (order.empty()) return absl::OkStatus();
  std::vector<bool> seen(n, false);
  bool is_permutation = std::ssize(order) == n;
  for (size_t p = 0; is_permutation && p < order.size(); ++p) {
    is_permutation = order[p] >= 0 && order[p] < n && !seen[order[p]];
    if (is_permutation) seen[order[p]] = true;
  }
  return is_permutation ? absl::OkStatus()
                        : absl::InvalidArgumentError(absl::StrCat(
                              "column order: expected a permutation of ", n, " columns"));
}

}  // namespace llmc::kernels
