// The factor that GPTQ walks along: upper triangular U with
// U^T U = (H + lambda I)^-1.
//
// With J the reversal of rows, L L^T = J (H + lambda I) J lower triangular gives
// U = J L^-1 J: one factorization and one triangular inverse, n^3 / 3
// multiply-adds, no inverse of H (E. Frantar et al., arXiv:2210.17323, Algorithm
// 1 takes the Cholesky factor of the inverse instead; the two are equal).
#ifndef LLMC_KERNELS_CHOLESKY_H_
#define LLMC_KERNELS_CHOLESKY_H_

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/device_queue.h"
#include "llmc/status.h"
#include "llmc/tensor.h"

namespace llmc::kernels {

struct InverseFactorOptions {
  // lambda as a fraction of the mean of the diagonal, > 0 and <= 1.
  double dampening_frac = 0.01;
  // When the factorization fails in FP32 it is repeated in FP64, then with
  // dampening_frac times 10, 100, ... while that is at most this.
  double max_dampening_frac = 1.0;
};

struct InverseFactor {
  HostTensor upper;           // F32 [n, n]; below the diagonal 0.
  double dampening_frac = 0;  // What was used.
  double lambda = 0;          // dampening_frac * mean of the live diagonal.
  bool used_fp64 = false;
  int64_t num_dead = 0;  // Columns whose diagonal was 0.
};

// The order in which GPTQ visits columns under activation ordering: position p
// holds the original column, by falling diagonal, equal ones by rising column.
// `hessian` is F32 [n, n], `diagonal` its diagonal.
std::vector<int32_t> OrderByDiagonal(const HostTensor& hessian);
std::vector<int32_t> OrderByDiagonal(std::span<const float> diagonal);

// Factors `hessian`, F32 [n, n] symmetric (all of it is read), in the
// column order `order` (original column of each position; empty: natural).
//
// A dead column (diagonal 0: the calibration never excited it) gets the mean of
// the live diagonal entries instead; being uncorrelated it is then simply rounded
// to nearest by the solver. The mean that lambda refers to is over live entries,
// so the result does not depend on the scale of H beyond U's own.
//
// Works in place of a copy of `hessian`: allocates 4 n^2 bytes (8 n^2 in FP64)
// beside it and returns that as the factor. Bits do not depend on threads.
//
// kInvalidArgument: not F32 and square, `order` not a permutation, a fraction out
// of range. kFailedPrecondition: every column is dead, a diagonal entry is
// negative or not finite, or the matrix stays singular at max_dampening_frac.
absl::StatusOr<InverseFactor> FactorInverseHessian(const HostTensor& hessian,
                                                   std::span<const int32_t> order,
                                                   const InverseFactorOptions& options = {});
absl::StatusOr<InverseFactor> FactorInverseHessian(const TensorView& hessian,
                                                   std::span<const int32_t> order,
                                                   const InverseFactorOptions& options = {});

// What FactorInverseHessian says of a factor on a device.
struct DeviceInverseFactor {
  DeviceBuffer upper;         // F32 [n, n]; below the diagonal 0.
  double dampening_frac = 0;  // What was used.
  double lambda = 0;          // dampening_frac * mean of the live diagonal.
  bool used_fp64 = false;
  int64_t num_dead = 0;  // Columns whose diagonal was 0.
};

// The same on a device. `hessian`: device, f32 [n, n]; `order`: host. Repeats in FP64 and
// with larger damping as the CPU does; waits. The bits depend on the kind of device only.
absl::StatusOr<DeviceInverseFactor> FactorInverseHessian(const float* hessian, int64_t n,
                                                         std::span<const int32_t> order,
                                                         const InverseFactorOptions& options,
                                                         DeviceQueue& queue);

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_CHOLESKY_H_
