#include "kernels/fixed_point.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "linear_algebra_reference.h"

namespace llmc::kernels {
namespace {

TEST(HalfExponent, PowersOfTwo_AreTheSmallestBound) {
  for (int e = -62; e < 63; ++e) {
    EXPECT_EQ(HalfExponent(std::ldexp(0.999f, 2 * e)), e);
    EXPECT_EQ(HalfExponent(std::ldexp(1.0f, 2 * e)), e + 1);
  }
}

TEST(HalfExponent, NoNumber_IsMarked) {
  EXPECT_EQ(HalfExponent(0), kZeroExponent);
  EXPECT_EQ(HalfExponent(-1), kNotFiniteExponent);
  EXPECT_EQ(HalfExponent(std::numeric_limits<float>::infinity()), kNotFiniteExponent);
  EXPECT_EQ(HalfExponent(std::numeric_limits<float>::quiet_NaN()), kNotFiniteExponent);
}

// The values of every stored element, those below the diagonal of diagonal tiles too.
std::vector<float> Values(int64_t count, uint64_t seed) {
  const HostTensor random = RandomFloats(1, count, seed);
  return {random.as<float>(), random.as<float>() + count};
}

TEST(AddToFixedPoint, EveryElement_IsRoundedHalfToEven) {
  const Triangle triangle(300);
  std::vector<int16_t> exponents(300);
  for (int64_t i = 0; i < 300; ++i) exponents[i] = static_cast<int16_t>(i % 7 - 3);
  std::vector<float> gram = Values(triangle.num_elements(), 1);
  gram[0] = 0.5f * std::ldexp(1.0f, 2 * exponents[0] - 20);
  gram[1] = 1.5f * std::ldexp(1.0f, exponents[0] + exponents[1] - 20);
  const std::vector<float> before = gram;
  std::vector<int64_t> totals(triangle.num_elements(), 1000);
  AddToFixedPoint(triangle, {20, exponents}, gram.data(), totals.data());
  EXPECT_EQ(totals[0], 1000);
  EXPECT_EQ(totals[1], 1002);
  for (int64_t i = 0; i < 300; ++i) {
    for (int64_t j = i; j < 300; ++j) {
      const int64_t k = triangle.offset(i, j);
      const double scaled = std::ldexp(before[k], 20 - exponents[i] - exponents[j]);
      ASSERT_EQ(totals[k], 1000 + std::llrint(scaled)) << i << " " << j;
    }
  }
  EXPECT_EQ(gram, std::vector<float>(gram.size(), 0.0f));
}

TEST(AddToFixedPoint, ManyPartsInAnyOrder_GiveEqualTotals) {
  const Triangle triangle(50);
  const std::vector<int16_t> exponents(50, 1);
  std::vector<int64_t> forward(triangle.num_elements(), 0);
  std::vector<int64_t> backward = forward;
  for (int part = 0; part < 9; ++part) {
    std::vector<float> gram = Values(triangle.num_elements(), part);
    AddToFixedPoint(triangle, {40, exponents}, gram.data(), forward.data());
    gram = Values(triangle.num_elements(), 8 - part);
    AddToFixedPoint(triangle, {40, exponents}, gram.data(), backward.data());
  }
  EXPECT_EQ(forward, backward);
}

TEST(AddToFixedPoint, HugeValues_Saturate) {
  const Triangle triangle(16);
  const std::vector<int16_t> exponents(16, 0);
  std::vector<float> gram(triangle.num_elements(), 3e38f);
  std::vector<int64_t> totals(gram.size(), 0);
  AddToFixedPoint(triangle, {40, exponents}, gram.data(), totals.data());
  EXPECT_EQ(totals, std::vector<int64_t>(gram.size(), int64_t{1} << 62));
}

TEST(ExpandFixedPoint, TotalsOfOnePart_GiveItBackSymmetric) {
  const int64_t n = 270;
  const Triangle triangle(n);
  std::vector<int16_t> exponents(n);
  for (int64_t i = 0; i < n; ++i) exponents[i] = static_cast<int16_t>(i % 5 - 60);
  std::vector<float> gram = Values(triangle.num_elements(), 2);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = i; j < n; ++j) {
      gram[triangle.offset(i, j)] *= std::ldexp(1.0f, exponents[i] + exponents[j]);
    }
  }
  const std::vector<float> before = gram;
  std::vector<int64_t> totals(triangle.num_elements(), 0);
  AddToFixedPoint(triangle, {44, exponents}, gram.data(), totals.data());
  std::vector<float> full(n * n);
  ExpandFixedPoint(triangle, {44, exponents}, 2.0, totals.data(), full.data());
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = i; j < n; ++j) {
      const float expected = 2 * before[triangle.offset(i, j)];
      const double unit = std::ldexp(1.0, exponents[i] + exponents[j] - 43);
      ASSERT_NEAR(full[i * n + j], expected, unit + 1e-7 * std::abs(expected)) << i << " " << j;
      ASSERT_EQ(full[i * n + j], full[j * n + i]);
    }
  }
}

}  // namespace
}  // namespace llmc::kernels
