#include "kernels/prune_blocks.h"

#include "absl/strings/str_cat.h"

namespace llmc::kernels {

absl::Status CheckPruning(const SparseGptProblem& problem, const SparseGptOptions& options) {
  if (!(options.sparsity >= 0 && options.sparsity < 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("SparseGptSolve: sparsity ", options.sparsity, ", expected in [0, 1)"));
  }
  if (options.block_size < 1 || options.block_size > 1024) {
    return absl::InvalidArgumentError(
        absl::StrCat("SparseGptSolve: block_size ", options.block_size, ", expected 1..1024"));
  }
  const MaskStructure& s = options.structure;
  if (!s.is_grouped()) return absl::OkStatus();
  if (s.group_size > kMaxGroupSize || s.prune_count >= s.group_size ||
      problem.in_features % s.group_size != 0 || options.block_size % s.group_size != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("SparseGptSolve: ", s.prune_count, ":", s.group_size,
                     ", expected n < m <= ", kMaxGroupSize, ", and m a divisor of the ",
                     problem.in_features, " columns and of block_size ", options.block_size));
  }
  return absl::OkStatus();
}

absl::Status CheckScoring(const DeviceScoredRows& rows, double sparsity,
                          const MaskStructure& structure) {
  if (rows.rows < 0 || rows.in_features <= 0 || (rows.rows > 0 && !rows.weight)) {
    return absl::InvalidArgumentError(
        "PruneByScore: a size is out of range or an array is missing");
  }
  if (!(sparsity >= 0 && sparsity < 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("PruneByScore: sparsity ", sparsity, ", expected in [0, 1)"));
  }
  if (structure.is_grouped() && (structure.prune_count >= structure.group_size ||
                                 rows.in_features % structure.group_size != 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("PruneByScore: ", structure.prune_count, ":", structure.group_size,
                     ", expected n < m, and m a divisor of the ", rows.in_features, " columns"));
  }
  return absl::OkStatus();
}

}  // namespace llmc::kernels
