// Part of kernels/gptq_solve: SolveGptqRows around one kind of vector. Included by
// the file of each kind, after its target pragma, so that every function here is
// compiled for exactly the instructions of that file.
//
// A Vector has kLanes floats and: Load, Broadcast, Store, and
// NegativeMultiplyAdd(a, b, c) = c - a * b with one rounding.
#ifndef LLMC_KERNELS_GPTQ_ROWS_LOOPS_H_
#define LLMC_KERNELS_GPTQ_ROWS_LOOPS_H_

#include <cstdint>

#include "kernels/gptq_rows.h"
#include "kernels/round_to_grid.h"

namespace llmc::kernels {
namespace {

constexpr int64_t kMaxLanes = 64;

// Columns that are brought up to date one by one; beyond them updates of a whole
// sub-block are kept in registers.
constexpr int64_t kSubBlock = 16;

// weight[c] -= sum_k error[k] * factor[k][c] for kColumns columns c.
struct ColumnUpdate {
  const float* error;   // [num_errors, lanes]
  const float* factor;  // [num_errors, >= kColumns], rows factor_stride apart.
  int64_t factor_stride;
  int64_t num_errors;
  float* weight;  // [kColumns, lanes]
  int64_t lanes;
};

template <typename Vector, int kVectors, int kColumns>
void UpdateLanes(const ColumnUpdate& u, int64_t first_lane) {
  typename Vector::Type sum[kColumns][kVectors];
  float* const weight = u.weight + first_lane;
#pragma GCC unroll 8
  for (int c = 0; c < kColumns; ++c) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      sum[c][v] = Vector::Load(weight + c * u.lanes + v * Vector::kLanes);
    }
  }
  const float* error = u.error + first_lane;
  const float* factor = u.factor;
  for (int64_t k = 0; k < u.num_errors; ++k, error += u.lanes, factor += u.factor_stride) {
    typename Vector::Type e[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) e[v] = Vector::Load(error + v * Vector::kLanes);
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) {
      const typename Vector::Type f = Vector::Broadcast(factor[c]);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        sum[c][v] = Vector::NegativeMultiplyAdd(e[v], f, sum[c][v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int c = 0; c < kColumns; ++c) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      Vector::Store(weight + c * u.lanes + v * Vector::kLanes, sum[c][v]);
    }
  }
}

template <typename Vector, int kColumns>
void UpdateAllLanes(const ColumnUpdate& u) {
  constexpr int kMost = Vector::kMaxVectors;
  constexpr int64_t kStep = kMost * Vector::kLanes;
  int64_t lane = 0;
  for (; lane + kStep <= u.lanes; lane += kStep) UpdateLanes<Vector, kMost, kColumns>(u, lane);
  for (; lane < u.lanes; lane += 16) UpdateLanes<Vector, 16 / Vector::kLanes, kColumns>(u, lane);
}

// Up to kUpdateColumns columns.
template <typename Vector>
void Update(const ColumnUpdate& u, int64_t num_columns) {
  switch (num_columns) {
    case 1:
      return UpdateAllLanes<Vector, 1>(u);
    case 2:
      return UpdateAllLanes<Vector, 2>(u);
    case 3:
      return UpdateAllLanes<Vector, 3>(u);
    case 4:
      return UpdateAllLanes<Vector, 4>(u);
    case 5:
      return UpdateAllLanes<Vector, 5>(u);
    default:
      return UpdateAllLanes<Vector, 6>(u);
  }
}

// One column of all lanes.
struct ColumnRounding {
  float* weight;
  float* error;
  const float* scale;
  const float* zero_point;
  float diagonal;
  float q_min;
  float q_max;
  float* squares;  // += error^2
  int64_t lanes;
};

template <Element kElement, DType kScaleDType>
void RoundColumn(const ColumnRounding& c) {
  for (int64_t l = 0; l < c.lanes; ++l) {
    const float w = c.weight[l];
    const float code = RoundToGrid<kElement>(w / c.scale[l] + c.zero_point[l], c.q_min, c.q_max);
    const float q = RoundTo<kScaleDType>((code - c.zero_point[l]) * c.scale[l]);
    const float e = (w - q) / c.diagonal;
    c.weight[l] = q;
    c.error[l] = e;
    c.squares[l] += e * e;
  }
}

using RoundFunction = void (*)(const ColumnRounding&);

template <Element kElement>
RoundFunction RoundFunctionFor(DType scale_dtype) {
  if (scale_dtype == DType::kBF16) return RoundColumn<kElement, DType::kBF16>;
  if (scale_dtype == DType::kF16) return RoundColumn<kElement, DType::kF16>;
  return RoundColumn<kElement, DType::kF32>;
}

RoundFunction RoundFunctionFor(const GptqRows& rows) {
  if (rows.element == Element::kE4m3) return RoundFunctionFor<Element::kE4m3>(rows.scale_dtype);
  if (rows.element == Element::kE2m1) return RoundFunctionFor<Element::kE2m1>(rows.scale_dtype);
  return RoundFunctionFor<Element::kInt>(rows.scale_dtype);
}

template <typename Vector>
class RowsSolver {
 public:
  explicit RowsSolver(const GptqRows& rows) : rows_(rows), round_(RoundFunctionFor(rows)) {}

  void Run() {
    for (int64_t l = 0; l < rows_.lanes; ++l) rows_.loss[l] = 0;
    for (int64_t b = 0; b < rows_.factor->num_blocks(); ++b) {
      for (int64_t l = 0; l < rows_.lanes; ++l) squares_[l] = 0;
      SolveBlock(b);
      for (int64_t l = 0; l < rows_.lanes; ++l) rows_.loss[l] += 0.5 * squares_[l];
      UpdateTrailing(b);
    }
  }

 private:
  void SolveBlock(int64_t block) {
    const int64_t width = rows_.factor->width(block);
    const float* const factor = rows_.factor->diagonal(block);
    float* const weight = rows_.weight + rows_.factor->begin(block) * rows_.lanes;
    const int32_t* const group = rows_.group + rows_.factor->begin(block);
    for (int64_t first = 0; first < width; first += kSubBlock) {
      const int64_t end = first + kSubBlock < width ? first + kSubBlock : width;
      for (int64_t i = first; i < end; ++i) {
        Round(weight + i * rows_.lanes, i, group[i], factor[i * width + i]);
        UpdateColumns(factor + i * width, width, {i, 1}, weight, {i + 1, end});
      }
      UpdateColumns(factor + first * width, width, {first, end - first}, weight, {end, width});
    }
  }

  void Round(float* weight, int64_t column, int64_t group, float diagonal) {
    ColumnRounding rounding;
    rounding.weight = weight;
    rounding.error = rows_.error + column * rows_.lanes;
    rounding.scale = rows_.scale + group * rows_.lanes;
    rounding.zero_point = rows_.zero_point + group * rows_.lanes;
    rounding.diagonal = diagonal;
    rounding.q_min = rows_.q_min;
    rounding.q_max = rows_.q_max;
    rounding.squares = squares_;
    rounding.lanes = rows_.lanes;
    round_(rounding);
  }

  struct Errors {
    int64_t first;
    int64_t count;
  };
  struct Columns {
    int64_t first;
    int64_t end;
  };

  // Updates columns of a block by errors of the same block.
  void UpdateColumns(const float* factor, int64_t stride, Errors errors, float* weight,
                     Columns columns) {
    ColumnUpdate u;
    u.error = rows_.error + errors.first * rows_.lanes;
    u.factor_stride = stride;
    u.num_errors = errors.count;
    u.lanes = rows_.lanes;
    for (int64_t c = columns.first; c < columns.end; c += kUpdateColumns) {
      u.factor = factor + c;
      u.weight = weight + c * rows_.lanes;
      Update<Vector>(u, columns.end - c);
    }
  }

  void UpdateTrailing(int64_t block) {
    const PackedFactor& factor = *rows_.factor;
    const int64_t first = factor.begin(block) + factor.width(block);
    ColumnUpdate u;
    u.error = rows_.error;
    u.factor_stride = kUpdateColumns;
    u.num_errors = factor.width(block);
    u.lanes = rows_.lanes;
    for (int64_t c = first; c < factor.n(); c += kUpdateColumns) {
      u.factor = factor.panel(block, (c - first) / kUpdateColumns);
      u.weight = rows_.weight + c * rows_.lanes;
      Update<Vector>(u, factor.n() - c);
    }
  }

  const GptqRows& rows_;
  const RoundFunction round_;
  float squares_[kMaxLanes];
};

}  // namespace
}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_GPTQ_ROWS_LOOPS_H_
