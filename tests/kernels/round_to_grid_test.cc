#include "kernels/round_to_grid.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

#include "gtest/gtest.h"
#include "llmc/float_formats.h"

namespace llmc::kernels {
namespace {

// Every 251st float32 pattern, and every pattern near a BF16 / F16 number.
template <typename Visit>
void ForManyFloats(const Visit& visit) {
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += 251) {
    visit(std::bit_cast<float>(static_cast<uint32_t>(bits)));
  }
  for (uint32_t high = 0; high < 65536; ++high) {
    for (const uint32_t low : {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      visit(std::bit_cast<float>(high << 16 | low));
    }
  }
}

// The member of `grid` nearest to `value`, found by looking at all of them; a
// tie goes to the even index.
template <size_t kSize>
int NearestIndex(const std::array<double, kSize>& grid, double value) {
  int best = 0;
  for (int i = 1; i < static_cast<int>(kSize); ++i) {
    const double distance = std::fabs(value - grid[i]);
    const double best_distance = std::fabs(value - grid[best]);
    if (distance < best_distance || (distance == best_distance && i % 2 == 0)) best = i;
  }
  return best;
}

TEST(Bf16Bits, AllNumbers_EqualTheTestedConversion) {
  ForManyFloats([](float x) {
    if (std::isnan(x)) return;
    ASSERT_EQ(Bf16Bits(x), FloatToBf16(x)) << x;
  });
}

TEST(F16Bits, AllNumbers_EqualTheTestedConversion) {
  ForManyFloats([](float x) { ASSERT_EQ(F16Bits(x), FloatToF16(x)) << x; });
}

TEST(FromF16Bits, AllPatterns_EqualTheTestedConversion) {
  for (uint32_t i = 0; i < 65536; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    ASSERT_EQ(std::bit_cast<uint32_t>(FromF16Bits(bits)), std::bit_cast<uint32_t>(F16ToFloat(bits)))
        << i;
  }
}

TEST(E4m3Bits, NumbersInRange_EqualTheTestedConversion) {
  ForManyFloats([](float x) {
    if (!(std::fabs(x) <= 448.0f)) return;
    ASSERT_EQ(E4m3Bits(x), FloatToE4m3(x)) << x;
    const float rounded = E4m3ToFloat(FloatToE4m3(x));
    ASSERT_EQ(std::bit_cast<uint32_t>(RoundToE4m3(x)), std::bit_cast<uint32_t>(rounded)) << x;
  });
}

TEST(E2m1Bits, NumbersInRange_AreTheNearestWithTiesToEven) {
  constexpr std::array<double, 8> kGrid = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  for (int i = -6000; i <= 6000; ++i) {
    for (const float nudge : {0.0f, 1e-4f, -1e-4f}) {
      const float x = Clamp(static_cast<float>(i) / 1000.0f + nudge, -6.0f, 6.0f);
      const int index = NearestIndex(kGrid, std::fabs(x));
      ASSERT_EQ(E2m1Bits(x), index + (x < 0 ? 8 : 0)) << x;
      ASSERT_EQ(std::fabs(RoundToE2m1(x)), kGrid[index]) << x;
      ASSERT_EQ(FromE2m1Bits(E2m1Bits(x)), RoundToE2m1(x)) << x;
    }
  }
}

TEST(E2m1Bits, Zeros_KeepTheSignOfRoundedNumbersOnly) {
  EXPECT_EQ(E2m1Bits(-0.0f), 0);
  EXPECT_EQ(E2m1Bits(-0.1f), 8);
  EXPECT_EQ(E2m1Bits(0.1f), 0);
}

TEST(RoundHalfEven, Halves_GoToEven) {
  EXPECT_EQ(RoundHalfEven(0.5f), 0.0f);
  EXPECT_EQ(RoundHalfEven(1.5f), 2.0f);
  EXPECT_EQ(RoundHalfEven(-2.5f), -2.0f);
  EXPECT_EQ(RoundToInt(-127.5f), -128);
  for (int i = -100000; i <= 100000; ++i) {
    const float x = static_cast<float>(i) / 128.0f;
    ASSERT_EQ(RoundHalfEven(x), std::nearbyint(x));
    ASSERT_EQ(RoundToInt(x), std::lrint(x));
  }
}

TEST(QuantizeDequantize, ProductIsRoundedInTheScalesDType) {
  // 0.1 is 0.10009765625 in BF16; five times that needs nine bits.
  const float bf16_scale = FromBf16Bits(Bf16Bits(0.1f));
  const float got = QuantizeDequantize<Element::kInt, DType::kBF16>(0.52f, bf16_scale, 0, -8, 7);
  const double exact = 5.0 * static_cast<double>(bf16_scale);
  EXPECT_EQ(got, FromBf16Bits(FloatToBf16(static_cast<float>(exact))));
  const float clamped = QuantizeDequantize<Element::kInt, DType::kF32>(-9.0f, 1.0f, 2, -8, 7);
  EXPECT_EQ(clamped, -9.0f);
}

}  // namespace
}  // namespace llmc::kernels
