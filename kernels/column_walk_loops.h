// Part of kernels/column_walk: the walk around one kind of vector and one rule that
// fixes a column. Included by the file of each kind, after its target pragma, so that
// every function here is compiled for exactly the instructions of that file.
//
// A Vector has kLanes floats and: Load, Broadcast, Store, and
// NegativeMultiplyAdd(a, b, c) = c - a * b with one rounding.
//
// A Rule has:
//   sub_block()   columns that are brought up to date one by one
//   Begin(c)      before column c; the columns of its sub-block are up to date
//   Fix(column)   sets the column's weights and errors, adds to its squares
#ifndef LLMC_KERNELS_COLUMN_WALK_LOOPS_H_
#define LLMC_KERNELS_COLUMN_WALK_LOOPS_H_

#include <cstdint>

#include "kernels/column_walk.h"

namespace llmc::kernels {
namespace {

// A good number of columns to bring up to date one by one; beyond them updates of a
// whole sub-block are kept in registers.
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
struct Column {
  int64_t index = 0;  // In visiting order.
  float* weight = nullptr;
  float* error = nullptr;
  float diagonal = 0;        // Of U.
  float* squares = nullptr;  // += error^2
  int64_t lanes = 0;
};

template <typename Vector, typename Rule>
class ColumnSolver {
 public:
  ColumnSolver(const ColumnWalk& walk, Rule rule) : walk_(walk), rule_(rule) {}

  // Blocks [first, end) of the factor.
  void Run(int64_t first, int64_t end) {
    for (int64_t b = first; b < end; ++b) {
      for (int64_t l = 0; l < walk_.lanes; ++l) squares_[l] = 0;
      SolveBlock(b);
      for (int64_t l = 0; l < walk_.lanes; ++l) walk_.loss[l] += 0.5 * squares_[l];
      UpdateTrailing(b);
    }
  }

 private:
  void SolveBlock(int64_t block) {
    const int64_t width = walk_.factor->width(block);
    const int64_t begin = walk_.factor->begin(block);
    const float* const factor = walk_.factor->diagonal(block);
    float* const weight = walk_.weight + begin * walk_.lanes;
    const int64_t step = rule_.sub_block();
    for (int64_t first = 0; first < width; first += step) {
      const int64_t end = first + step < width ? first + step : width;
      for (int64_t i = first; i < end; ++i) {
        rule_.Begin(begin + i);
        rule_.Fix({begin + i, weight + i * walk_.lanes, walk_.error + i * walk_.lanes,
                   factor[i * width + i], squares_, walk_.lanes});
        UpdateColumns(factor + i * width, width, {i, 1}, weight, {i + 1, end});
      }
      UpdateColumns(factor + first * width, width, {first, end - first}, weight, {end, width});
    }
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
    u.error = walk_.error + errors.first * walk_.lanes;
    u.factor_stride = stride;
    u.num_errors = errors.count;
    u.lanes = walk_.lanes;
    for (int64_t c = columns.first; c < columns.end; c += kUpdateColumns) {
      u.factor = factor + c;
      u.weight = weight + c * walk_.lanes;
      Update<Vector>(u, columns.end - c);
    }
  }

  void UpdateTrailing(int64_t block) {
    const PackedFactor& factor = *walk_.factor;
    const int64_t first = factor.begin(block) + factor.width(block);
    ColumnUpdate u;
    u.error = walk_.error;
    u.factor_stride = kUpdateColumns;
    u.num_errors = factor.width(block);
    u.lanes = walk_.lanes;
    for (int64_t c = first; c < factor.n(); c += kUpdateColumns) {
      u.factor = factor.panel(block, (c - first) / kUpdateColumns);
      u.weight = walk_.weight + c * walk_.lanes;
      Update<Vector>(u, factor.n() - c);
    }
  }

  const ColumnWalk& walk_;
  Rule rule_;
  float squares_[kMaxLanes];
};

}  // namespace
}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_COLUMN_WALK_LOOPS_H_
