// Part of kernels/gptq_solve: how a column is rounded. Included after a target pragma,
// as kernels/column_walk_loops.h.
#ifndef LLMC_KERNELS_GPTQ_ROWS_LOOPS_H_
#define LLMC_KERNELS_GPTQ_ROWS_LOOPS_H_

#include <cstdint>

#include "kernels/column_walk_loops.h"
#include "kernels/gptq_rows.h"
#include "kernels/round_to_grid.h"

namespace llmc::kernels {
namespace {

struct ColumnRounding {
  Column column;
  const float* scale;
  const float* zero_point;
  const float* keep;  // [lanes]: 0 where the weight stays 0, else 1; for kMasked.
  float q_min;
  float q_max;
};

template <Element kElement, DType kScaleDType, bool kMasked>
void RoundColumn(const ColumnRounding& c) {
  const Column& column = c.column;
  for (int64_t l = 0; l < column.lanes; ++l) {
    const float w = column.weight[l];
    const float code = RoundToGrid<kElement>(w / c.scale[l] + c.zero_point[l], c.q_min, c.q_max);
    float q = RoundTo<kScaleDType>((code - c.zero_point[l]) * c.scale[l]);
    if constexpr (kMasked) q = c.keep[l] != 0 ? q : 0.0f;
    const float e = (w - q) / column.diagonal;
    column.weight[l] = q;
    column.error[l] = e;
    column.squares[l] += e * e;
  }
}

using RoundFunction = void (*)(const ColumnRounding&);

template <Element kElement, bool kMasked>
RoundFunction RoundFunctionFor(DType scale_dtype) {
  if (scale_dtype == DType::kBF16) return RoundColumn<kElement, DType::kBF16, kMasked>;
  if (scale_dtype == DType::kF16) return RoundColumn<kElement, DType::kF16, kMasked>;
  return RoundColumn<kElement, DType::kF32, kMasked>;
}

template <bool kMasked>
RoundFunction RoundFunctionFor(const GptqRows& rows) {
  switch (rows.element) {
    case Element::kE4m3:
      return RoundFunctionFor<Element::kE4m3, kMasked>(rows.scale_dtype);
    case Element::kE2m1:
      return RoundFunctionFor<Element::kE2m1, kMasked>(rows.scale_dtype);
    default:
      return RoundFunctionFor<Element::kInt, kMasked>(rows.scale_dtype);
  }
}

class RoundingRule {
 public:
  explicit RoundingRule(const GptqRows& rows)
      : rows_(rows),
        round_(rows.zeros ? RoundFunctionFor<true>(rows) : RoundFunctionFor<false>(rows)) {}

  int64_t sub_block() const { return kSubBlock; }

  void Begin(int64_t column) {
    if (!rows_.zeros) return;
    for (int64_t l = 0; l < rows_.walk.lanes; ++l) {
      keep_[l] = (rows_.zeros[column] >> l & 1) != 0 ? 0.0f : 1.0f;
    }
  }

  void Fix(const Column& column) {
    const int64_t group = rows_.group[column.index] * column.lanes;
    round_(
        {column, rows_.scale + group, rows_.zero_point + group, keep_, rows_.q_min, rows_.q_max});
  }

 private:
  const GptqRows& rows_;
  RoundFunction round_;
  float keep_[kMaxLanes];
};

template <typename Vector>
void SolveRows(const GptqRows& rows) {
  ColumnSolver<Vector, RoundingRule>(rows.walk, RoundingRule(rows))
      .Run(0, rows.walk.factor->num_blocks());
}

}  // namespace
}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_GPTQ_ROWS_LOOPS_H_
