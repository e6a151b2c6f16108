#include "modifiers/pruning.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/prune_by_score.h"
#include "modifiers/sparse_gpt.h"

namespace llmc {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kFeatures = 64;
constexpr int64_t kTokens = 96;

enum class Input { kCorrelated, kZero, kNoTokens };

// F32 [kTokens, kFeatures].
std::vector<float> Inputs(Input kind) {
  std::vector<float> x(kTokens * kFeatures, 0.0f);
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  for (int64_t t = 0; t < kTokens && kind == Input::kCorrelated; ++t) {
    const float shared = normal(random);
    for (int64_t c = 0; c < kFeatures; ++c) {
      x[t * kFeatures + c] = (1 + static_cast<float>(c % 7)) * (shared + 0.5f * normal(random));
    }
  }
  return x;
}

HostTensor DenseWeight(int64_t rows) {
  HostTensor weight(DType::kF32, {rows, kFeatures});
  std::mt19937 random(static_cast<uint32_t>(rows));
  std::normal_distribution<float> normal;
  for (int64_t i = 0; i < weight.num_elements(); ++i) weight.as<float>()[i] = normal(random);
  return weight;
}

std::vector<PlannedTransform> Transforms() {
  std::vector<PlannedTransform> transforms;
  for (const char* name : {"first", "second"}) {
    PlannedTransform transform;
    transform.modifier = 0;
    transform.layer = 0;
    transform.module = name;
    transform.sparsity = 0.5;
    transform.tensors = {std::string(name) + ".weight"};
    transform.needs["first"].hessian = true;
    transforms.push_back(transform);
  }
  return transforms;
}

struct Outcome {
  absl::Status status;
  std::vector<PrunedModule> pruned;
  std::map<std::string, HostTensor> weights;
};

// One chunk, on rank 0.
absl::Status Capture(Input kind, Collective& world, InputStatistics& input) {
  const std::vector<float> x = Inputs(kind);
  input.hessian = std::make_unique<HessianAccumulator>(kFeatures, 1);
  input.squares = std::make_unique<ExactSums>(kFeatures);
  if (world.rank() == 0 && kind != Input::kNoTokens) {
    LLMC_RETURN_IF_ERROR(
        input.hessian->Add({x.data(), DType::kF32, kTokens, kFeatures, kFeatures}, 1));
    std::vector<double> squares(kFeatures);
    for (int64_t i = 0; i < kTokens * kFeatures; ++i) {
      squares[i % kFeatures] += static_cast<double>(x[i]) * x[i];
    }
    input.squares->Add(squares);
  }
  LLMC_RETURN_IF_ERROR(input.hessian->ShareExponents(world));
  if (world.rank() == 0) LLMC_RETURN_IF_ERROR(input.hessian->EndChunk());
  LLMC_RETURN_IF_ERROR(input.squares->Reduce(world));
  LLMC_ASSIGN_OR_RETURN(input.hessian_sum, input.hessian->Reduce(world, input.owner));
  return absl::OkStatus();
}

Outcome ApplyOnRank(const LayerTransform& transform, Input kind, Collective& world,
                    float first_weight) {
  const std::vector<PlannedTransform> transforms = Transforms();
  Outcome outcome;
  Statistics statistics;
  outcome.status = Capture(kind, world, statistics["first"]);
  DenseTensors dense([&](const std::string& name) -> absl::StatusOr<HostTensor> {
    HostTensor weight = DenseWeight(name == "first.weight" ? 70 : 200);
    if (!std::isnan(first_weight)) return weight;
    weight.as<float>()[3] = first_weight;
    return weight;
  });
  LayerChange change;
  for (const PlannedTransform& one : transforms) change.transforms.push_back(&one);
  change.dense = &dense;
  change.statistics = &statistics;
  change.collective = &world;
  outcome.status.Update(transform.Apply(change));
  outcome.pruned = std::move(change.pruned);
  for (const PlannedTransform& one : transforms) {
    outcome.weights[one.module] = dense.Take(one.tensors[0]).value();
  }
  return outcome;
}

std::vector<Outcome> Apply(const LayerTransform& transform, Input kind, int world_size = 1,
                           float first_weight = 0) {
  auto world = MakeThreadCollectives(world_size);
  std::vector<Outcome> outcomes(world_size);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < world_size; ++rank) {
    threads.emplace_back(
        [&, rank] { outcomes[rank] = ApplyOnRank(transform, kind, *world[rank], first_weight); });
  }
  for (std::thread& thread : threads) thread.join();
  return outcomes;
}

SparseGptModifier SparseGpt() {
  SparseGptModifier fields;
  fields.sparsity = {0.5};
  fields.block_size = 32;
  return fields;
}

std::vector<float> Floats(const HostTensor& tensor) {
  return {tensor.as<float>(), tensor.as<float>() + tensor.num_elements()};
}

TEST(SparseGptTransform, Ranks_GiveEqualBytes) {
  const SparseGptTransform transform(SparseGpt());
  const std::vector<Outcome> one = Apply(transform, Input::kCorrelated);
  ASSERT_TRUE(one[0].status.ok()) << one[0].status;
  for (const int world_size : {2, 3, 5}) {
    for (const Outcome& outcome : Apply(transform, Input::kCorrelated, world_size)) {
      ASSERT_TRUE(outcome.status.ok()) << outcome.status;
      for (const auto& [name, weight] : one[0].weights) {
        EXPECT_EQ(Floats(outcome.weights.at(name)), Floats(weight));
      }
    }
  }
}

TEST(SparseGptTransform, Report_HasSparsityErrorAndTokens) {
  const Outcome outcome = std::move(Apply(SparseGptTransform(SparseGpt()), Input::kCorrelated)[0]);
  ASSERT_EQ(outcome.pruned.size(), 2u);
  for (const PrunedModule& pruned : outcome.pruned) {
    EXPECT_NEAR(pruned.sparsity, 0.5, 0.001);
    EXPECT_EQ(pruned.num_tokens, kTokens);
    EXPECT_EQ(pruned.dampening_frac, 0.01);
    EXPECT_GT(*pruned.output_error, 0);
    EXPECT_LT(*pruned.output_error, 0.5);
    EXPECT_EQ(pruned.fallback_reason, "");
  }
}

// The factor that `statistics` gives for these numbers.
SharedFactor FactorOf(InputStatistics& statistics, bool ordered, double dampening_frac) {
  SharedFactor factor;
  factor.statistics = &statistics;
  EXPECT_TRUE(FactorOwned({ComputeDevice::Host(), ordered, dampening_frac}, factor).ok());
  return factor;
}

TEST(SharedFactor, AKeptFactor_IsTakenByWhoAsksForTheSame) {
  auto world = MakeSelfCollective();
  InputStatistics statistics;
  ASSERT_TRUE(Capture(Input::kCorrelated, *world, statistics).ok());
  SharedFactor first = FactorOf(statistics, false, 0.01);
  const void* const upper = first.upper.const_data_ptr();
  const double lambda = first.lambda;
  KeepFactor(std::move(first));
  EXPECT_NE(FactorOf(statistics, true, 0.01).upper.const_data_ptr(), upper);
  EXPECT_NE(FactorOf(statistics, false, 0.02).upper.const_data_ptr(), upper);
  SharedFactor again = FactorOf(statistics, false, 0.01);
  EXPECT_EQ(again.upper.const_data_ptr(), upper);
  EXPECT_EQ(again.lambda, lambda);
  EXPECT_FALSE(statistics.kept_factor.has_value());
  KeepFactor(std::move(again));
  // Another Hessian now.
  ASSERT_TRUE(statistics.DivideBy(std::vector<float>(kFeatures, 2.0f)).ok());
  EXPECT_FALSE(statistics.kept_factor.has_value());
}

// Without a factor what is left is the magnitude, and no weight changes.
TEST(SparseGptTransform, InputWithoutValues_IsPrunedByMagnitudeAndSaysSo) {
  for (const Input kind : {Input::kZero, Input::kNoTokens}) {
    for (const Outcome& outcome : Apply(SparseGptTransform(SparseGpt()), kind, 2)) {
      ASSERT_TRUE(outcome.status.ok()) << outcome.status;
      EXPECT_THAT(outcome.pruned[0].fallback_reason, HasSubstr("pruned by magnitude"));
      EXPECT_FALSE(outcome.pruned[0].output_error.has_value());
      const HostTensor dense = DenseWeight(70);
      const HostTensor& pruned = outcome.weights.at("first");
      EXPECT_NEAR(FractionOfZeros(pruned), 0.5, 0.001);
      for (int64_t i = 0; i < pruned.num_elements(); ++i) {
        const float value = pruned.as<float>()[i];
        EXPECT_TRUE(value == 0 || value == dense.as<float>()[i]);
      }
    }
  }
}

TEST(ScorePruningTransform, Wanda_PrunesByWeightTimesNorm) {
  WandaPruningModifier fields;
  fields.sparsity = {0.5};
  const std::vector<float> x = Inputs(Input::kCorrelated);
  std::vector<double> squares(kFeatures);
  for (int64_t i = 0; i < kTokens * kFeatures; ++i) {
    squares[i % kFeatures] += static_cast<double>(x[i]) * x[i];
  }
  std::vector<float> norms;
  for (double square : squares) norms.push_back(static_cast<float>(std::sqrt(square)));
  HostTensor expected = DenseWeight(70);
  ASSERT_TRUE(
      kernels::PruneByScore({expected.as<float>(), 70, kFeatures, norms}, 0.5, MaskStructure())
          .ok());
  for (const Outcome& outcome :
       Apply(ScorePruningTransform(Modifier(fields)), Input::kCorrelated, 3)) {
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_EQ(Floats(outcome.weights.at("first")), Floats(expected));
    EXPECT_EQ(outcome.pruned[1].sparsity, 0.5);
  }
}

TEST(ScorePruningTransform, WandaWithoutValues_FallsBackToMagnitudeAndSaysSo) {
  WandaPruningModifier fields;
  fields.sparsity = {0.5};
  const Outcome outcome =
      std::move(Apply(ScorePruningTransform(Modifier(fields)), Input::kZero)[0]);
  EXPECT_THAT(outcome.pruned[0].fallback_reason, HasSubstr("magnitudes decide"));
}

TEST(ScorePruningTransform, WeightThatIsNotFinite_IsRefusedByName) {
  MagnitudePruningModifier fields;
  fields.sparsity = {0.5};
  for (const Outcome& outcome :
       Apply(ScorePruningTransform(Modifier(fields)), Input::kZero, 2, std::nanf(""))) {
    EXPECT_TRUE(absl::IsInvalidArgument(outcome.status));
    EXPECT_THAT(std::string(outcome.status.message()), HasSubstr("first.weight"));
  }
}

}  // namespace
}  // namespace llmc
