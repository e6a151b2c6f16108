#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/prune_blocks.h"
#include "kernels/prune_by_score.h"
#include "llmc/parallel.h"

namespace llmc::kernels {
namespace {

absl::Status Check(const ScoredRows& rows, double sparsity, const MaskStructure& structure) {
  if (!rows.norms.empty() && std::ssize(rows.norms) != rows.in_features) {
    return absl::InvalidArgumentError(
        "PruneByScore: a size is out of range or an array is missing");
  }
  return CheckScoring({rows.weight, rows.rows, rows.in_features}, sparsity, structure);
}

void ScoreRow(const ScoredRows& rows, int64_t row, std::vector<float>& scores) {
  const float* const weight = rows.weight + row * rows.in_features;
  scores.resize(rows.in_features);
  if (rows.norms.empty()) {
    for (int64_t c = 0; c < rows.in_features; ++c) scores[c] = std::fabs(weight[c]);
  } else {
    for (int64_t c = 0; c < rows.in_features; ++c) {
      scores[c] = std::fabs(weight[c]) * rows.norms[c];
    }
  }
}

// Zeroes the `count` lowest of weight[0, scores.size()).
void ZeroLowest(std::span<const float> scores, int64_t count, std::vector<float>& sorted,
                float* weight) {
  if (count == 0) return;
  sorted.assign(scores.begin(), scores.end());
  std::nth_element(sorted.begin(), sorted.begin() + (count - 1), sorted.end());
  const float last = sorted[count - 1];
  int64_t ties = count - std::count_if(scores.begin(), scores.end(),
                                       [last](float score) { return score < last; });
  for (size_t c = 0; c < scores.size(); ++c) {
    if (scores[c] < last || (scores[c] == last && ties-- > 0)) weight[c] = 0;
  }
}

template <typename Visit>
void ForEachScoredRow(const ScoredRows& rows, const Visit& visit) {
  constexpr int64_t kUnitRows = 16;
  ParallelFor((rows.rows + kUnitRows - 1) / kUnitRows, [&](int64_t unit) {
    std::vector<float> scores;
    const int64_t end = std::min(rows.rows, (unit + 1) * kUnitRows);
    for (int64_t row = unit * kUnitRows; row < end; ++row) {
      ScoreRow(rows, row, scores);
      visit(row, std::span<const float>(scores));
    }
  });
}

}  // namespace

absl::Status PruneByScore(const ScoredRows& rows, double sparsity, const MaskStructure& structure) {
  LLMC_RETURN_IF_ERROR(Check(rows, sparsity, structure));
  const int64_t width = structure.is_grouped() ? structure.group_size : rows.in_features;
  const int64_t count =
      structure.is_grouped()
          ? structure.prune_count
          : static_cast<int64_t>(static_cast<double>(rows.in_features) * sparsity);
  ForEachScoredRow(rows, [&](int64_t row, std::span<const float> scores) {
    std::vector<float> sorted;
    for (int64_t c = 0; c < rows.in_features; c += width) {
      ZeroLowest(scores.subspan(c, width), count, sorted, rows.weight + row * rows.in_features + c);
    }
  });
  return absl::OkStatus();
}

double SumOfScores(const ScoredRows& rows) {
  std::vector<double> sums(rows.rows);
  ForEachScoredRow(rows, [&](int64_t row, std::span<const float> scores) {
    sums[row] = std::accumulate(scores.begin(), scores.end(), 0.0);
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

int64_t CountScoresAbove(const ScoredRows& rows, double threshold) {
  std::vector<int64_t> counts(rows.rows);
  ForEachScoredRow(rows, [&](int64_t row, std::span<const float> scores) {
    counts[row] = std::count_if(scores.begin(), scores.end(),
                                [threshold](float score) { return score > threshold; });
  });
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

}  // namespace llmc::kernels
