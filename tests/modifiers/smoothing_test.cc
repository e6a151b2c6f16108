#include "modifiers/smoothing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "modifiers/awq_scales.h"
#include "modifiers/smooth_quant.h"
#include "plan/awq_race.h"

namespace llmc {
namespace {

using testing::ElementsAre;
using testing::FloatEq;

ModelSpec FourQueriesTwoKeys() {
  ModelSpec spec;
  spec.num_attention_heads = 4;
  spec.num_key_value_heads = 2;
  spec.head_dim = 2;
  return spec;
}

// arXiv:2211.10438, equation 4, with the reference's range and factor 2.
TEST(SmoothQuantFactor, FollowsThePapersFormula) {
  SmoothQuantModifier fields;
  fields.smoothing_strength = 0.75;
  EXPECT_FLOAT_EQ(SmoothQuantFactor(fields, 16.0f, 8.0f), 8.0f / 2.0f);
  fields.smoothing_strength = 0;
  EXPECT_FLOAT_EQ(SmoothQuantFactor(fields, 16.0f, 8.0f), 1.0f / 16.0f);
  fields.smoothing_strength = 1;
  EXPECT_FLOAT_EQ(SmoothQuantFactor(fields, 16.0f, 8.0f), 16.0f);
}

TEST(SmoothQuantFactor, DeadChannels_GetTheReferencesFactors) {
  const SmoothQuantModifier fields;
  EXPECT_FLOAT_EQ(SmoothQuantFactor(fields, 3.0f, 0.0f), 3.0f);
  EXPECT_FLOAT_EQ(SmoothQuantFactor(fields, 0.0f, 1.0f), 1e-5f);
}

TEST(SmoothQuantFactor, LogEqualization_LooksAtActivationsOnly) {
  SmoothQuantModifier fields;
  fields.algorithm = SmoothAlgorithm::kLogEqualization;
  EXPECT_FLOAT_EQ(SmoothQuantFactor(fields, 6.0f, 123.0f), 2.0f);
}

TEST(Smoothing, ValueMapping_TiesTheQueryHeadsOfAKey) {
  SmoothMapping mapping;
  mapping.kind = SmoothMapping::Kind::kValue;
  const std::vector<float> source = {1, 2, 3, 4};
  EXPECT_THAT(ConsumerFactors(mapping, FourQueriesTwoKeys(), source),
              ElementsAre(1, 2, 1, 2, 3, 4, 3, 4));
  const std::vector<float> consumers = {1, 8, 5, 2, 3, 4, 7, 1};
  EXPECT_THAT(LargestOfSource(mapping, FourQueriesTwoKeys(), consumers), ElementsAre(5, 8, 7, 4));
}

TEST(AwqGrid, HasTheReferencesPointsAndOrder) {
  AwqModifier fields;
  fields.n_grid = 4;
  const auto ratios = [&](DuoScaling duo) {
    fields.duo_scaling = duo;
    std::vector<double> values;
    for (const AwqGridPoint& point : AwqGrid(fields)) {
      values.push_back(point.duo ? 10 + point.ratio : point.ratio);
    }
    return values;
  };
  EXPECT_THAT(ratios(DuoScaling::kTrue), ElementsAre(0.0, 10.0, 10.5, 11.0));
  EXPECT_THAT(ratios(DuoScaling::kFalse), ElementsAre(0.0, 1.0 / 3, 2.0 / 3, 1.0));
  EXPECT_THAT(ratios(DuoScaling::kBoth), ElementsAre(0.0, 10.0, 1.0, 11.0));
}

TEST(AwqRace, EverySampleIsInOneHeat) {
  for (int64_t sample = 0; sample < 3 * kAwqSampleCycle; ++sample) {
    int64_t heats = 0;
    for (const AwqHeat& heat : kAwqRace) heats += heat.Takes(sample) ? 1 : 0;
    EXPECT_EQ(heats, 1) << sample;
    EXPECT_TRUE(kAwqWithoutRace[0].Takes(sample));
  }
}

TEST(AwqRace, Forwards_AreThoseOfTheHeats) {
  EXPECT_EQ(NumAwqForwards(20, kAwqRaceTokens), (1 * 20 + 1 * 5 + 6 * 2) / 8.0);
  EXPECT_EQ(NumAwqForwards(20, kAwqRaceTokens - 1), 20);
  EXPECT_EQ(NumAwqForwards(2, kAwqRaceTokens), 2);
}

TEST(AwqFactors, AreNormalisedAndFinite) {
  const std::vector<double> x = {4.0, 1.0, 0.25};
  const std::vector<double> w = {1.0, 1.0, 1.0};
  EXPECT_THAT(AwqFactors({0.5, false}, x, w), ElementsAre(FloatEq(2), FloatEq(1), FloatEq(0.5)));
  EXPECT_THAT(AwqFactors({0.0, false}, x, w), ElementsAre(1, 1, 1));
  const std::vector<float> dead = AwqFactors({1.0, false}, std::vector<double>{0, 0, 4}, w);
  for (const float factor : dead) EXPECT_TRUE(std::isfinite(factor) && factor > 0);
}

// Means of |w| over rows, each divided by the largest of its group.
TEST(AwqWeights, GroupsAreNormalisedByTheirLargest) {
  HostTensor weight(DType::kF32, {2, 4});
  const std::vector<float> values = {1, -2, 0.5f, 0.25f, 4, 4, -1, 2};
  std::copy(values.begin(), values.end(), weight.as<float>());
  QuantizationArgs args;
  args.num_bits = 4;
  args.strategy = Strategy::kGroup;
  args.group_size = 2;
  std::vector<double> sums(4);
  ASSERT_TRUE(AddNormalizedMagnitudes(weight, args, sums).ok());
  const std::vector<double> expected = {1.5, 2.0, 1.5, 1.5};
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(sums[i], expected[i], 1e-5) << i;
}

}  // namespace
}  // namespace llmc
