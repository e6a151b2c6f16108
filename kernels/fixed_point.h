// Sums that do not depend on their order: FP32 partial sums of a Gram matrix
// become 64-bit integers at a scale fixed beforehand, and integers are added.
//
// Row i has an exponent e_i with |H_ii| < 2^(2 e_i), so that by Cauchy-Schwarz
// |H_ij| < 2^(e_i + e_j); entry (i, j) is stored as
// round(H_ij * 2^(scale_bits - e_i - e_j)).
#ifndef LLMC_KERNELS_FIXED_POINT_H_
#define LLMC_KERNELS_FIXED_POINT_H_

#include <cstdint>
#include <span>

#include "kernels/device_queue.h"
#include "kernels/triangle.h"
#include "llmc/status.h"

namespace llmc::kernels {

struct FixedPointScale {
  int scale_bits = 40;
  std::span<const int16_t> exponents;  // [n]: e_i, in [-80, 72].
};

// Marks of a diagonal entry that has no exponent.
inline constexpr int16_t kZeroExponent = -32768;      // The entry is 0.
inline constexpr int16_t kNotFiniteExponent = 32767;  // Infinite, NaN or negative.

// Smallest e with value < 2^(2 e), or one of the marks.
int16_t HalfExponent(float value);

// The half exponents of the diagonal of `gram` (layout Triangle(n)) -> [n].
void DiagonalExponents(const Triangle& triangle, const float* gram, std::span<int16_t> exponents);

// totals += fixed-point(gram), and gram = 0, tile by tile in parallel. Values are
// rounded to nearest, ties to even; what does not fit 63 bits is saturated before
// it is added (the caller has ruled that out by DiagonalExponents).
void AddToFixedPoint(const Triangle& triangle, const FixedPointScale& scale, float* gram,
                     int64_t* totals);

// full[i, j] = full[j, i] = factor * value of totals at (i, j), f32 [n, n].
void ExpandFixedPoint(const Triangle& triangle, const FixedPointScale& scale, double factor,
                      const int64_t* totals, float* full);

// The same on a device, to the same bits. `exponents`, i16 [n], and the other arrays are
// device memory. Enqueue.
absl::Status DiagonalExponents(const Triangle& triangle, const float* gram, int16_t* exponents,
                               DeviceQueue& queue);
struct DeviceFixedPointScale {
  int scale_bits = 40;
  const int16_t* exponents = nullptr;  // Device, [n].
};
absl::Status AddToFixedPoint(const Triangle& triangle, const DeviceFixedPointScale& scale,
                             float* gram, int64_t* totals, DeviceQueue& queue);
struct ExpandCall {
  double factor = 1;
  const int64_t* totals = nullptr;  // Device, layout Triangle(n).
  float* full = nullptr;            // Device, f32 [n, n].
};
absl::Status ExpandFixedPoint(const Triangle& triangle, const DeviceFixedPointScale& scale,
                              const ExpandCall& call, DeviceQueue& queue);

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_FIXED_POINT_H_
