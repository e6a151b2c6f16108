#include "llmc/float_formats.h"

namespace llmc {
namespace {

// Rounds the magnitude of a float32 to a format with `kMantissa` mantissa bits
// and exponent bias `kBias`, subnormals included; the result may carry into the
// exponent, which is the right neighbour.
template <int kMantissa, int kBias>
uint32_t RoundMagnitude(uint32_t magnitude) {
  constexpr int kShift = 23 - kMantissa;
  const int exponent = static_cast<int>(magnitude >> 23) - 127;
  if (exponent >= 1 - kBias) {
    const uint32_t rounded = magnitude + ((1u << (kShift - 1)) - 1u) + ((magnitude >> kShift) & 1u);
    return (rounded >> kShift) - (static_cast<uint32_t>(127 - kBias) << kMantissa);
  }
  // Adding a power of two whose last bit is the subnormal step lets the FPU
  // round.
  const float magic = std::ldexp(1.0f, 1 - kBias - kMantissa + 23);
  return std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + magic) -
         std::bit_cast<uint32_t>(magic);
}

template <int kMantissa, int kBias>
float Widen(uint32_t magnitude) {
  const uint32_t exponent = magnitude >> kMantissa;
  const uint32_t fraction = magnitude & ((1u << kMantissa) - 1u);
  if (exponent == 0) return std::ldexp(static_cast<float>(fraction), 1 - kBias - kMantissa);
  return std::bit_cast<float>((exponent + 127 - kBias) << 23 | fraction << (23 - kMantissa));
}

}  // namespace

float F16ToFloat(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t magnitude = bits & 0x7fffu;
  if (magnitude >= 0x7c00u)
    return std::bit_cast<float>(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(Widen<10, 15>(magnitude)));
}

uint16_t FloatToF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return sign | 0x7e00u;
  if (magnitude >= 0x477ff000u) return sign | 0x7c00u;  // Rounds to 2^16 or above.
  return sign | static_cast<uint16_t>(RoundMagnitude<10, 15>(magnitude));
}

float E4m3ToFloat(uint8_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x80u) << 24;
  const uint32_t magnitude = bits & 0x7fu;
  if (magnitude == 0x7fu) return std::bit_cast<float>(sign | 0x7fc00000u);
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(Widen<3, 7>(magnitude)));
}

uint8_t FloatToE4m3(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint8_t sign = static_cast<uint8_t>(bits >> 24 & 0x80u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude >= 0x43f00000u) return sign | 0x7fu;  // 480 and above, NaN.
  return sign | static_cast<uint8_t>(RoundMagnitude<3, 7>(magnitude));
}

}  // namespace llmc
