#include "kernels/gptq_solve.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/cholesky.h"
#include "kernels/gptq_rows.h"
#include "kernels/round_to_grid.h"
#include "linear_algebra_reference.h"

namespace llmc::kernels {
namespace {

// A weight, its calibration and a grid by the extremes of groups.
struct Layer {
  int64_t rows = 0;
  int64_t columns = 0;
  HostTensor hessian;
  HostTensor weight;
  std::vector<int32_t> order;
  InverseFactor factor;
  std::vector<float> scale;
  std::vector<float> zero_point;
  SolveGrid grid;
};

struct LayerOptions {
  int64_t rows = 70;
  int64_t columns = 96;
  bool ordered = false;
  NumberType type = NumberType::kInt;
  int num_bits = 4;
  bool symmetric = true;
  int64_t group_size = 32;
  int64_t rows_per_scale = 1;
  DType scale_dtype = DType::kBF16;
};

QuantizationArgs Args(const SolveGrid& grid) {
  QuantizationArgs args;
  args.type = grid.type;
  args.num_bits = grid.num_bits;
  return args;
}

void MakeGrid(const LayerOptions& options, Layer& layer) {
  layer.grid = {.type = options.type, .num_bits = options.num_bits};
  layer.grid.rows_per_scale = options.rows_per_scale;
  layer.grid.group_size = options.group_size;
  layer.grid.num_groups = layer.columns / options.group_size;
  layer.grid.scale_dtype = options.scale_dtype;
  const QuantizedRange range = RangeOf(Args(layer.grid));
  const int64_t scale_rows = (layer.rows - 1) / options.rows_per_scale + 1;
  for (int64_t r = 0; r < scale_rows; ++r) {
    for (int64_t g = 0; g < layer.grid.num_groups; ++g) {
      const float spread = 0.7f + 0.01f * static_cast<float>((r * 7 + g * 3) % 30);
      const double step = (options.symmetric ? 2 * spread : spread + 1) / (range.max - range.min);
      layer.scale.push_back(RoundTo(options.scale_dtype, static_cast<float>(step)));
      layer.zero_point.push_back(options.symmetric ? 0.0f : static_cast<float>((r + g) % 5 - 2));
    }
  }
  layer.grid.scale = layer.scale.data();
  layer.grid.zero_point = options.symmetric ? nullptr : layer.zero_point.data();
}

Layer MakeLayer(const LayerOptions& options) {
  Layer layer;
  layer.rows = options.rows;
  layer.columns = options.columns;
  const HostTensor x = CorrelatedTokens(3 * options.columns, options.columns, 11);
  layer.hessian = ToFloatMatrix(ReferenceGram(x), options.columns);
  layer.weight = RandomFloats(options.rows, options.columns, 12);
  if (options.ordered) layer.order = OrderByDiagonal(layer.hessian);
  layer.factor = FactorInverseHessian(layer.hessian, layer.order).value();
  MakeGrid(options, layer);
  return layer;
}

GptqProblem ProblemOf(const Layer& layer, std::vector<float>& weight) {
  GptqProblem problem;
  problem.rows = layer.rows;
  problem.in_features = layer.columns;
  problem.weight = weight.data();
  problem.inverse_factor = layer.factor.upper.as<float>();
  problem.order = layer.order.empty() ? nullptr : layer.order.data();
  problem.grid = layer.grid;
  return problem;
}

std::vector<float> Dense(const Layer& layer) {
  return {layer.weight.as<float>(), layer.weight.as<float>() + layer.weight.num_elements()};
}

std::vector<float> Solved(const Layer& layer, int64_t block_size = 128) {
  std::vector<float> weight = Dense(layer);
  EXPECT_TRUE(GptqSolve(ProblemOf(layer, weight), {.block_size = block_size}).ok());
  return weight;
}

// The nearest value of the grid, by the formula of compressed-tensors.
float Round(const Layer& layer, int64_t row, int64_t column, float value) {
  const int64_t at =
      row / layer.grid.rows_per_scale * layer.grid.num_groups + column / layer.grid.group_size;
  const QuantizedRange range = RangeOf(Args(layer.grid));
  const float zero = layer.zero_point[at];
  const float code = RoundToGrid(ElementOf(Args(layer.grid)), value / layer.scale[at] + zero,
                                 static_cast<float>(range.min), static_cast<float>(range.max));
  return RoundTo(layer.grid.scale_dtype, (code - zero) * layer.scale[at]);
}

std::vector<float> RoundedToNearest(const Layer& layer) {
  std::vector<float> weight = Dense(layer);
  for (int64_t i = 0; i < std::ssize(weight); ++i) {
    weight[i] = Round(layer, i / layer.columns, i % layer.columns, weight[i]);
  }
  return weight;
}

// Algorithm 1 with block size 1 and everything but the grid in double.
std::vector<float> ReferenceSolve(const Layer& layer) {
  const int64_t n = layer.columns;
  std::vector<int32_t> order = layer.order;
  if (order.empty()) {
    order.resize(n);
    std::iota(order.begin(), order.end(), 0);
  }
  HostTensor permuted(DType::kF32, {n, n});
  for (int64_t i = 0; i < n * n; ++i) {
    permuted.as<float>()[i] = layer.hessian.as<float>()[order[i / n] * n + order[i % n]];
  }
  const Doubles u = ReferenceInverseFactor(permuted, layer.factor.lambda);
  std::vector<float> result = Dense(layer);
  for (int64_t r = 0; r < layer.rows; ++r) {
    Doubles w(n);
    for (int64_t j = 0; j < n; ++j) w[j] = result[r * n + order[j]];
    for (int64_t j = 0; j < n; ++j) {
      const float q = Round(layer, r, order[j], static_cast<float>(w[j]));
      const double e = (w[j] - q) / u[j * n + j];
      for (int64_t k = j; k < n; ++k) w[k] -= e * u[j * n + k];
      result[r * n + order[j]] = q;
    }
  }
  return result;
}

// tr(E H E^T) in double.
double ReferenceOutputError(const Layer& layer, const std::vector<float>& quantized) {
  const int64_t n = layer.columns;
  double sum = 0;
  for (int64_t r = 0; r < layer.rows; ++r) {
    Doubles e(n);
    for (int64_t j = 0; j < n; ++j) {
      e[j] = static_cast<double>(layer.weight.as<float>()[r * n + j]) - quantized[r * n + j];
    }
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) sum += e[i] * layer.hessian.as<float>()[i * n + j] * e[j];
    }
  }
  return sum;
}

double FractionEqual(const std::vector<float>& a, const std::vector<float>& b) {
  int64_t equal = 0;
  for (size_t i = 0; i < a.size(); ++i) equal += a[i] == b[i];
  return static_cast<double>(equal) / static_cast<double>(a.size());
}

class GptqGrids : public ::testing::TestWithParam<LayerOptions> {};

TEST_P(GptqGrids, Solve_MatchesAlgorithm1InDouble) {
  const Layer layer = MakeLayer(GetParam());
  const std::vector<float> solved = Solved(layer);
  EXPECT_GE(FractionEqual(solved, ReferenceSolve(layer)), 0.998);
}

TEST_P(GptqGrids, ReturnedLossAndChange_GiveTheOutputError) {
  const Layer layer = MakeLayer(GetParam());
  std::vector<float> weight = Dense(layer);
  std::vector<double> row_loss(layer.rows);
  std::vector<double> row_change(layer.rows);
  GptqProblem problem = ProblemOf(layer, weight);
  problem.row_loss = row_loss.data();
  problem.row_change = row_change.data();
  const auto result = GptqSolve(problem);
  ASSERT_TRUE(result.ok()) << result.status();
  const double expected = ReferenceOutputError(layer, weight);
  EXPECT_NEAR(2 * result->loss - layer.factor.lambda * result->change, expected, 1e-3 * expected);
  EXPECT_NEAR(OutputError(layer.weight.as<float>(), weight.data(), layer.rows, layer.columns,
                          layer.hessian.as<float>()),
              expected, 1e-4 * expected);
  EXPECT_EQ(std::accumulate(row_loss.begin(), row_loss.end(), 0.0), result->loss);
  EXPECT_EQ(std::accumulate(row_change.begin(), row_change.end(), 0.0), result->change);
}

TEST_P(GptqGrids, Solve_BeatsRoundToNearest) {
  const Layer layer = MakeLayer(GetParam());
  EXPECT_LT(ReferenceOutputError(layer, Solved(layer)),
            ReferenceOutputError(layer, RoundedToNearest(layer)));
}

TEST_P(GptqGrids, SolvedWeight_IsOnTheGrid) {
  Layer layer = MakeLayer(GetParam());
  const std::vector<float> solved = Solved(layer);
  std::memcpy(layer.weight.as<float>(), solved.data(), solved.size() * sizeof(float));
  EXPECT_EQ(RoundedToNearest(layer), solved);
}

INSTANTIATE_TEST_SUITE_P(
    All, GptqGrids,
    ::testing::Values(
        LayerOptions{}, LayerOptions{.ordered = true},
        LayerOptions{.rows = 130, .columns = 300, .ordered = true, .group_size = 20},
        LayerOptions{.num_bits = 8, .group_size = 96, .scale_dtype = DType::kF32},
        LayerOptions{.ordered = true, .symmetric = false, .scale_dtype = DType::kF16},
        LayerOptions{.num_bits = 2, .symmetric = false},
        LayerOptions{
            .type = NumberType::kFloat, .num_bits = 8, .group_size = 48, .rows_per_scale = 16},
        LayerOptions{.type = NumberType::kFloat,
                     .num_bits = 4,
                     .group_size = 16,
                     .scale_dtype = DType::kF32},
        LayerOptions{.rows = 5, .ordered = true, .group_size = 96, .rows_per_scale = 1000}));

TEST(GptqSolve, RowsInSlices_GiveEqualBits) {
  const Layer layer = MakeLayer(
      {.rows = 150, .columns = 200, .ordered = true, .group_size = 50, .rows_per_scale = 16});
  const std::vector<float> whole = Solved(layer);
  std::vector<float> weight = Dense(layer);
  for (const auto& [first, end] : {std::pair{0, 1}, std::pair{1, 38}, std::pair{38, 150}}) {
    GptqProblem slice = ProblemOf(layer, weight);
    slice.first_row = first;
    slice.rows = end - first;
    slice.weight = weight.data() + first * layer.columns;
    ASSERT_TRUE(GptqSolve(slice).ok());
  }
  EXPECT_EQ(weight, whole);
}

TEST(GptqSolve, ThreadsAndBlockSizes_GiveEqualBits) {
  const Layer layer = MakeLayer({.rows = 100, .columns = 200, .group_size = 40});
  const std::vector<float> expected = WithThreads(1, [&] { return Solved(layer); });
  for (const int threads : {2, 3, 8}) {
    EXPECT_EQ(expected, WithThreads(threads, [&] { return Solved(layer); }));
  }
  for (const int64_t block_size : {1, 7, 64, 200, 1024}) {
    EXPECT_EQ(expected, Solved(layer, block_size));
  }
}

TEST(GptqSolve, DeadColumn_IsRoundedToNearest) {
  Layer layer = MakeLayer({});
  for (int64_t j = 0; j < layer.columns; ++j) {
    layer.hessian.as<float>()[17 * layer.columns + j] = 0;
    layer.hessian.as<float>()[j * layer.columns + 17] = 0;
  }
  layer.factor = FactorInverseHessian(layer.hessian, {}).value();
  const std::vector<float> solved = Solved(layer);
  for (int64_t r = 0; r < layer.rows; ++r) {
    const int64_t i = r * layer.columns + 17;
    EXPECT_EQ(solved[i], Round(layer, r, 17, layer.weight.as<float>()[i]));
  }
}

// One unit of rows by the given machine code.
std::vector<float> SolveUnit(const Layer& layer, int64_t lanes, void (*solve)(const GptqRows&)) {
  const PackedFactor factor(layer.factor.upper.as<float>(), layer.columns, 48);
  std::vector<float> weight(layer.columns * lanes);
  std::vector<float> error(48 * lanes);
  std::vector<float> scale(layer.grid.num_groups * lanes);
  std::vector<float> zero_point(layer.grid.num_groups * lanes);
  std::vector<int32_t> group(layer.columns);
  std::vector<double> loss(lanes);
  for (int64_t l = 0; l < lanes; ++l) {
    for (int64_t c = 0; c < layer.columns; ++c) {
      weight[c * lanes + l] = layer.weight.as<float>()[l * layer.columns + c];
      group[c] = static_cast<int32_t>(c / layer.grid.group_size);
    }
    for (int64_t g = 0; g < layer.grid.num_groups; ++g) {
      scale[g * lanes + l] = layer.scale[l * layer.grid.num_groups + g];
      zero_point[g * lanes + l] = layer.zero_point[l * layer.grid.num_groups + g];
    }
  }
  GptqRows rows;
  rows.walk = {lanes, &factor, weight.data(), error.data(), loss.data()};
  rows.scale = scale.data();
  rows.zero_point = zero_point.data();
  rows.group = group.data();
  rows.element = ElementOf(Args(layer.grid));
  rows.q_min = static_cast<float>(RangeOf(Args(layer.grid)).min);
  rows.q_max = static_cast<float>(RangeOf(Args(layer.grid)).max);
  rows.scale_dtype = layer.grid.scale_dtype;
  solve(rows);
  weight.insert(weight.end(), loss.begin(), loss.end());
  return weight;
}

TEST(SolveGptqRows, EveryKindOfVector_GivesEqualBits) {
  for (const NumberType type : {NumberType::kInt, NumberType::kFloat}) {
    for (const int num_bits : {4, 8}) {
      for (const DType scale_dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
        const Layer layer = MakeLayer({.columns = 100,
                                       .type = type,
                                       .num_bits = num_bits,
                                       .symmetric = type == NumberType::kFloat,
                                       .group_size = 20,
                                       .scale_dtype = scale_dtype});
        for (const int64_t lanes : {16, 32, 64}) {
          const auto expected = SolveUnit(layer, lanes, SolveGptqRowsGeneric);
          if (HasColumnWalkAvx2()) {
            EXPECT_EQ(SolveUnit(layer, lanes, SolveGptqRowsAvx2), expected);
          }
          if (HasColumnWalkAvx512()) {
            EXPECT_EQ(SolveUnit(layer, lanes, SolveGptqRowsAvx512), expected);
          }
        }
      }
    }
  }
}

// Zeroes every third weight, as pruning would.
void PruneThirds(Layer& layer) {
  for (int64_t i = 0; i < layer.weight.num_elements(); i += 3) layer.weight.as<float>()[i] = 0;
}

std::vector<float> SolvedWithZerosKept(const Layer& layer) {
  std::vector<float> weight = Dense(layer);
  EXPECT_TRUE(GptqSolve(ProblemOf(layer, weight), {.keep_zeros = true}).ok());
  return weight;
}

TEST_P(GptqGrids, ZerosKept_MaskIsExactAndErrorBeatsZeroingAfterwards) {
  Layer layer = MakeLayer(GetParam());
  PruneThirds(layer);
  const std::vector<float> kept = SolvedWithZerosKept(layer);
  std::vector<float> afterwards = Solved(layer);
  for (int64_t i = 0; i < std::ssize(kept); ++i) {
    if (i % 3 != 0) continue;
    EXPECT_EQ(std::bit_cast<uint32_t>(kept[i]), 0u) << i;
    afterwards[i] = 0;
  }
  EXPECT_LT(ReferenceOutputError(layer, kept), ReferenceOutputError(layer, afterwards));
  std::memcpy(layer.weight.as<float>(), kept.data(), kept.size() * sizeof(float));
  // On the grid, so that codes keep the mask; the 2-bit case has zero points beyond its range.
  if (GetParam().num_bits > 2) {
    EXPECT_EQ(RoundedToNearest(layer), kept);
  }
}

TEST(GptqSolve, ZerosKeptWithoutZeros_ChangesNothing) {
  const Layer layer = MakeLayer({.ordered = true});
  EXPECT_EQ(SolvedWithZerosKept(layer), Solved(layer));
}

TEST(GptqSolve, BadProblems_AreRefused) {
  const Layer layer = MakeLayer({.ordered = true});
  std::vector<float> weight = Dense(layer);
  const auto code = [&](auto&& change) {
    GptqProblem problem = ProblemOf(layer, weight);
    change(problem);
    return GptqSolve(problem).status().code();
  };
  const auto invalid = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(code([](GptqProblem& p) { p.rows = 0; }), invalid);
  EXPECT_EQ(code([](GptqProblem& p) { p.weight = nullptr; }), invalid);
  EXPECT_EQ(code([](GptqProblem& p) { p.grid.num_bits = 9; }), invalid);
  EXPECT_EQ(code([](GptqProblem& p) { p.grid.num_groups = 2; }), invalid);
  EXPECT_EQ(code([](GptqProblem& p) { p.grid.scale_dtype = DType::kI8; }), invalid);
  std::vector<int32_t> order = layer.order;
  order[3] = order[4];
  EXPECT_EQ(code([&](GptqProblem& p) { p.order = order.data(); }), invalid);
  EXPECT_EQ(GptqSolve(ProblemOf(layer, weight), {.block_size = 0}).status().code(), invalid);
}

TEST(GptqSolve, UnusableScaleOrDiagonal_IsFailedPrecondition) {
  Layer layer = MakeLayer({});
  std::vector<float> weight = Dense(layer);
  layer.scale[5] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(absl::IsFailedPrecondition(GptqSolve(ProblemOf(layer, weight)).status()));
  layer.scale[5] = 0;
  EXPECT_TRUE(absl::IsFailedPrecondition(GptqSolve(ProblemOf(layer, weight)).status()));
  layer.scale[5] = 1;
  layer.factor.upper.as<float>()[0] = -1;
  EXPECT_TRUE(absl::IsFailedPrecondition(GptqSolve(ProblemOf(layer, weight)).status()));
}

}  // namespace
}  // namespace llmc::kernels
