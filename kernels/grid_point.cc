#include "kernels/grid_point.h"

#include <algorithm>
#include <cmath>

#include "kernels/grid_layout.h"
#include "kernels/grid_point_formulas.h"

namespace llmc::kernels {
namespace {

float SmallestNormal(DType dtype) { return dtype == DType::kF16 ? 0x1p-14f : 0x1p-126f; }

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

GridPoint PointOf(const GridRule& rule, Extrema extrema) { return PointFor(rule, extrema); }

float FromE8m0Byte(uint8_t byte) { return PowerOfByte(byte); }

float GlobalScaleOf(float absmax, DType dtype, bool exact) {
  constexpr float kLargest = 448.0f * 6;
  const float floor = std::max(absmax, SmallestNormal(dtype));
  if (exact) dtype = DType::kF32;
  const float inverse = RoundTo(dtype, 1.0f / floor);
  const float scale = RoundTo(dtype, inverse * kLargest);
  return std::isfinite(scale) ? scale : 1.0f;
}

uint8_t E8m0Byte(float scale) {
  return static_cast<uint8_t>(std::clamp(std::ilogb(scale), -127, 128) + 127);
}

}  // namespace llmc::kernels
