// Bit-exact conversions between float32 and the narrow floating-point formats.
// Every narrowing rounds to nearest, ties to even; subnormals are kept.
#ifndef LLMC_FLOAT_FORMATS_H_
#define LLMC_FLOAT_FORMATS_H_

#include <bit>
#include <cmath>
#include <cstdint>

namespace llmc {

inline float Bf16ToFloat(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

// NaN becomes the quiet NaN 0x7FC0, as torch writes it.
inline uint16_t FloatToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fc0;
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

float F16ToFloat(uint16_t bits);
uint16_t FloatToF16(float value);

// E4M3 without infinities ("fn"): largest 448 = 0x7E, NaN = 0x7F / 0xFF.
// Values whose magnitude rounds above 448 become NaN, as torch casts them.
float E4m3ToFloat(uint8_t bits);
uint8_t FloatToE4m3(float value);

}  // namespace llmc

#endif  // LLMC_FLOAT_FORMATS_H_
