#include "kernels/prune_by_score.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "linear_algebra_reference.h"

namespace llmc::kernels {
namespace {

struct Case {
  int64_t rows = 37;
  int64_t columns = 96;
  HostTensor weight = RandomFloats(37, 96, 5);
  HostTensor norms = RandomFloats(1, 96, 6);

  Case() {
    for (int64_t i = 0; i < columns; ++i) norms.as<float>()[i] = std::fabs(norms.as<float>()[i]);
  }
};

// Stable sort of every row, or of every m columns of it.
std::vector<float> Reference(const Case& c, bool has_norms, int64_t width, int64_t count) {
  std::vector<float> weight(c.weight.as<float>(), c.weight.as<float>() + c.rows * c.columns);
  for (int64_t first = 0; first < std::ssize(weight); first += width) {
    std::vector<int64_t> order(width);
    std::iota(order.begin(), order.end(), first);
    const auto score = [&](int64_t i) {
      const float norm = has_norms ? c.norms.as<float>()[i % c.columns] : 1.0f;
      return std::fabs(c.weight.as<float>()[i]) * norm;
    };
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return score(a) < score(b); });
    for (int64_t k = 0; k < count; ++k) weight[order[k]] = 0;
  }
  return weight;
}

std::vector<float> Pruned(const Case& c, bool has_norms, double sparsity, MaskStructure structure) {
  std::vector<float> weight(c.weight.as<float>(), c.weight.as<float>() + c.rows * c.columns);
  ScoredRows rows{weight.data(), c.rows, c.columns, {}};
  if (has_norms) rows.norms = {c.norms.as<float>(), static_cast<size_t>(c.columns)};
  EXPECT_TRUE(PruneByScore(rows, sparsity, structure).ok());
  return weight;
}

TEST(PruneByScore, RowsAndGroups_AreThoseOfAStableSort) {
  Case c;
  // Equal weights, so that the order of ties shows.
  for (int64_t i = 0; i < c.weight.num_elements(); i += 2) c.weight.as<float>()[i] = 0.25f;
  for (const bool has_norms : {false, true}) {
    EXPECT_EQ(Pruned(c, has_norms, 0.5, {}), Reference(c, has_norms, 96, 48));
    EXPECT_EQ(Pruned(c, has_norms, 0.33, {}), Reference(c, has_norms, 96, 31));
    EXPECT_EQ(Pruned(c, has_norms, 0.5, {2, 4}), Reference(c, has_norms, 4, 2));
    EXPECT_EQ(Pruned(c, has_norms, 0.5, {5, 12}), Reference(c, has_norms, 12, 5));
    EXPECT_EQ(Pruned(c, has_norms, 0, {}), Reference(c, has_norms, 96, 0));
  }
}

TEST(PruneByScore, Threads_GiveEqualBits) {
  const Case c;
  const auto expected = WithThreads(1, [&] { return Pruned(c, true, 0.5, {}); });
  EXPECT_EQ(expected, WithThreads(3, [&] { return Pruned(c, true, 0.5, {}); }));
}

TEST(PruneByScore, BadSizes_AreRefused) {
  Case c;
  ScoredRows rows{c.weight.as<float>(), c.rows, c.columns, {}};
  EXPECT_FALSE(PruneByScore(rows, 1.0, {}).ok());
  EXPECT_FALSE(PruneByScore(rows, 0.5, {2, 5}).ok());
  EXPECT_FALSE(PruneByScore(rows, 0.5, {4, 4}).ok());
  rows.norms = {c.norms.as<float>(), 3};
  EXPECT_FALSE(PruneByScore(rows, 0.5, {}).ok());
}

TEST(ScoreStatistics, SumAndCount_AreThoseOfTheDefinition) {
  Case c;
  const ScoredRows rows{c.weight.as<float>(), c.rows, c.columns, {c.norms.as<float>(), 96}};
  double sum = 0;
  int64_t above = 0;
  for (int64_t i = 0; i < c.rows * c.columns; ++i) {
    const float score = std::fabs(c.weight.as<float>()[i]) * c.norms.as<float>()[i % c.columns];
    sum += score;
    above += score > 0.4;
  }
  EXPECT_NEAR(SumOfScores(rows), sum, 1e-9 * sum);
  EXPECT_EQ(CountScoresAbove(rows, 0.4), above);
  EXPECT_EQ(WithThreads(1, [&] { return SumOfScores(rows); }),
            WithThreads(3, [&] { return SumOfScores(rows); }));
}

}  // namespace
}  // namespace llmc::kernels
