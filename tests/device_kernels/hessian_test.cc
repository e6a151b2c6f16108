#include "kernels/hessian.h"

#include <cmath>
#include <limits>
#include <random>
#include <tuple>

#include "device_test.h"
#include "kernels/channel_statistics.h"
#include "kernels/fixed_point.h"
#include "linear_algebra_reference.h"
#include "llmc/float_formats.h"

namespace llmc::kernels {
namespace {

enum class Device { kCpu, kDevice };

struct GramCase {
  Device device;
  DType dtype;
  double tolerance;  // Of an entry, relative to sqrt(H_ii H_jj).
};

void PrintTo(const GramCase& c, std::ostream* out) {
  *out << (c.device == Device::kCpu ? "cpu " : "device ") << SafetensorsName(c.dtype);
}

// x in the dtype, and the values it then has.
struct Tokens {
  HostTensor stored;
  HostTensor values;  // F32
};

Tokens MakeTokens(int64_t tokens, int64_t features, DType dtype) {
  HostTensor x = CorrelatedTokens(tokens, features, 3);
  if (dtype == DType::kF32) return {CorrelatedTokens(tokens, features, 3), std::move(x)};
  HostTensor stored(dtype, {tokens, features});
  for (int64_t i = 0; i < tokens * features; ++i) {
    float& value = x.as<float>()[i];
    uint16_t& bits = stored.as<uint16_t>()[i];
    bits = dtype == DType::kBF16 ? FloatToBf16(value) : FloatToF16(value);
    value = dtype == DType::kBF16 ? Bf16ToFloat(bits) : F16ToFloat(bits);
  }
  return {std::move(stored), std::move(x)};
}

class AddGramTest : public DeviceTestWithParam<GramCase> {
 protected:
  std::vector<float> Gram(const TokenRows& rows, std::vector<float> gram) {
    if (GetParam().device == Device::kCpu) {
      EXPECT_TRUE(AddGram(rows, gram).ok());
      return gram;
    }
    TokenRows device = rows;
    const int64_t count = rows.tokens == 0 ? 0 : (rows.tokens - 1) * rows.stride + rows.features;
    device.data = Upload(static_cast<const std::byte*>(rows.data), count * ElementSize(rows.dtype));
    float* const sums = Upload(gram);
    const absl::Status status = AddGram(device, sums, queue());
    EXPECT_TRUE(status.ok()) << status;
    return Download(sums, std::ssize(gram));
  }
};

TEST_P(AddGramTest, Sums_MatchDoublePrecision) {
  const std::vector<std::pair<int64_t, int64_t>> shapes = {
      {1, 1}, {5, 3}, {40, 255}, {33, 256}, {64, 257}, {100, 520}, {1000, 48}, {130, 1030}};
  for (const auto& [tokens, features] : shapes) {
    const Tokens x = MakeTokens(tokens, features, GetParam().dtype);
    const TokenRows rows{x.stored.bytes().data(), GetParam().dtype, tokens, features, features};
    std::vector<float> gram(Triangle(features).num_elements(), 0.0f);
    gram = Gram(rows, Gram(rows, gram));  // Added twice.
    Doubles expected = ReferenceGram(x.values);
    for (double& value : expected) value *= 2;
    EXPECT_LE(LargestGramError(gram, expected, features), GetParam().tolerance)
        << tokens << " x " << features;
  }
}

TEST_P(AddGramTest, RowsWithAStride_AreReadWithIt) {
  constexpr int64_t kTokens = 20;
  constexpr int64_t kFeatures = 300;
  constexpr int64_t kStride = 312;
  const Tokens x = MakeTokens(kTokens, kStride, GetParam().dtype);
  const TokenRows rows{x.stored.bytes().data(), GetParam().dtype, kTokens, kFeatures, kStride};
  const std::vector<float> zero(Triangle(kFeatures).num_elements(), 0.0f);
  HostTensor narrow(DType::kF32, {kTokens, kFeatures});
  for (int64_t t = 0; t < kTokens; ++t) {
    std::copy_n(x.values.as<float>() + t * kStride, kFeatures, narrow.as<float>() + t * kFeatures);
  }
  EXPECT_LE(LargestGramError(Gram(rows, zero), ReferenceGram(narrow), kFeatures),
            GetParam().tolerance);
}

TEST_P(AddGramTest, NoTokens_AddNothing) {
  const std::vector<float> gram(Triangle(3).num_elements(), 2.5f);
  EXPECT_EQ(Gram({nullptr, GetParam().dtype, 0, 3, 3}, gram), gram);
}

TEST_P(AddGramTest, TheSameCall_GivesTheSameBits) {
  const Tokens x = MakeTokens(50, 600, GetParam().dtype);
  const TokenRows rows{x.stored.bytes().data(), GetParam().dtype, 50, 600, 600};
  const std::vector<float> zero(Triangle(600).num_elements(), 0.0f);
  EXPECT_TRUE(SameBits(Gram(rows, zero), Gram(rows, zero)));
}

INSTANTIATE_TEST_SUITE_P(Devices, AddGramTest,
                         testing::Values(GramCase{Device::kCpu, DType::kF32, 4e-6},
                                         GramCase{Device::kCpu, DType::kBF16, 4e-6},
                                         GramCase{Device::kDevice, DType::kF32, 4e-6},
                                         GramCase{Device::kDevice, DType::kBF16, 1e-5},
                                         GramCase{Device::kDevice, DType::kF16, 1e-5}));

class GramErrorsTest : public DeviceTest {};

TEST_F(GramErrorsTest, WrongRows_AreInvalid) {
  float* const gram = Allocate<float>(Triangle(4).num_elements());
  EXPECT_EQ(AddGram({gram, DType::kI8, 1, 4, 4}, gram, queue()).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(AddGram({gram, DType::kF32, 1, 4, 3}, gram, queue()).code(),
            absl::StatusCode::kInvalidArgument);
}

class FixedPointTest : public DeviceTestWithParam<int64_t> {};

TEST_P(FixedPointTest, DiagonalExponents_AreTheCpus) {
  const Triangle triangle(GetParam());
  std::vector<float> gram(triangle.num_elements(), std::numeric_limits<float>::quiet_NaN());
  std::mt19937 random(5);
  for (int64_t i = 0; i < triangle.n(); ++i) {
    gram[triangle.offset(i, i)] = std::ldexp(static_cast<float>(random() % 1000 + 1) / 1000,
                                             static_cast<int>(random() % 270) - 149);
  }
  const float special[] = {0.0f,      -0.0f,     -1.0f, INFINITY, -INFINITY,  NAN,
                           0x1p-149f, 0x1p-126f, 1.0f,  4.0f,     4.0000005f, 0x1.fffffep127f};
  for (int64_t i = 0; i < std::min<int64_t>(triangle.n(), std::size(special)); ++i) {
    gram[triangle.offset(i, i)] = special[i];
  }
  std::vector<int16_t> expected(triangle.n());
  DiagonalExponents(triangle, gram.data(), expected);
  int16_t* const exponents = Allocate<int16_t>(triangle.n());
  ASSERT_TRUE(DiagonalExponents(triangle, Upload(gram), exponents, queue()).ok());
  EXPECT_EQ(Download(exponents, triangle.n()), expected);
}

// Sums with entries of every size that the exponents allow, ties among them.
struct Sums {
  std::vector<float> gram;
  std::vector<int64_t> totals;
  std::vector<int16_t> exponents;
};

Sums MakeSums(const Triangle& triangle) {
  std::mt19937_64 random(9);
  Sums sums;
  for (int64_t i = 0; i < triangle.n(); ++i) {
    sums.exponents.push_back(static_cast<int16_t>(static_cast<int>(random() % 60) - 30));
  }
  sums.gram.assign(triangle.num_elements(), 0.0f);
  sums.totals.resize(triangle.num_elements());
  for (int64_t& total : sums.totals) total = static_cast<int64_t>(random()) / 4;
  for (int64_t i = 0; i < triangle.n(); ++i) {
    for (int64_t j = i; j < triangle.n(); ++j) {
      const int exponent = sums.exponents[i] + sums.exponents[j];
      const float fraction = static_cast<float>(static_cast<int>(random() % 4001) - 2000) / 2048;
      const int shift = random() % 3 == 0 ? 40 : static_cast<int>(random() % 8);
      sums.gram[triangle.offset(i, j)] = std::ldexp(fraction, exponent - shift);
    }
  }
  return sums;
}

TEST_P(FixedPointTest, AddToFixedPoint_HasTheCpusBits) {
  const Triangle triangle(GetParam());
  const Sums sums = MakeSums(triangle);
  Sums expected = sums;
  AddToFixedPoint(triangle, {40, expected.exponents}, expected.gram.data(), expected.totals.data());
  float* const gram = Upload(sums.gram);
  int64_t* const totals = Upload(sums.totals);
  ASSERT_TRUE(AddToFixedPoint(triangle, {40, Upload(sums.exponents)}, gram, totals, queue()).ok());
  EXPECT_TRUE(SameBits(Download(totals, triangle.num_elements()), expected.totals));
  EXPECT_TRUE(SameBits(Download(gram, triangle.num_elements()), expected.gram));
}

TEST_P(FixedPointTest, ExpandFixedPoint_HasTheCpusBits) {
  const Triangle triangle(GetParam());
  const Sums sums = MakeSums(triangle);
  const int64_t n = triangle.n();
  std::vector<float> expected(n * n);
  ExpandFixedPoint(triangle, {40, sums.exponents}, 2.0 / 3, sums.totals.data(), expected.data());
  float* const full = Allocate<float>(n * n);
  ASSERT_TRUE(ExpandFixedPoint(triangle, {40, Upload(sums.exponents)},
                               {2.0 / 3, Upload(sums.totals), full}, queue())
                  .ok());
  EXPECT_TRUE(SameBits(Download(full, n * n), expected));
}

INSTANTIATE_TEST_SUITE_P(Sizes, FixedPointTest, testing::Values(1, 15, 33, 256, 300, 600));

struct ChannelCase {
  DType dtype;
  int64_t tokens;
  int64_t features;
};

class ChannelStatisticsTest : public DeviceTestWithParam<ChannelCase> {};

TEST_P(ChannelStatisticsTest, AllThree_AgreeWithTheCpu) {
  const auto [dtype, tokens, features] = GetParam();
  const int64_t stride = features + 3;
  const Tokens x = MakeTokens(tokens, stride, dtype);
  TokenRows rows{x.stored.bytes().data(), dtype, tokens, features, stride};
  std::vector<float> min(features), max(features);
  std::vector<double> magnitudes(features), squares(features);
  ASSERT_TRUE(ChannelExtrema(rows, min, max).ok());
  ASSERT_TRUE(ChannelMagnitudes(rows, magnitudes).ok());
  ASSERT_TRUE(ChannelSquares(rows, squares).ok());
  rows.data = Upload(x.stored);
  const DeviceChannelStatistics out{Allocate<float>(features), Allocate<float>(features),
                                    Allocate<double>(features), Allocate<double>(features)};
  ASSERT_TRUE(ChannelStatistics(rows, out, queue()).ok());
  EXPECT_EQ(Download(out.min, features), min);
  EXPECT_EQ(Download(out.max, features), max);
  const std::vector<double> device_magnitudes = Download(out.magnitudes, features);
  const std::vector<double> device_squares = Download(out.squares, features);
  for (int64_t i = 0; i < features; ++i) {
    // The CPU adds magnitudes of 64 tokens in float32.
    EXPECT_NEAR(device_magnitudes[i], magnitudes[i], 1e-5 * magnitudes[i]);
    EXPECT_NEAR(device_squares[i], squares[i], 1e-13 * squares[i]);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, ChannelStatisticsTest,
                         testing::Values(ChannelCase{DType::kF32, 1, 1},
                                         ChannelCase{DType::kBF16, 257, 130},
                                         ChannelCase{DType::kF32, 700, 33},
                                         ChannelCase{DType::kBF16, 0, 5}));

TEST_F(GramErrorsTest, NotANumber_ShowsInTheExtrema) {
  const std::vector<float> x = {1, NAN, -INFINITY, 2, 5, 3};
  float* const min = Allocate<float>(3);
  float* const max = Allocate<float>(3);
  ASSERT_TRUE(
      ChannelStatistics({Upload(x), DType::kF32, 2, 3, 3}, {min, max, nullptr, nullptr}, queue())
          .ok());
  EXPECT_EQ(Download(min, 3)[0], 1);
  EXPECT_TRUE(std::isnan(Download(max, 3)[1]));
  EXPECT_EQ(Download(min, 3)[2], -INFINITY);
}

}  // namespace
}  // namespace llmc::kernels
