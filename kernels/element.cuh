// Elements of BF16, F16 and F32 arrays in device code.
#ifndef LLMC_KERNELS_ELEMENT_CUH_
#define LLMC_KERNELS_ELEMENT_CUH_

#include <bit>
#include <cstdint>

#include "kernels/round_to_grid.h"
#include "llmc/dtype.h"

namespace llmc::kernels {

// Element `i` of an array, in float32.
__device__ inline float LoadElement(DType dtype, const void* array, int64_t i) {
  if (dtype == DType::kF32) return static_cast<const float*>(array)[i];
  const uint16_t bits = static_cast<const uint16_t*>(array)[i];
  return dtype == DType::kBF16 ? FromBf16Bits(bits) : FromF16Bits(bits);
}

// The bits of a value of a 16-bit dtype, rounded to nearest even; NaN as NarrowSpan.
__device__ inline uint16_t NarrowBits(DType dtype, float value) {
  if (dtype == DType::kF16) return F16Bits(value);
  const bool is_nan = (std::bit_cast<uint32_t>(value) & 0x7fffffffu) > 0x7f800000u;
  return is_nan ? uint16_t{0x7fc0} : Bf16Bits(value);
}

__device__ inline void StoreElement(DType dtype, float value, void* array, int64_t i) {
  if (dtype == DType::kF32) {
    static_cast<float*>(array)[i] = value;
  } else {
    static_cast<uint16_t*>(array)[i] = NarrowBits(dtype, value);
  }
}

// Numbers as integers that rise with them; a NaN lies beyond the infinity of its sign.
__device__ inline int32_t Ordered(float value) {
  const int32_t bits = std::bit_cast<int32_t>(value);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}
__device__ inline float FromOrdered(int32_t ordered) {
  return std::bit_cast<float>(ordered ^ ((ordered >> 31) & 0x7fffffff));
}

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_ELEMENT_CUH_
