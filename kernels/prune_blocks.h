// Part of kernels/sparsegpt_solve and kernels/prune_by_score: what the CPU's twins and the
// device's agree on, so that their bits are equal.
#ifndef LLMC_KERNELS_PRUNE_BLOCKS_H_
#define LLMC_KERNELS_PRUNE_BLOCKS_H_

#include <algorithm>
#include <array>
#include <cstdint>

#include "kernels/prune_by_score.h"
#include "kernels/sparsegpt_solve.h"

namespace llmc::kernels {

// Longest group of n:m pruning.
inline constexpr int64_t kMaxGroupSize = 64;

// Bits of a score that one round of histograms looks at, from the highest down. The
// sign bit is never set.
struct ScoreRound {
  int shift;
  int bits;
};
inline constexpr std::array<ScoreRound, 3> kScoreRounds = {{{20, 11}, {9, 11}, {0, 9}}};
inline constexpr int64_t kMostBins = int64_t{1} << 11;

// Columns over which squares are added in float32: the widest part of a block, made of
// whole groups, that is no wider than the CPU's first-level cache likes. Counted from
// column 0, so parts fill blocks.
inline int64_t LossColumns(const SparseGptOptions& options) {
  constexpr int64_t kWidest = 64;
  const int64_t group = std::max<int64_t>(1, options.structure.group_size);
  const int64_t groups = options.block_size / group;
  int64_t best = 1;
  for (int64_t g = 1; g <= groups; ++g) {
    if (groups % g == 0 && g * group <= std::max(kWidest, group)) best = g;
  }
  return best * group;
}

// kInvalidArgument when an option breaks a rule of SparseGptOptions.
absl::Status CheckPruning(const SparseGptProblem& problem, const SparseGptOptions& options);

// kInvalidArgument when an argument of PruneByScore breaks a rule; norms are not looked at.
absl::Status CheckScoring(const DeviceScoredRows& rows, double sparsity,
                          const MaskStructure& structure);

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_PRUNE_BLOCKS_H_
