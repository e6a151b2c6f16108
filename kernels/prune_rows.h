// Part of kernels/sparsegpt_solve: the pruning of some blocks of one unit of rows, on
// one thread.
#ifndef LLMC_KERNELS_PRUNE_ROWS_H_
#define LLMC_KERNELS_PRUNE_ROWS_H_

#include <cstdint>

#include "kernels/column_walk.h"
#include "kernels/prune_blocks.h"

namespace llmc::kernels {

struct PruneRows {
  ColumnWalk walk;
  int64_t first_block = 0;  // Of the factor.
  int64_t end_block = 0;
  const float* diagonal = nullptr;  // f32 [n]: of U.

  // n:m: of every group_size columns prune_count are pruned, beside those that
  // `zeros` has; the factor's blocks hold whole groups. 0: `drop` says which.
  int64_t prune_count = 0;
  int64_t group_size = 0;
  const uint64_t* zeros = nullptr;  // [n]: bit l is set where lane l stays 0. Null: nowhere.

  // f32 [columns of these blocks, lanes]: 1 where a weight is pruned, else 0. In for
  // unstructured pruning, scratch for n:m.
  float* drop = nullptr;
};

// The same bits from each.
void PruneRowsAvx512(const PruneRows& rows);
void PruneRowsAvx2(const PruneRows& rows);
void PruneRowsGeneric(const PruneRows& rows);

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_PRUNE_ROWS_H_
