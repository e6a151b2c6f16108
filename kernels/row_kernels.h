// Vectorised loops over a part of one row. The instruction set is chosen at run
// time; the results do not depend on it. Used by the kernels of this folder.
#ifndef LLMC_KERNELS_ROW_KERNELS_H_
#define LLMC_KERNELS_ROW_KERNELS_H_

#include <cstdint>

#include "kernels/round_to_grid.h"
#include "llmc/dtype.h"

namespace llmc::kernels {

// Longest span that the functions with per-column scales are called with; what
// they read and write then stays in the first-level cache.
inline constexpr int64_t kTileColumns = 1024;

// What zero point the quotient meets before it is clamped.
enum class ZeroPoint : uint8_t { kNone, kPositiveZero, kPerColumn };

// How a quotient becomes a code.
struct CodeRule {
  DType dtype = DType::kF32;   // Of the weight: kBF16, kF16 or kF32.
  bool round_quotient = true;  // To `dtype`, after the division and the addition.
  Element element = Element::kInt;
  ZeroPoint zero = ZeroPoint::kNone;
  float q_min = 0;
  float q_max = 0;
  int32_t code_offset = 0;  // Added to integer codes; 0: two's complement bytes.
};

// How a code becomes a number: RoundTo(RoundTo(q - zero) * scale).
struct NumberRule {
  DType product = DType::kF32;  // Both results are rounded to it.
  Element element = Element::kInt;
  int32_t code_offset = 0;  // Subtracted from integer codes.
};

// Largest |x| of every group_size columns of weight[0, columns) (BF16, F16 or
// F32), as the float32 magnitude; infinity or NaN when there is one. absmax:
// [ceil(columns / group_size)].
void GroupAbsMax(DType dtype, const void* weight, int64_t columns, int64_t group_size,
                 float* absmax);

// Smallest and largest number likewise; infinity or NaN when there is one in
// that direction (a NaN lies beyond the infinity of its sign).
void GroupMinMax(DType dtype, const void* weight, int64_t columns, int64_t group_size, float* min,
                 float* max);

// One code a column, n <= kTileColumns: int8 (or offset uint8), E4M3 bits, or
// an E2M1 code in the low four bits. `zero` is read for kPerColumn only.
void QuantizeSpan(const CodeRule& rule, const void* weight, int64_t n, const float* scale,
                  const float* zero, uint8_t* codes);

// The reverse, in float32. `zero` may be null.
void DequantizeSpan(const NumberRule& rule, const uint8_t* codes, int64_t n, const float* scale,
                    const float* zero, float* numbers);

// Widens n numbers of BF16, F16 or F32; narrows them, rounding to nearest even.
void WidenSpan(DType dtype, const void* numbers, int64_t n, float* widened);
void NarrowSpan(DType dtype, const float* numbers, int64_t n, void* narrowed);

// per_column[i] = per_group[(first + i) / group_size].
void ExpandSpan(const float* per_group, int64_t first, int64_t n, int64_t group_size,
                float* per_column);

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_ROW_KERNELS_H_
