#include "kernels/grid_point.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/grid_layout.h"

namespace llmc::kernels {
namespace {

constexpr float kE4m3Max = 448.0f;

// Machine epsilon: the scale of elements that are all zero.
float Epsilon(DType dtype) {
  if (dtype == DType::kBF16) return 0x1p-7f;
  return dtype == DType::kF16 ? 0x1p-10f : 0x1p-23f;
}

float SmallestNormal(DType dtype) { return dtype == DType::kF16 ? 0x1p-14f : 0x1p-126f; }

// Exponent of `absmax` when a mantissa of 1.75 and above counts as the next
// power of two: an addition to the bits of the dtype's own representation, so
// that subnormals go to the smallest power or to zero.
struct MxExponent {
  bool zero = false;
  int exponent = 0;
};
MxExponent MxExponentOf(float absmax, DType dtype) {
  const int mantissa_bits = dtype == DType::kBF16 ? 7 : (dtype == DType::kF16 ? 10 : 23);
  const int bias = dtype == DType::kF16 ? 15 : 127;
  uint32_t bits = std::bit_cast<uint32_t>(absmax);
  if (dtype == DType::kBF16) bits = Bf16Bits(absmax);
  if (dtype == DType::kF16) bits = F16Bits(absmax);
  const int field = static_cast<int>((bits + (1u << (mantissa_bits - 2))) >> mantissa_bits);
  if (field == 0) return {true, 0};
  return {false, std::min(field, 2 * bias) - bias};
}

float MxScale(float absmax, DType dtype, Element element) {
  const int offset = element == Element::kE2m1 ? 2 : 8;
  const MxExponent power = MxExponentOf(absmax, dtype);
  const int byte = power.zero ? 0 : std::clamp(127 + power.exponent - offset, 0, 254);
  const float scale = RoundTo(dtype, FromE8m0Byte(static_cast<uint8_t>(byte)));
  return scale == 0 ? 1.0f : scale;
}

float SymmetricScale(const GridRule& rule, float absmax) {
  const float scale = RoundTo(rule.dtype, absmax / (rule.range / 2));
  if (rule.global_scale == 0) return scale == 0 ? Epsilon(rule.dtype) : scale;
  const float stored = RoundToE4m3(Clamp(rule.global_scale * scale, -kE4m3Max, kE4m3Max));
  return stored == 0 ? 0.125f : stored;
}

// The step between two codes. Where max - min overflows the dtype, float32
// still has the quotient.
float AsymmetricStep(const GridRule& rule, float min, float max) {
  const float width = RoundTo(rule.dtype, max - min);
  if (std::isfinite(width)) return RoundTo(rule.dtype, width / rule.range);
  return RoundTo(rule.dtype, max / rule.range - min / rule.range);
}

GridPoint AsymmetricPoint(const GridRule& rule, float min, float max) {
  const float scale = AsymmetricStep(rule, min, max);
  if (scale == 0) return {Epsilon(rule.dtype), min == 0 ? 0.0f : rule.q_max};
  const float shift = RoundTo(rule.dtype, min / scale);
  const float zero = Clamp(RoundTo(rule.dtype, rule.q_min - shift), rule.q_min, rule.q_max);
  return {scale, rule.element == Element::kInt ? RoundHalfEven(zero) : RoundToE4m3(zero)};
}

}  // namespace

GridRule RuleOf(const QuantizationArgs& args, DType dtype) {
  const QuantizedRange range = RangeOf(args);
  GridRule rule;
  rule.dtype = dtype;
  rule.element = ElementOf(args);
  rule.symmetric = args.symmetric;
  rule.mx = IsMx(args);
  rule.q_min = static_cast<float>(range.min);
  rule.q_max = static_cast<float>(range.max);
  rule.range = rule.q_max - rule.q_min;
  return rule;
}

GridPoint PointOf(const GridRule& rule, Extrema extrema) {
  const float min = std::min(extrema.min, 0.0f);
  const float max = std::max(extrema.max, 0.0f);
  if (!rule.symmetric) return AsymmetricPoint(rule, min, max);
  const float absmax = std::fabs(std::max(-min, max));  // -0.0 has other bits.
  if (rule.mx) return {MxScale(absmax, rule.dtype, rule.element), 0};
  return {SymmetricScale(rule, absmax), 0};
}

float GlobalScaleOf(float absmax, DType dtype, bool exact) {
  constexpr float kLargest = kE4m3Max * 6;
  const float floor = std::max(absmax, SmallestNormal(dtype));
  if (exact) dtype = DType::kF32;
  const float inverse = RoundTo(dtype, 1.0f / floor);
  const float scale = RoundTo(dtype, inverse * kLargest);
  return std::isfinite(scale) ? scale : 1.0f;
}

uint8_t E8m0Byte(float scale) {
  return static_cast<uint8_t>(std::clamp(std::ilogb(scale), -127, 128) + 127);
}

float FromE8m0Byte(uint8_t byte) {
  // 2^-127 is subnormal.
  return std::bit_cast<float>(byte == 0 ? 0x00400000u : uint32_t{byte} << 23);
}

}  // namespace llmc::kernels
