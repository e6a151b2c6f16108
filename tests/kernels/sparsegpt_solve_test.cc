#include "kernels/sparsegpt_solve.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <barrier>
#include <cmath>
#include <map>
#include <mutex>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/cholesky.h"
#include "kernels/prune_rows.h"
#include "linear_algebra_reference.h"

namespace llmc::kernels {
namespace {

struct Layer {
  int64_t rows = 0;
  int64_t columns = 0;
  HostTensor hessian;
  HostTensor weight;
  InverseFactor factor;
};

Layer MakeLayer(int64_t rows, int64_t columns, uint64_t seed = 21) {
  Layer layer;
  layer.rows = rows;
  layer.columns = columns;
  const HostTensor x = CorrelatedTokens(3 * columns, columns, seed);
  layer.hessian = ToFloatMatrix(ReferenceGram(x), columns);
  layer.weight = RandomFloats(rows, columns, seed + 1);
  layer.factor = FactorInverseHessian(layer.hessian, {}).value();
  return layer;
}

std::vector<float> Dense(const Layer& layer) {
  return {layer.weight.as<float>(), layer.weight.as<float>() + layer.weight.num_elements()};
}

SparseGptProblem ProblemOf(const Layer& layer, std::vector<float>& weight) {
  SparseGptProblem problem;
  problem.rows = layer.rows;
  problem.total_rows = layer.rows;
  problem.in_features = layer.columns;
  problem.weight = weight.data();
  problem.inverse_factor = layer.factor.upper.as<float>();
  return problem;
}

std::vector<float> Solved(const Layer& layer, const SparseGptOptions& options) {
  std::vector<float> weight = Dense(layer);
  const auto result = SparseGptSolve(ProblemOf(layer, weight), options);
  EXPECT_TRUE(result.ok()) << result.status();
  return weight;
}

// Which of `scores` are pruned: by the sorted score at the fraction's index, or the n
// lowest of every m of one row.
std::vector<bool> ReferenceMask(const std::vector<double>& scores, double sparsity) {
  std::vector<double> sorted = scores;
  std::sort(sorted.begin(), sorted.end());
  const double threshold =
      sorted[static_cast<size_t>(static_cast<double>(sorted.size()) * sparsity)];
  std::vector<bool> mask;
  for (double score : scores) mask.push_back(score <= threshold);
  return mask;
}

std::vector<bool> LowestOf(const std::vector<double>& scores, int64_t count) {
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return scores[a] < scores[b]; });
  std::vector<bool> mask(scores.size());
  for (int64_t i = 0; i < count; ++i) mask[order[i]] = true;
  return mask;
}

// Algorithm 1 of the paper in double, one column at a time.
class Reference {
 public:
  Reference(const Layer& layer, const SparseGptOptions& options)
      : layer_(layer),
        options_(options),
        u_(ReferenceInverseFactor(layer.hessian, layer.factor.lambda)),
        w_(layer.rows * layer.columns),
        pruned_(w_.size()),
        kept_zero_(w_.size()) {
    for (size_t i = 0; i < w_.size(); ++i) w_[i] = layer.weight.as<float>()[i];
    for (size_t i = 0; i < w_.size(); ++i) {
      kept_zero_[i] = options.preserve_sparsity_mask && w_[i] == 0;
    }
  }

  Doubles Solve() {
    for (int64_t j = 0; j < layer_.columns; ++j) {
      if (!options_.structure.is_grouped() && j % options_.block_size == 0) ChooseInBlock(j);
      if (options_.structure.is_grouped() && j % options_.structure.group_size == 0) {
        for (int64_t r = 0; r < layer_.rows; ++r) ChooseInGroup(r, j);
      }
      for (int64_t r = 0; r < layer_.rows; ++r) Fix(r, j);
    }
    return w_;
  }

 private:
  double Score(int64_t r, int64_t j) const {
    const int64_t i = r * layer_.columns + j;
    const double d = u_[j * layer_.columns + j];
    return kept_zero_[i] ? 0.0 : w_[i] * w_[i] / (d * d);
  }

  void ChooseInBlock(int64_t first) {
    const int64_t end = std::min(first + options_.block_size, layer_.columns);
    std::vector<double> scores;
    int64_t num_zeros = 0;
    for (int64_t r = 0; r < layer_.rows; ++r) {
      for (int64_t j = first; j < end; ++j) {
        scores.push_back(Score(r, j));
        num_zeros += kept_zero_[r * layer_.columns + j];
      }
    }
    const bool keeps =
        options_.preserve_sparsity_mask &&
        static_cast<int64_t>(static_cast<double>(scores.size()) * options_.sparsity) <= num_zeros;
    const std::vector<bool> mask = ReferenceMask(scores, options_.sparsity);
    for (int64_t r = 0, k = 0; r < layer_.rows; ++r) {
      for (int64_t j = first; j < end; ++j, ++k) {
        const int64_t i = r * layer_.columns + j;
        pruned_[i] = keeps ? kept_zero_[i] : mask[k];
      }
    }
  }

  void ChooseInGroup(int64_t r, int64_t first) {
    std::vector<double> scores;
    for (int64_t j = 0; j < options_.structure.group_size; ++j)
      scores.push_back(Score(r, first + j));
    const std::vector<bool> mask = LowestOf(scores, options_.structure.prune_count);
    for (int64_t j = 0; j < std::ssize(mask); ++j) {
      const int64_t i = r * layer_.columns + first + j;
      pruned_[i] = mask[j] || kept_zero_[i];
    }
  }

  void Fix(int64_t r, int64_t j) {
    double* const row = w_.data() + r * layer_.columns;
    const double q = pruned_[r * layer_.columns + j] ? 0 : row[j];
    const double e = (row[j] - q) / u_[j * layer_.columns + j];
    for (int64_t k = j; k < layer_.columns; ++k) row[k] -= e * u_[j * layer_.columns + k];
    row[j] = q;
  }

  const Layer& layer_;
  const SparseGptOptions& options_;
  const Doubles u_;
  Doubles w_;
  std::vector<bool> pruned_;
  std::vector<bool> kept_zero_;
};

double FractionClose(const std::vector<float>& got, const Doubles& want) {
  int64_t close = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    close += (got[i] == 0) == (want[i] == 0) && std::fabs(got[i] - want[i]) < 2e-3;
  }
  return static_cast<double>(close) / static_cast<double>(got.size());
}

int64_t NumZeros(const std::vector<float>& weight) {
  return std::count(weight.begin(), weight.end(), 0.0f);
}

// tr(E H E^T) in double.
double OutputErrorOf(const Layer& layer, const std::vector<float>& pruned) {
  const int64_t n = layer.columns;
  double sum = 0;
  for (int64_t r = 0; r < layer.rows; ++r) {
    Doubles e(n);
    for (int64_t j = 0; j < n; ++j) {
      e[j] = static_cast<double>(layer.weight.as<float>()[r * n + j]) - pruned[r * n + j];
    }
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) sum += e[i] * layer.hessian.as<float>()[i * n + j] * e[j];
    }
  }
  return sum;
}

class SparseGptCases : public ::testing::TestWithParam<SparseGptOptions> {};

TEST_P(SparseGptCases, Solve_MatchesAlgorithm1InDouble) {
  Layer layer = MakeLayer(70, 192);
  if (GetParam().preserve_sparsity_mask) {
    for (int64_t i = 0; i < layer.weight.num_elements(); i += 5) layer.weight.as<float>()[i] = 0;
  }
  const std::vector<float> solved = Solved(layer, GetParam());
  EXPECT_GE(FractionClose(solved, Reference(layer, GetParam()).Solve()), 0.995);
}

TEST_P(SparseGptCases, ReturnedLossAndChange_GiveTheOutputError) {
  const Layer layer = MakeLayer(70, 192);
  std::vector<float> weight = Dense(layer);
  const auto result = SparseGptSolve(ProblemOf(layer, weight), GetParam());
  ASSERT_TRUE(result.ok()) << result.status();
  const double expected = OutputErrorOf(layer, weight);
  EXPECT_NEAR(2 * result->loss - layer.factor.lambda * result->change, expected, 1e-3 * expected);
}

TEST_P(SparseGptCases, Threads_GiveEqualBits) {
  const Layer layer = MakeLayer(150, 192);
  const std::vector<float> expected = WithThreads(1, [&] { return Solved(layer, GetParam()); });
  for (const int threads : {2, 3, 8}) {
    EXPECT_EQ(expected, WithThreads(threads, [&] { return Solved(layer, GetParam()); }));
  }
}

// Adds up over slices that run at the same time.
class SliceSums {
 public:
  explicit SliceSums(int num_slices) : arrived_(num_slices), left_(num_slices) {}

  absl::Status Add(std::span<int64_t> counts) {
    {
      std::lock_guard lock(mutex_);
      sum_.resize(counts.size());
      for (size_t i = 0; i < counts.size(); ++i) sum_[i] += counts[i];
    }
    arrived_.arrive_and_wait();
    std::copy(sum_.begin(), sum_.end(), counts.begin());
    left_.arrive_and_wait();
    {
      std::lock_guard lock(mutex_);
      sum_.clear();
    }
    arrived_.arrive_and_wait();
    return absl::OkStatus();
  }

 private:
  std::mutex mutex_;
  std::vector<int64_t> sum_;
  std::barrier<> arrived_;
  std::barrier<> left_;
};

TEST_P(SparseGptCases, RowsInSlices_GiveEqualBits) {
  const Layer layer = MakeLayer(150, 192);
  const std::vector<float> whole = Solved(layer, GetParam());
  const std::vector<std::pair<int64_t, int64_t>> slices = {{0, 1}, {1, 1}, {1, 90}, {90, 150}};
  std::vector<float> weight = Dense(layer);
  SliceSums sums(static_cast<int>(slices.size()));
  WithThreads(1, [&] {
    std::vector<std::jthread> threads;
    for (const auto& [first, end] : slices) {
      threads.emplace_back([&, first, end] {
        SparseGptProblem slice = ProblemOf(layer, weight);
        slice.rows = end - first;
        slice.weight = weight.data() + first * layer.columns;
        SparseGptOptions options = GetParam();
        options.sum_over_slices = [&](std::span<int64_t> counts) { return sums.Add(counts); };
        EXPECT_TRUE(SparseGptSolve(slice, options).ok());
      });
    }
    return 0;
  });
  EXPECT_EQ(weight, whole);
}

INSTANTIATE_TEST_SUITE_P(
    All, SparseGptCases,
    ::testing::Values(SparseGptOptions{}, SparseGptOptions{.sparsity = 0.7, .block_size = 64},
                      SparseGptOptions{.sparsity = 0.3, .block_size = 1000},
                      SparseGptOptions{.sparsity = 0.5, .block_size = 97},
                      SparseGptOptions{.sparsity = 0.6, .preserve_sparsity_mask = true},
                      SparseGptOptions{.structure = {2, 4}},
                      SparseGptOptions{.structure = {1, 3}, .block_size = 96},
                      SparseGptOptions{.structure = {20, 48}, .block_size = 96},
                      SparseGptOptions{.structure = {2, 4}, .preserve_sparsity_mask = true}));

TEST(SparseGptSolve, Unstructured_PrunesOneMoreThanTheFractionInEveryBlock) {
  const Layer layer = MakeLayer(64, 256);
  EXPECT_EQ(NumZeros(Solved(layer, {.sparsity = 0.5, .block_size = 256})), 64 * 256 / 2 + 1);
  EXPECT_EQ(NumZeros(Solved(layer, {.sparsity = 0.5, .block_size = 128})), 64 * 256 / 2 + 2);
  EXPECT_EQ(NumZeros(Solved(layer, {.sparsity = 0.3, .block_size = 128})),
            2 * (64 * 128 * 3 / 10 + 1));
  EXPECT_EQ(Solved(layer, {.sparsity = 0}), Dense(layer));
}

TEST(SparseGptSolve, Grouped_PrunesExactlyNOfEveryM) {
  const Layer layer = MakeLayer(33, 192);
  for (const MaskStructure structure : {MaskStructure{2, 4}, {1, 4}, {4, 8}, {3, 64}}) {
    const std::vector<float> solved = Solved(layer, {.structure = structure});
    for (size_t i = 0; i < solved.size(); i += structure.group_size) {
      EXPECT_EQ(std::count(&solved[i], &solved[i] + structure.group_size, 0.0f),
                structure.prune_count);
    }
  }
}

TEST(SparseGptSolve, Solve_BeatsPruningWithoutUpdates) {
  const Layer layer = MakeLayer(64, 192);
  for (const MaskStructure structure : {MaskStructure{}, MaskStructure{2, 4}}) {
    const std::vector<float> solved = Solved(layer, {.structure = structure});
    std::vector<float> without = Dense(layer);
    for (size_t i = 0; i < solved.size(); ++i) without[i] = solved[i] == 0 ? 0 : without[i];
    EXPECT_LT(OutputErrorOf(layer, solved), 0.8 * OutputErrorOf(layer, without));
  }
}

TEST(SparseGptSolve, PreservedMask_StaysAndIsExtended) {
  for (const MaskStructure structure : {MaskStructure{}, MaskStructure{2, 4}}) {
    Layer layer = MakeLayer(64, 256);
    std::vector<bool> was_zero(layer.weight.num_elements());
    // The second block is sparser than the target already.
    for (int64_t i = 0; i < layer.weight.num_elements(); ++i) {
      was_zero[i] = i % layer.columns < 128 ? i % 4 == 0 : i % 4 != 0;
      if (was_zero[i]) layer.weight.as<float>()[i] = 0;
    }
    const std::vector<float> solved =
        Solved(layer, {.structure = structure, .preserve_sparsity_mask = true});
    int64_t first_half = 0;
    int64_t second_half = 0;
    for (int64_t i = 0; i < std::ssize(solved); ++i) {
      if (was_zero[i]) {
        EXPECT_EQ(solved[i], 0) << i;
      }
      (i % layer.columns < 128 ? first_half : second_half) += solved[i] == 0;
    }
    EXPECT_EQ(first_half, 64 * 128 / 2 + (structure.is_grouped() ? 0 : 1));
    EXPECT_EQ(second_half, 64 * 128 * 3 / 4);
  }
}

TEST(PruneRows, EveryKindOfVector_GivesEqualBits) {
  const Layer layer = MakeLayer(64, 96);
  const auto solve = [&](void (*prune)(const PruneRows&), int64_t lanes) {
    const PackedFactor factor(layer.factor.upper.as<float>(), layer.columns, 48);
    std::vector<float> weight(layer.columns * lanes);
    std::vector<float> error(48 * lanes);
    std::vector<float> drop(layer.columns * lanes);
    std::vector<float> diagonal(layer.columns);
    std::vector<double> loss(lanes);
    for (int64_t c = 0; c < layer.columns; ++c) {
      diagonal[c] = layer.factor.upper.as<float>()[c * (layer.columns + 1)];
      for (int64_t l = 0; l < lanes; ++l) {
        weight[c * lanes + l] = layer.weight.as<float>()[l * layer.columns + c];
      }
    }
    PruneRows rows;
    rows.walk = {lanes, &factor, weight.data(), error.data(), loss.data()};
    rows.end_block = 2;
    rows.diagonal = diagonal.data();
    rows.prune_count = 2;
    rows.group_size = 4;
    rows.drop = drop.data();
    prune(rows);
    weight.insert(weight.end(), loss.begin(), loss.end());
    return weight;
  };
  for (const int64_t lanes : {16, 32, 64}) {
    const std::vector<float> expected = solve(PruneRowsGeneric, lanes);
    if (HasColumnWalkAvx2()) {
      EXPECT_EQ(solve(PruneRowsAvx2, lanes), expected);
    }
    if (HasColumnWalkAvx512()) {
      EXPECT_EQ(solve(PruneRowsAvx512, lanes), expected);
    }
  }
}

TEST(SparseGptSolve, BadOptions_AreRefused) {
  const Layer layer = MakeLayer(8, 96);
  std::vector<float> weight = Dense(layer);
  const auto code = [&](const SparseGptOptions& options) {
    return SparseGptSolve(ProblemOf(layer, weight), options).status().code();
  };
  const auto invalid = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(code({.sparsity = 1}), invalid);
  EXPECT_EQ(code({.sparsity = -0.1}), invalid);
  EXPECT_EQ(code({.block_size = 0}), invalid);
  EXPECT_EQ(code({.structure = {4, 4}}), invalid);
  EXPECT_EQ(code({.structure = {2, 5}}), invalid);
  EXPECT_EQ(code({.structure = {2, 4}, .block_size = 6}), invalid);
  SparseGptProblem problem = ProblemOf(layer, weight);
  problem.total_rows = 7;
  EXPECT_EQ(SparseGptSolve(problem, {}).status().code(), invalid);
}

TEST(SparseGptSolve, FailingSum_IsReturned) {
  const Layer layer = MakeLayer(8, 96);
  std::vector<float> weight = Dense(layer);
  SparseGptOptions options;
  options.sum_over_slices = [](std::span<int64_t>) { return absl::UnavailableError("peer left"); };
  EXPECT_TRUE(absl::IsUnavailable(SparseGptSolve(ProblemOf(layer, weight), options).status()));
}

}  // namespace
}  // namespace llmc::kernels
