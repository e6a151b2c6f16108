#include "modifiers/gptq.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "llmc/float_formats.h"
#include "modifiers/round_to_nearest.h"
#include "plan/statistics.h"

namespace llmc {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kFeatures = 64;
constexpr int64_t kTokens = 96;
constexpr int64_t kChunks = 4;
constexpr int64_t kDeadColumn = 5;

enum class Input { kCorrelated, kZero, kNoTokens };

// F32 [kChunks * kTokens, kFeatures]; kDeadColumn is 0.
std::vector<float> Inputs(Input kind) {
  std::vector<float> x(kChunks * kTokens * kFeatures, 0.0f);
  if (kind == Input::kZero) return x;
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  for (int64_t t = 0; t < kChunks * kTokens; ++t) {
    const float shared = normal(random);
    for (int64_t c = 0; c < kFeatures; ++c) {
      const float size = 1 + static_cast<float>(c % 7);
      if (c != kDeadColumn) x[t * kFeatures + c] = size * (shared + 0.5f * normal(random));
    }
  }
  return x;
}

PlannedModule Linear(const std::string& name, int64_t rows, Method method, bool ordered) {
  PlannedModule module;
  module.module.name = name;
  module.module.class_name = "Linear";
  module.module.input_group = "first";
  module.module.layer = 0;
  module.source = {name + ".weight", DType::kBF16, {rows, kFeatures}};
  module.method = method;
  QuantizationArgs args;
  args.num_bits = 4;
  args.strategy = Strategy::kGroup;
  args.group_size = 32;
  args.symmetric = ordered;
  if (ordered) args.actorder = ActOrder::kStatic;
  module.scheme.emplace().weights = args;
  module.scheme->format = Format::kPackQuantized;
  return module;
}

// The layer: an even and an uneven number of row units, both column orders, and a
// module that is only rounded.
std::vector<PlannedModule> Modules() {
  return {Linear("first", 70, Method::kGptq, true), Linear("second", 200, Method::kGptq, true),
          Linear("third", 33, Method::kGptq, false),
          Linear("rounded", 20, Method::kRoundToNearest, false)};
}

HostTensor DenseWeight(const PlannedModule& module) {
  HostTensor weight(DType::kBF16, module.source.shape);
  std::mt19937 random(static_cast<uint32_t>(module.module.name.size()));
  std::normal_distribution<float> normal;
  for (int64_t i = 0; i < weight.num_elements(); ++i) {
    weight.as<uint16_t>()[i] = FloatToBf16(normal(random));
  }
  return weight;
}

struct Solved {
  absl::Status status;
  std::vector<SolvedModule> modules;
};

absl::Status Reduce(const std::vector<float>& x, Input kind, Collective& world,
                    InputStatistics& input) {
  HessianAccumulator& hessian = *input.hessian;
  for (int64_t round = 0; round * world.world_size() < kChunks; ++round) {
    const int64_t chunk = round * world.world_size() + world.rank();
    const bool owns_chunk = chunk < kChunks;
    if (owns_chunk && kind != Input::kNoTokens) {
      const float* rows = x.data() + chunk * kTokens * kFeatures;
      LLMC_RETURN_IF_ERROR(hessian.Add({rows, DType::kF32, kTokens, kFeatures, kFeatures}, 1));
    }
    if (round == 0) LLMC_RETURN_IF_ERROR(hessian.ShareExponents(world));
    if (owns_chunk) LLMC_RETURN_IF_ERROR(hessian.EndChunk());
  }
  LLMC_ASSIGN_OR_RETURN(input.hessian_sum, hessian.Reduce(world, input.owner));
  return input.hessian_sum.needs_rescale ? absl::InternalError("rescale") : absl::OkStatus();
}

Solved SolveOnRank(const std::vector<PlannedModule>& modules, Input kind, OnSingular on_singular,
                   Collective& world) {
  std::map<std::string, InputStatistics> statistics;
  InputStatistics& input = statistics["first"];
  input.hessian = std::make_unique<HessianAccumulator>(kFeatures, kChunks);
  input.owner = world.world_size() - 1;
  Solved solved;
  solved.status = Reduce(Inputs(kind), kind, world, input);
  if (!solved.status.ok()) return solved;
  LayerSolve layer;
  for (const PlannedModule& module : modules) {
    layer.modules.push_back(&module);
    layer.weights[module.module.name] = DenseWeight(module);
  }
  layer.statistics = &statistics;
  layer.collective = &world;
  layer.fused_absmax = [](const PlannedModule&) { return std::optional<float>(); };
  GptqModifier fields;
  fields.on_singular = on_singular;
  solved.status = GptqLayerModifier(fields).Solve(layer);
  solved.modules = std::move(layer.solved);
  return solved;
}

// What each rank of a world returns.
std::vector<Solved> Solve(const std::vector<PlannedModule>& modules, Input kind, int world_size,
                          OnSingular on_singular = OnSingular::kRoundToNearest) {
  auto world = MakeThreadCollectives(world_size);
  std::vector<Solved> solved(world_size);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < world_size; ++rank) {
    threads.emplace_back(
        [&, rank] { solved[rank] = SolveOnRank(modules, kind, on_singular, *world[rank]); });
  }
  for (std::thread& thread : threads) thread.join();
  return solved;
}

bool SameBytes(const HostTensor& a, const HostTensor& b) {
  return a.num_bytes() == b.num_bytes() &&
         std::memcmp(a.bytes().data(), b.bytes().data(), a.bytes().size()) == 0;
}

double At(const HostTensor& bf16, int64_t row, int64_t column) {
  return Bf16ToFloat(bf16.as<uint16_t>()[row * kFeatures + column]);
}

// sum over tokens and rows of (x (a - b)^T)^2 in double; b null: 0.
double OutputEnergy(const std::vector<float>& x, const HostTensor& a, const HostTensor* b) {
  double sum = 0;
  for (int64_t r = 0; r < a.dim(0); ++r) {
    for (size_t t = 0; t < x.size() / kFeatures; ++t) {
      double y = 0;
      for (int64_t c = 0; c < kFeatures; ++c) {
        y += x[t * kFeatures + c] * (At(a, r, c) - (b == nullptr ? 0 : At(*b, r, c)));
      }
      sum += y * y;
    }
  }
  return sum;
}

HostTensor Rounded(const PlannedModule& module, const HostTensor& weight) {
  auto grid = GridOf(module, weight.view(), std::nullopt);
  // The solver keeps the quotient by the scale in float32.
  kernels::CompressOptions options;
  options.quotient = QuotientRounding::kFloat32;
  return *kernels::FakeQuantWeight(weight.view(), *grid, *module.scheme->weights, options);
}

TEST(Gptq, AnyWorld_SameBytesOnEveryRank) {
  const std::vector<PlannedModule> modules = Modules();
  const std::vector<Solved> alone = Solve(modules, Input::kCorrelated, 1);
  ASSERT_TRUE(alone[0].status.ok()) << alone[0].status;
  for (int world_size : {2, 3}) {
    for (const Solved& solved : Solve(modules, Input::kCorrelated, world_size)) {
      ASSERT_TRUE(solved.status.ok()) << solved.status;
      ASSERT_EQ(solved.modules.size(), modules.size());
      for (size_t i = 0; i < modules.size(); ++i) {
        const SolvedModule& expected = alone[0].modules[i];
        EXPECT_EQ(solved.modules[i].planned, &modules[i]);
        EXPECT_TRUE(SameBytes(solved.modules[i].weight, expected.weight));
        EXPECT_TRUE(SameBytes(solved.modules[i].grid.scale, expected.grid.scale));
        EXPECT_TRUE(SameBytes(solved.modules[i].grid.zero_point, expected.grid.zero_point));
        EXPECT_NEAR(*solved.modules[i].output_error, *expected.output_error,
                    1e-12 * *expected.output_error);
      }
    }
  }
}

TEST(Gptq, Solved_OutputErrorIsWhatTheInputsShow) {
  const std::vector<PlannedModule> modules = Modules();
  const std::vector<Solved> solved = Solve(modules, Input::kCorrelated, 1);
  ASSERT_TRUE(solved[0].status.ok()) << solved[0].status;
  const std::vector<float> x = Inputs(Input::kCorrelated);
  for (size_t i = 0; i < 3; ++i) {
    const SolvedModule& module = solved[0].modules[i];
    const HostTensor dense = DenseWeight(modules[i]);
    const double expected =
        OutputEnergy(x, dense, &module.weight) / OutputEnergy(x, dense, nullptr);
    EXPECT_NEAR(*module.output_error, expected, 1e-3 * expected);
    EXPECT_EQ(module.method, Method::kGptq);
    EXPECT_EQ(module.num_tokens, kChunks * kTokens);
    EXPECT_FALSE(module.is_fallback);
  }
}

TEST(Gptq, Solved_OutputIsNearerThanRoundedToNearest) {
  const std::vector<PlannedModule> modules = Modules();
  const std::vector<Solved> solved = Solve(modules, Input::kCorrelated, 1);
  ASSERT_TRUE(solved[0].status.ok()) << solved[0].status;
  const std::vector<float> x = Inputs(Input::kCorrelated);
  for (size_t i = 0; i < 3; ++i) {
    const HostTensor dense = DenseWeight(modules[i]);
    const HostTensor rounded = Rounded(modules[i], dense);
    EXPECT_LT(OutputEnergy(x, dense, &solved[0].modules[i].weight),
              OutputEnergy(x, dense, &rounded));
  }
}

TEST(Gptq, Solved_ValuesLieOnTheGridOfTheDenseWeight) {
  const std::vector<PlannedModule> modules = Modules();
  const std::vector<Solved> solved = Solve(modules, Input::kCorrelated, 1);
  ASSERT_TRUE(solved[0].status.ok()) << solved[0].status;
  for (size_t i = 0; i < 3; ++i) {
    const SolvedModule& module = solved[0].modules[i];
    auto grid = GridOf(modules[i], DenseWeight(modules[i]).view(), std::nullopt);
    EXPECT_TRUE(SameBytes(module.grid.scale, grid->scale));
    auto again =
        kernels::FakeQuantWeight(module.weight.view(), module.grid, *modules[i].scheme->weights);
    ASSERT_TRUE(again.ok()) << again.status();
    for (int64_t k = 0; k < again->num_elements(); ++k) {
      ASSERT_EQ(At(*again, 0, k), At(module.weight, 0, k));  // -0 and 0 are one value.
    }
  }
}

TEST(Gptq, DeadColumn_IsRoundedToNearest) {
  const std::vector<PlannedModule> modules = Modules();
  const std::vector<Solved> solved = Solve(modules, Input::kCorrelated, 2);
  ASSERT_TRUE(solved[0].status.ok()) << solved[0].status;
  for (size_t i = 0; i < 3; ++i) {
    const HostTensor rounded = Rounded(modules[i], DenseWeight(modules[i]));
    for (int64_t r = 0; r < rounded.dim(0); ++r) {
      EXPECT_EQ(At(solved[0].modules[i].weight, r, kDeadColumn), At(rounded, r, kDeadColumn));
    }
  }
}

TEST(Gptq, NoFactor_FallsBackToRoundToNearestOnEveryRank) {
  const std::vector<PlannedModule> modules = Modules();
  for (Input kind : {Input::kZero, Input::kNoTokens}) {
    for (int world_size : {1, 2}) {
      for (const Solved& solved : Solve(modules, kind, world_size)) {
        ASSERT_TRUE(solved.status.ok()) << solved.status;
        for (size_t i = 0; i < 3; ++i) {
          EXPECT_TRUE(solved.modules[i].is_fallback);
          EXPECT_FALSE(solved.modules[i].reason.empty());
          EXPECT_EQ(solved.modules[i].method, Method::kRoundToNearest);
          EXPECT_TRUE(SameBytes(solved.modules[i].weight, DenseWeight(modules[i])));
        }
        EXPECT_FALSE(solved.modules[3].is_fallback);
      }
    }
  }
}

TEST(Gptq, NoFactorAndOnSingularFail_EveryRankNamesTheModule) {
  const std::vector<PlannedModule> modules = Modules();
  for (Input kind : {Input::kZero, Input::kNoTokens}) {
    for (const Solved& solved : Solve(modules, kind, 2, OnSingular::kFail)) {
      EXPECT_EQ(solved.status.code(), absl::StatusCode::kFailedPrecondition);
      EXPECT_THAT(std::string(solved.status.message()), HasSubstr("on_singular"));
    }
  }
}

TEST(Gptq, Needs_HessianForSolvedModulesOnly) {
  EXPECT_TRUE(NeedsOfModule(Modules()[3]).empty());
  const Needs needs = NeedsOfModule(Modules()[0]);
  ASSERT_EQ(needs.size(), 1u);
  EXPECT_TRUE(needs.begin()->second.hessian);
  EXPECT_FALSE(needs.begin()->second.extrema);
}

}  // namespace
}  // namespace llmc
