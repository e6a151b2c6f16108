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

}  // namespace llmc::kernels
