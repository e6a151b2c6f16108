#include "modifiers/round_to_nearest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>

#include "plan/statistics.h"

namespace llmc {
namespace {

using ::testing::HasSubstr;

// A linear [6, 16] in F32, int8 by row, with static inputs when asked.
PlannedModule Linear(bool static_inputs, bool symmetric_inputs = true) {
  PlannedModule module;
  module.module.name = "model.proj";
  module.module.class_name = "Linear";
  module.module.input_group = "model.proj";
  module.source = {"model.proj.weight", DType::kF32, {6, 16}};
  module.method = Method::kRoundToNearest;
  QuantizationArgs weights;
  weights.strategy = Strategy::kChannel;
  module.scheme.emplace().weights = weights;
  module.scheme->format = Format::kIntQuantized;
  if (static_inputs) {
    module.scheme->input_activations = QuantizationArgs();
    module.scheme->input_activations->symmetric = symmetric_inputs;
  }
  return module;
}

HostTensor Weight() {
  HostTensor weight(DType::kF32, {6, 16});
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (int64_t i = 0; i < 96; ++i) weight.as<float>()[i] = normal(random);
  return weight;
}

Statistics Inputs(float min, float max) {
  Statistics statistics;
  statistics["model.proj"].extrema = std::make_unique<ExtremaStatistic>(1);
  const Extrema extrema{min, max};
  statistics["model.proj"].extrema->Add(0, {&extrema, 1});
  return statistics;
}

StatisticsNeed NeedOf(const PlannedModule& module) { return NeedsOfModule(module)["model.proj"]; }

TEST(RoundToNearest, Weight_StaysDense) {
  const PlannedModule module = Linear(false);
  const auto solved = RoundToNearest(module, Weight(), std::nullopt, {});
  ASSERT_TRUE(solved.ok()) << solved.status();
  EXPECT_EQ(std::memcmp(solved->weight.bytes().data(), Weight().bytes().data(), 96 * 4), 0);
  EXPECT_EQ(solved->planned, &module);
  EXPECT_EQ(solved->method, Method::kRoundToNearest);
  EXPECT_FALSE(solved->is_fallback);
  EXPECT_TRUE(solved->activation_parameters.empty());
}

TEST(RoundToNearest, OutputError_IsTheWeightsOwn) {
  const auto solved = RoundToNearest(Linear(false), Weight(), std::nullopt, {});
  ASSERT_TRUE(solved.ok()) << solved.status();
  const HostTensor weight = Weight();
  double error = 0;
  double energy = 0;
  for (int64_t i = 0; i < 96; ++i) {
    const double scale = solved->grid.scale.as<float>()[i / 16];
    const double w = weight.as<float>()[i];
    const double rounded = scale * std::max(-128.0, std::min(127.0, std::nearbyint(w / scale)));
    error += (w - rounded) * (w - rounded);
    energy += w * w;
  }
  EXPECT_NEAR(*solved->output_error, error / energy, 1e-4 * error / energy);
}

TEST(RoundToNearest, ZeroWeight_NoError) {
  HostTensor zero = Weight();
  std::memset(zero.bytes().data(), 0, zero.bytes().size());
  const auto solved = RoundToNearest(Linear(false), std::move(zero), std::nullopt, {});
  ASSERT_TRUE(solved.ok()) << solved.status();
  EXPECT_EQ(*solved->output_error, 0.0);
}

TEST(RoundToNearest, StaticSymmetricInputs_ScaleSpansTheExtrema) {
  const Statistics inputs = Inputs(-6.0f, 2.0f);
  const auto solved = RoundToNearest(Linear(true), Weight(), std::nullopt, inputs);
  ASSERT_TRUE(solved.ok()) << solved.status();
  ASSERT_EQ(solved->activation_parameters.size(), 1u);
  EXPECT_EQ(solved->activation_parameters[0].suffix, "input_scale");
  EXPECT_NEAR(*solved->activation_parameters[0].tensor.as<float>(), 12.0 / 255, 1e-7);
}

TEST(RoundToNearest, StaticAsymmetricInputs_ExtremaLandOnTheEndsOfTheRange) {
  const Statistics inputs = Inputs(-6.0f, 2.0f);
  const auto solved = RoundToNearest(Linear(true, false), Weight(), std::nullopt, inputs);
  ASSERT_TRUE(solved.ok()) << solved.status();
  ASSERT_EQ(solved->activation_parameters.size(), 2u);
  EXPECT_EQ(solved->activation_parameters[1].suffix, "input_zero_point");
  const double scale = *solved->activation_parameters[0].tensor.as<float>();
  const double zero_point = *solved->activation_parameters[1].tensor.as<int8_t>();
  EXPECT_NEAR(scale, 8.0 / 255, 1e-7);
  EXPECT_NEAR(-6.0 / scale + zero_point, -128, 0.5);
  EXPECT_NEAR(2.0 / scale + zero_point, 127, 0.5);
}

TEST(RoundToNearest, WeightNotFinite_InvalidArgumentNamingIt) {
  HostTensor weight = Weight();
  weight.as<float>()[20] = std::numeric_limits<float>::quiet_NaN();
  const auto solved = RoundToNearest(Linear(false), std::move(weight), std::nullopt, {});
  EXPECT_EQ(solved.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(solved.status().message()), HasSubstr("model.proj.weight"));
}

TEST(RoundToNearest, Needs_ExtremaForStaticInputsOnly) {
  EXPECT_FALSE(NeedOf(Linear(false)).extrema);
  EXPECT_TRUE(NeedOf(Linear(true)).extrema);
  EXPECT_FALSE(NeedOf(Linear(true)).hessian);
  PlannedModule dynamic = Linear(true);
  dynamic.scheme->input_activations->dynamic = Dynamic::kTrue;
  EXPECT_FALSE(NeedOf(dynamic).extrema);
}

TEST(RoundToNearest, Needs_SearchObserverAsksForTheSearchedRange) {
  PlannedModule module = Linear(true);
  module.scheme->input_activations->observer = "mse";
  EXPECT_FALSE(NeedOf(module).extrema);
  EXPECT_EQ(NeedOf(module).searched, module.scheme->input_activations);
}

}  // namespace
}  // namespace llmc
