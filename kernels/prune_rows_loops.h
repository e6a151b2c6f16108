// Part of kernels/sparsegpt_solve: how a column is pruned. Included after a target
// pragma, as kernels/column_walk_loops.h.
#ifndef LLMC_KERNELS_PRUNE_ROWS_LOOPS_H_
#define LLMC_KERNELS_PRUNE_ROWS_LOOPS_H_

#include <cstdint>

#include "kernels/column_walk_loops.h"
#include "kernels/prune_rows.h"

namespace llmc::kernels {
namespace {

// rank[l] += 1 where `other` is pruned before `own`: it scores less, or the same and
// lies to the left.
inline void CountBefore(const float* own, const float* other, bool is_left, int64_t lanes,
                        float* rank) {
  if (is_left) {
    for (int64_t l = 0; l < lanes; ++l) rank[l] += other[l] <= own[l] ? 1.0f : 0.0f;
  } else {
    for (int64_t l = 0; l < lanes; ++l) rank[l] += other[l] < own[l] ? 1.0f : 0.0f;
  }
}

class PruningRule {
 public:
  explicit PruningRule(const PruneRows& rows)
      : rows_(rows), first_(rows.walk.factor->begin(rows.first_block)) {}

  // A group's scores are taken when its first column is reached, so it may not
  // straddle sub-blocks.
  int64_t sub_block() const {
    if (rows_.prune_count == 0) return kSubBlock;
    const int64_t groups = kSubBlock / rows_.group_size;
    return rows_.group_size * (groups > 0 ? groups : 1);
  }

  void Begin(int64_t column) {
    if (rows_.prune_count > 0 && column % rows_.group_size == 0) ChooseInGroup(column);
  }

  void Fix(const Column& column) {
    const float* const drop = Drop(column.index);
    for (int64_t l = 0; l < column.lanes; ++l) {
      const float w = column.weight[l];
      const float q = drop[l] != 0 ? 0.0f : w;
      const float e = (w - q) / column.diagonal;
      column.weight[l] = q;
      column.error[l] = e;
      column.squares[l] += e * e;
    }
  }

 private:
  float* Drop(int64_t column) const { return rows_.drop + (column - first_) * rows_.walk.lanes; }

  bool IsZero(int64_t column, int64_t lane) const {
    return rows_.zeros && (rows_.zeros[column] >> lane & 1) != 0;
  }

  // w^2 / U_jj^2, and 0 where the weight stays 0.
  void Score(int64_t column, float* score) const {
    const float* const weight = rows_.walk.weight + column * rows_.walk.lanes;
    const float diagonal = rows_.diagonal[column];
    for (int64_t l = 0; l < rows_.walk.lanes; ++l) {
      score[l] = weight[l] * weight[l] / (diagonal * diagonal);
    }
    if (!rows_.zeros) return;
    for (int64_t l = 0; l < rows_.walk.lanes; ++l) {
      if (IsZero(column, l)) score[l] = 0;
    }
  }

  // Scores stand in `drop` until all columns are ranked.
  void ChooseInGroup(int64_t first) {
    const int64_t lanes = rows_.walk.lanes;
    const int64_t m = rows_.group_size;
    for (int64_t j = 0; j < m; ++j) Score(first + j, Drop(first + j));
    for (int64_t j = 0; j < m; ++j) {
      float* const rank = ranks_ + j * kMaxLanes;
      for (int64_t l = 0; l < lanes; ++l) rank[l] = 0;
      for (int64_t k = 0; k < m; ++k) {
        if (k != j) CountBefore(Drop(first + j), Drop(first + k), k < j, lanes, rank);
      }
    }
    for (int64_t j = 0; j < m; ++j) Decide(first + j, ranks_ + j * kMaxLanes);
  }

  void Decide(int64_t column, const float* rank) const {
    float* const drop = Drop(column);
    const float count = static_cast<float>(rows_.prune_count);
    for (int64_t l = 0; l < rows_.walk.lanes; ++l) drop[l] = rank[l] < count ? 1.0f : 0.0f;
    if (!rows_.zeros) return;
    for (int64_t l = 0; l < rows_.walk.lanes; ++l) {
      if (IsZero(column, l)) drop[l] = 1;
    }
  }

  const PruneRows& rows_;
  const int64_t first_;
  float ranks_[kMaxGroupSize * kMaxLanes];
};

template <typename Vector>
void PruneBlocks(const PruneRows& rows) {
  ColumnSolver<Vector, PruningRule>(rows.walk, PruningRule(rows))
      .Run(rows.first_block, rows.end_block);
}

}  // namespace
}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_PRUNE_ROWS_LOOPS_H_
