// Part of kernels/cholesky: what the CPU's factorization and the device's agree on, so
// that lambda has the same bits and both repeat and give up alike.
#ifndef LLMC_KERNELS_DAMPING_H_
#define LLMC_KERNELS_DAMPING_H_

#include <cstdint>
#include <span>

#include "absl/strings/str_cat.h"
#include "kernels/cholesky.h"
#include "llmc/status.h"

namespace llmc::kernels {

struct Diagonal {
  double live_mean = 0;  // Of the entries that are not 0.
  int64_t num_dead = 0;  // How many are 0.
};

// kFailedPrecondition: an entry is negative or not finite, or all are 0.
absl::StatusOr<Diagonal> ExamineDiagonal(std::span<const float> diagonal);

// kInvalidArgument: `order` is neither empty nor a permutation of n columns, or
// dampening_frac is out of range.
absl::Status CheckFactoring(int64_t n, std::span<const int32_t> order,
                            const InverseFactorOptions& options);

// Fills `factor`, an InverseFactor or DeviceInverseFactor, by try_factor(use_fp64, lambda),
// which returns StatusOr<bool>: whether the matrix could be factored. In FP32, in FP64,
// then with ten times the damping while that is allowed; kFailedPrecondition after that.
template <typename Try, typename Factor>
absl::Status FactorWithDamping(const Diagonal& diagonal, const InverseFactorOptions& options,
                               const Try& try_factor, Factor& factor) {
  factor.num_dead = diagonal.num_dead;
  factor.dampening_frac = options.dampening_frac;
  for (bool use_fp64 : {false, true}) {
    factor.used_fp64 = use_fp64;
    while (true) {
      factor.lambda = factor.dampening_frac * diagonal.live_mean;
      LLMC_ASSIGN_OR_RETURN(const bool is_factored, try_factor(use_fp64, factor.lambda));
      if (is_factored) return absl::OkStatus();
      if (!use_fp64 || factor.dampening_frac * 10 > options.max_dampening_frac) break;
      factor.dampening_frac *= 10;
    }
  }
  return absl::FailedPreconditionError(
      absl::StrCat("Hessian: not positive definite with dampening_frac ", factor.dampening_frac,
                   ", expected more calibration tokens or a larger dampening_frac"));
}

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_DAMPING_H_
