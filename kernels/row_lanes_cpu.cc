#include "kernels/column_walk.h"
#include "kernels/row_lanes.h"
#include "llmc/parallel.h"

namespace llmc::kernels {
namespace {

// Rows and columns that are transposed together: one cache line of each.
constexpr int64_t kSquare = 16;

}  // namespace

int64_t LanesFor(int64_t rows) {
  int64_t lanes = kMaxLanes;
  while (lanes > 16 && (rows + lanes - 1) / lanes < NumThreads()) lanes /= 2;
  return lanes;
}

RowLanes::RowLanes(const RowSlice& slice, int64_t first_row, int64_t lanes)
    : slice_(slice),
      first_(first_row),
      count_(std::min(lanes, slice.rows - first_row)),
      lanes_(lanes),
      weight_(DType::kF32, {slice.in_features, lanes}) {}

template <typename Visit>
void RowLanes::ForEachSquare(const Visit& visit) {
  for (int64_t column = 0; column < slice_.in_features; column += kSquare) {
    for (int64_t lane = 0; lane < lanes_; lane += kSquare) {
      visit(Square{lane, std::clamp<int64_t>(count_ - lane, 0, kSquare), column,
                   std::min(kSquare, slice_.in_features - column)});
    }
  }
}

void RowLanes::Load() {
  ForEachSquare([this](const Square& square) { LoadSquare(square); });
}

std::vector<uint64_t> RowLanes::Zeros() {
  std::vector<uint64_t> zeros(slice_.in_features, 0);
  for (int64_t c = 0; c < slice_.in_features; ++c) {
    const float* const column = weight() + c * lanes_;
    for (int64_t l = 0; l < lanes_; ++l) zeros[c] |= uint64_t{column[l] == 0} << l;
  }
  return zeros;
}

void RowLanes::Store(double* change) {
  ForEachSquare([this, change](const Square& square) { StoreSquare(square, change); });
}

void RowLanes::LoadSquare(const Square& square) {
  float rows[kSquare][kSquare] = {};
  for (int64_t r = 0; r < square.rows; ++r) {
    std::copy_n(Row(square.lane + r) + square.column, square.columns, rows[r]);
  }
  for (int64_t c = 0; c < square.columns; ++c) {
    float* const lanes = Lanes(square.column + c) + square.lane;
    for (int64_t l = 0; l < kSquare; ++l) lanes[l] = rows[l][c];
  }
}

void RowLanes::StoreSquare(const Square& square, double* change) {
  float columns[kSquare][kSquare];
  for (int64_t c = 0; c < square.columns; ++c) {
    std::copy_n(Lanes(square.column + c) + square.lane, kSquare, columns[c]);
  }
  for (int64_t r = 0; r < square.rows; ++r) {
    float* const row = Row(square.lane + r) + square.column;
    double sum = change[square.lane + r];
    for (int64_t c = 0; c < square.columns; ++c) {
      const double difference = static_cast<double>(row[c]) - columns[c][r];
      sum += difference * difference;
      row[c] = columns[c][r];
    }
    change[square.lane + r] = sum;
  }
}

}  // namespace llmc::kernels
