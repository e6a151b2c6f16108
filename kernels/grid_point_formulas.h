// Part of kernels/grid_point: the formulas, constexpr so that device code may call them.
#ifndef LLMC_KERNELS_GRID_POINT_FORMULAS_H_
#define LLMC_KERNELS_GRID_POINT_FORMULAS_H_

#include <algorithm>
#include <bit>
#include <cstdint>

#include "kernels/grid_point.h"

namespace llmc::kernels {

constexpr bool IsFinite(float value) {
  return (std::bit_cast<uint32_t>(value) & 0x7f800000u) != 0x7f800000u;
}

// FromE8m0Byte for device code.
constexpr float PowerOfByte(uint8_t byte) {
  // 2^-127 is subnormal.
  return std::bit_cast<float>(byte == 0 ? 0x00400000u : uint32_t{byte} << 23);
}

// Machine epsilon: the scale of elements that are all zero.
constexpr float Epsilon(DType dtype) {
  if (dtype == DType::kBF16) return 0x1p-7f;
  return dtype == DType::kF16 ? 0x1p-10f : 0x1p-23f;
}

// Exponent of `absmax` when a mantissa of 1.75 and above counts as the next
// power of two: an addition to the bits of the dtype's own representation, so
// that subnormals go to the smallest power or to zero.
struct MxExponent {
  bool zero = false;
  int exponent = 0;
};
constexpr MxExponent MxExponentOf(float absmax, DType dtype) {
  const int mantissa_bits = dtype == DType::kBF16 ? 7 : (dtype == DType::kF16 ? 10 : 23);
  const int bias = dtype == DType::kF16 ? 15 : 127;
  uint32_t bits = std::bit_cast<uint32_t>(absmax);
  if (dtype == DType::kBF16) bits = Bf16Bits(absmax);
  if (dtype == DType::kF16) bits = F16Bits(absmax);
  const int field = static_cast<int>((bits + (1u << (mantissa_bits - 2))) >> mantissa_bits);
  if (field == 0) return {true, 0};
  return {false, std::min(field, 2 * bias) - bias};
}

constexpr float MxScale(float absmax, DType dtype, Element element) {
  const int offset = element == Element::kE2m1 ? 2 : 8;
  const MxExponent power = MxExponentOf(absmax, dtype);
  const int byte = power.zero ? 0 : std::clamp(127 + power.exponent - offset, 0, 254);
  const float scale = RoundTo(dtype, PowerOfByte(static_cast<uint8_t>(byte)));
  return scale == 0 ? 1.0f : scale;
}

constexpr float SymmetricScale(const GridRule& rule, float absmax) {
  const float scale = RoundTo(rule.dtype, absmax / (rule.range / 2));
  if (rule.global_scale == 0) return scale == 0 ? Epsilon(rule.dtype) : scale;
  const float stored = RoundToE4m3(Clamp(rule.global_scale * scale, -448.0f, 448.0f));
  return stored == 0 ? 0.125f : stored;
}

// The step between two codes. Where max - min overflows the dtype, float32
// still has the quotient.
constexpr float AsymmetricStep(const GridRule& rule, float min, float max) {
  const float width = RoundTo(rule.dtype, max - min);
  if (IsFinite(width)) return RoundTo(rule.dtype, width / rule.range);
  return RoundTo(rule.dtype, max / rule.range - min / rule.range);
}

constexpr GridPoint AsymmetricPoint(const GridRule& rule, float min, float max) {
  const float scale = AsymmetricStep(rule, min, max);
  if (scale == 0) return {Epsilon(rule.dtype), min == 0 ? 0.0f : rule.q_max};
  const float shift = RoundTo(rule.dtype, min / scale);
  const float zero = Clamp(RoundTo(rule.dtype, rule.q_min - shift), rule.q_min, rule.q_max);
  return {scale, rule.element == Element::kInt ? RoundHalfEven(zero) : RoundToE4m3(zero)};
}

// PointOf for device code.
constexpr GridPoint PointFor(const GridRule& rule, Extrema extrema) {
  const float min = std::min(extrema.min, 0.0f);
  const float max = std::max(extrema.max, 0.0f);
  if (!rule.symmetric) return AsymmetricPoint(rule, min, max);
  // The magnitude: -0.0 has other bits.
  const float absmax =
      std::bit_cast<float>(std::bit_cast<uint32_t>(std::max(-min, max)) & 0x7fffffffu);
  if (rule.mx) return {MxScale(absmax, rule.dtype, rule.element), 0};
  return {SymmetricScale(rule, absmax), 0};
}

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_GRID_POINT_FORMULAS_H_
