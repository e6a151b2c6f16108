#include "calibration/input_statistics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "kernels/channel_statistics.h"

namespace llmc {
namespace {

constexpr int64_t kTokens = 40;
constexpr int64_t kChannels = 6;
constexpr int64_t kSamples = 3;

std::vector<float> Rows(uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> rows(kTokens * kChannels);
  for (float& x : rows) x = normal(random);
  return rows;
}

// Every statistic of samples whose channels are divided by `factors`.
InputStatistics Captured(const std::vector<float>& factors) {
  auto world = MakeSelfCollective();
  InputStatistics input;
  input.hessian = std::make_unique<HessianAccumulator>(kChannels, 1);
  input.extrema = std::make_unique<ExtremaStatistic>(kSamples);
  input.channels = std::make_unique<ChannelExtremaStatistic>(kChannels, kSamples, true);
  input.magnitudes = std::make_unique<ExactSums>(kChannels);
  for (int64_t sample = 0; sample < kSamples; ++sample) {
    std::vector<float> x = Rows(static_cast<uint32_t>(sample));
    for (size_t i = 0; i < x.size(); ++i) x[i] /= factors[i % kChannels];
    const kernels::TokenRows rows{x.data(), DType::kF32, kTokens, kChannels, kChannels};
    EXPECT_TRUE(input.hessian->Add(rows, 1).ok());
    const auto [low, high] = std::minmax_element(x.begin(), x.end());
    const Extrema extrema{*low, *high};
    input.extrema->Add(sample, {&extrema, 1});
    std::vector<float> min(kChannels), max(kChannels);
    EXPECT_TRUE(kernels::ChannelExtrema(rows, min, max).ok());
    input.channels->Add(sample, min, max);
    std::vector<double> sums(kChannels);
    EXPECT_TRUE(kernels::ChannelMagnitudes(rows, sums).ok());
    input.magnitudes->Add(sums);
    input.tokens += kTokens;
  }
  EXPECT_TRUE(input.hessian->ShareExponents(*world).ok());
  EXPECT_TRUE(input.hessian->EndChunk().ok());
  EXPECT_TRUE(input.hessian->Reduce(*world, 0).ok());
  return input;
}

const std::vector<float> kOnes(kChannels, 1.0f);
const std::vector<float> kFactors = {0.5f, 3.0f, 1.0f, 10.0f, 0.01f, 1.7f};

void ExpectSameHessian(InputStatistics& a, InputStatistics& b) {
  for (int64_t i = 0; i < kChannels * kChannels; ++i) {
    const float expected = static_cast<const float*>(b.Hessian()->const_data_ptr())[i];
    EXPECT_NEAR(static_cast<const float*>(a.Hessian()->const_data_ptr())[i], expected, 1e-5 * std::fabs(expected) + 1e-4) << i;
  }
}

// The claim of the header: dividing afterwards is capturing the divided input.
TEST(InputStatistics, DivideBy_IsTheCaptureOfTheDividedInput) {
  InputStatistics divided = Captured(kOnes);
  ASSERT_TRUE(divided.DivideBy(kFactors).ok());
  InputStatistics expected = Captured(kFactors);
  ExpectSameHessian(divided, expected);
  for (int64_t c = 0; c < kChannels; ++c) {
    EXPECT_FLOAT_EQ(divided.channels->Min()[c], expected.channels->Min()[c]);
    EXPECT_FLOAT_EQ(divided.channels->Max()[c], expected.channels->Max()[c]);
    EXPECT_NEAR(divided.MeanMagnitudes()[c], expected.MeanMagnitudes()[c],
                1e-6 * expected.MeanMagnitudes()[c]);
  }
  EXPECT_FLOAT_EQ(divided.extrema->Static()[0].min, expected.extrema->Static()[0].min);
  EXPECT_FLOAT_EQ(divided.extrema->MovingAverage(0.1f)[0].max,
                  expected.extrema->MovingAverage(0.1f)[0].max);
}

TEST(InputStatistics, DivideByTwice_AlsoAfterTheHessianIsFinished) {
  InputStatistics divided = Captured(kOnes);
  ASSERT_TRUE(divided.DivideBy(std::vector<float>(kChannels, 4.0f)).ok());
  ASSERT_TRUE(divided.Hessian().ok());
  ASSERT_TRUE(divided.DivideBy(std::vector<float>(kChannels, 0.5f)).ok());
  InputStatistics expected = Captured(std::vector<float>(kChannels, 2.0f));
  ExpectSameHessian(divided, expected);
}

TEST(ChannelStatistics, Bf16AndF32_AgreeWithTheDefinition) {
  const std::vector<float> x = {1.0f, -2.0f, 0.5f, 3.0f, -4.0f, -0.25f};
  std::vector<uint16_t> narrow;
  for (const float v : x) {
    uint32_t bits = 0;
    std::memcpy(&bits, &v, sizeof(bits));
    narrow.push_back(static_cast<uint16_t>(bits >> 16));
  }
  for (const kernels::TokenRows& rows :
       {kernels::TokenRows{x.data(), DType::kF32, 3, 2, 2},
        kernels::TokenRows{narrow.data(), DType::kBF16, 3, 2, 2}}) {
    std::vector<float> min(2), max(2);
    std::vector<double> sums(2);
    ASSERT_TRUE(kernels::ChannelExtrema(rows, min, max).ok());
    ASSERT_TRUE(kernels::ChannelMagnitudes(rows, sums).ok());
    EXPECT_EQ(min, (std::vector<float>{-4.0f, -2.0f}));
    EXPECT_EQ(max, (std::vector<float>{1.0f, 3.0f}));
    EXPECT_EQ(sums, (std::vector<double>{5.5, 5.25}));
  }
  std::vector<float> bad = x, min(2), max(2);
  bad[2] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(kernels::ChannelExtrema({bad.data(), DType::kF32, 3, 2, 2}, min, max).code(),
            absl::StatusCode::kInvalidArgument);
  std::vector<float> wrong(3);
  EXPECT_EQ(kernels::ChannelExtrema({x.data(), DType::kF32, 3, 2, 2}, wrong, wrong).code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace llmc
