// Scalar rounding of float32 numbers to quantisation grids and back.
//
// Everything is inline and free of branches, so that loops over it vectorise, and
// constexpr, so that device code may call it.
// The order of operations is the one of compressed-tensors on CPU and decides
// the bits: divide, add the zero point, clamp, round half to even; back:
// subtract the zero point, multiply, each result rounded to the scale's dtype.
#ifndef LLMC_KERNELS_ROUND_TO_GRID_H_
#define LLMC_KERNELS_ROUND_TO_GRID_H_

#include <bit>
#include <cstdint>

#include "llmc/dtype.h"
#include "llmc/scheme.h"

namespace llmc::kernels {

// What one quantised number is: a signed integer of 2..8 bits, FP8 E4M3 ("fn",
// largest 448) or FP4 E2M1 (largest 6).
enum class Element : uint8_t { kInt, kE4m3, kE2m1 };

// Element of a scheme whose type and width are valid (int 1..8, float 8 or 4).
inline Element ElementOf(const QuantizationArgs& args) {
  if (args.type == NumberType::kInt) return Element::kInt;
  return args.num_bits == 8 ? Element::kE4m3 : Element::kE2m1;
}

// The nearest integer, ties to even. |value| <= 2^22.
constexpr float RoundHalfEven(float value) {
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: one unit in the last place is 1.
  return (value + kMagic) - kMagic;
}

// RoundHalfEven as an integer.
constexpr int32_t RoundToInt(float value) {
  constexpr float kMagic = 12582912.0f;
  return std::bit_cast<int32_t>(value + kMagic) - std::bit_cast<int32_t>(kMagic);
}

// torch.clamp for numbers.
constexpr float Clamp(float value, float low, float high) {
  const float raised = value < low ? low : value;
  return raised > high ? high : raised;
}

// `condition ? yes : no` that stays arithmetic: a compiler that makes a branch of
// it, to skip a floating-point operation, does not vectorise the loop around it.
constexpr uint32_t Select(bool condition, uint32_t yes, uint32_t no) {
  const uint32_t mask = uint32_t{0} - static_cast<uint32_t>(condition);
  return (yes & mask) | (no & ~mask);
}

// Bits of the nearest BF16. A NaN stays a NaN or becomes an infinity.
constexpr uint16_t Bf16Bits(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// Bits of the nearest F16; beyond the range: infinity. NaN is kept.
constexpr uint16_t F16Bits(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t normal =
      ((magnitude + 0xfffu + ((magnitude >> 13) & 1u)) >> 13) - (uint32_t{112} << 10);
  // Adding 0.5, whose last bit is the subnormal step 2^-24, lets the FPU round.
  const uint32_t subnormal =
      std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t finite = Select(magnitude < 0x38800000u, subnormal, normal);
  const uint32_t special = 0x7c00u | Select(magnitude > 0x7f800000u, 0x200u, 0);
  const uint32_t rounded = Select(magnitude >= 0x477ff000u, special, finite);
  return static_cast<uint16_t>(rounded | ((bits >> 16) & 0x8000u));
}

// Value of BF16 / F16 bits.
constexpr float FromBf16Bits(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}
constexpr float FromF16Bits(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t magnitude = bits & 0x7fffu;
  const uint32_t normal = (magnitude << 13) + (uint32_t{112} << 23);
  // A subnormal is its fraction times 2^-24.
  const float subnormal =
      static_cast<float>(static_cast<int32_t>(magnitude)) * 5.9604644775390625e-8f;
  const uint32_t special = 0x7f800000u | (magnitude & 0x3ffu) << 13;
  const uint32_t finite = Select(magnitude < 0x400u, std::bit_cast<uint32_t>(subnormal), normal);
  return std::bit_cast<float>(sign | Select(magnitude >= 0x7c00u, special, finite));
}

// `value` rounded to kF32 (unchanged), kBF16 or kF16, ties to even.
template <DType kDType>
constexpr float RoundTo(float value) {
  if constexpr (kDType == DType::kBF16) return FromBf16Bits(Bf16Bits(value));
  if constexpr (kDType == DType::kF16) return FromF16Bits(F16Bits(value));
  return value;
}
constexpr float RoundTo(DType dtype, float value) {
  if (dtype == DType::kBF16) return RoundTo<DType::kBF16>(value);
  if (dtype == DType::kF16) return RoundTo<DType::kF16>(value);
  return value;
}

// E4M3 code of a value with |value| <= 448; the sign of zero is kept.
constexpr uint8_t E4m3Bits(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t normal =
      ((magnitude + 0x7ffffu + ((magnitude >> 20) & 1u)) >> 20) - (uint32_t{120} << 3);
  // 2^14: its last bit is the subnormal step 2^-9.
  const uint32_t subnormal =
      std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 16384.0f) - 0x46800000u;
  const uint32_t rounded = Select(magnitude < 0x3c800000u, subnormal, normal);
  return static_cast<uint8_t>(rounded | ((bits >> 24) & 0x80u));
}

// Nearest E4M3 value of a value with |value| <= 448.
constexpr float RoundToE4m3(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t normal = (magnitude + 0x7ffffu + ((magnitude >> 20) & 1u)) & 0xfff00000u;
  const uint32_t subnormal =
      std::bit_cast<uint32_t>((std::bit_cast<float>(magnitude) + 16384.0f) - 16384.0f);
  return std::bit_cast<float>(Select(magnitude < 0x3c800000u, subnormal, normal) |
                              (bits & 0x80000000u));
}

// E2M1 code (sign << 3 | index into 0 .5 1 1.5 2 3 4 6) of a value with
// |value| <= 6: ties to the even index. A negative value that rounds to zero
// keeps its sign; -0.0 does not.
constexpr uint8_t E2m1Bits(float value) {
  const float a = value < 0 ? -value : value;
  const int32_t index = (a > 0.25f) + (a >= 0.75f) + (a > 1.25f) + (a >= 1.75f) + (a > 2.5f) +
                        (a >= 3.5f) + (a > 5.0f);
  return static_cast<uint8_t>(index + (value < 0 ? 8 : 0));
}

// Value of an E2M1 code.
constexpr float FromE2m1Bits(uint8_t code) {
  const float half_steps = static_cast<float>(0xc8643210u >> ((code & 7) * 4) & 15u);
  return code & 8 ? -0.5f * half_steps : 0.5f * half_steps;
}

// Nearest E2M1 value of a value with |value| <= 6.
constexpr float RoundToE2m1(float value) {
  const float a = value < 0 ? -value : value;
  const float half = RoundHalfEven(a * 2.0f) * 0.5f;
  const float one = RoundHalfEven(a);
  const float two = RoundHalfEven(a * 0.5f) * 2.0f;
  const float rounded = a < 2.0f ? half : (a < 4.0f ? one : two);
  return value < 0 ? -rounded : rounded;
}

// Nearest number of the grid, after clamping to [q_min, q_max] (RangeOf(args)).
// For kInt the result is the integer as a float.
template <Element kElement>
constexpr float RoundToGrid(float value, float q_min, float q_max) {
  const float clamped = Clamp(value, q_min, q_max);
  if constexpr (kElement == Element::kE4m3) return RoundToE4m3(clamped);
  if constexpr (kElement == Element::kE2m1) return RoundToE2m1(clamped);
  return RoundHalfEven(clamped);
}
constexpr float RoundToGrid(Element element, float value, float q_min, float q_max) {
  if (element == Element::kE4m3) return RoundToGrid<Element::kE4m3>(value, q_min, q_max);
  if (element == Element::kE2m1) return RoundToGrid<Element::kE2m1>(value, q_min, q_max);
  return RoundToGrid<Element::kInt>(value, q_min, q_max);
}

// From a number of the grid back to a weight: (q - zero) * scale, both results
// rounded to kScaleDType. NVFP4: scale = weight_scale / global_scale (a float32
// quotient) and kScaleDType = kF32.
template <DType kScaleDType>
constexpr float Dequantize(float q, float scale, float zero) {
  return RoundTo<kScaleDType>(RoundTo<kScaleDType>(q - zero) * scale);
}

// Quantises a float32 weight (as GPTQ's inner loop has it: the quotient stays
// in float32) and dequantises it with the product rounded in kScaleDType. zero
// is 0 for symmetric schemes.
template <Element kElement, DType kScaleDType>
constexpr float QuantizeDequantize(float value, float scale, float zero, float q_min, float q_max) {
  const float q = RoundToGrid<kElement>(value / scale + zero, q_min, q_max);
  return Dequantize<kScaleDType>(q, scale, zero);
}

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_ROUND_TO_GRID_H_
