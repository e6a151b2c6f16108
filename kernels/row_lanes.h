// Rows of a weight as vector lanes: the transposed copy on which a unit is solved.
#ifndef LLMC_KERNELS_ROW_LANES_H_
#define LLMC_KERNELS_ROW_LANES_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "llmc/tensor.h"

namespace llmc::kernels {

// The rows that units are cut from; borrowed.
struct RowSlice {
  float* weight = nullptr;  // F32 [rows, in_features].
  int64_t rows = 0;
  int64_t in_features = 0;
  const int32_t* position = nullptr;  // [in_features]: where a column goes; null: where it is.
};

// Rows [first_row, first_row + lanes) of a slice; lanes beyond its end are 0.
class RowLanes {
 public:
  RowLanes(const RowSlice& slice, int64_t first_row, int64_t lanes);

  int64_t first_row() const { return first_; }
  int64_t count() const { return count_; }  // Rows that there are.
  int64_t lanes() const { return lanes_; }

  // F32 [in_features, lanes].
  float* weight() { return weight_.as<float>(); }

  void Load();

  // [in_features], by position: bit l is set where lane l holds a 0. Of what Load
  // brought.
  std::vector<uint64_t> Zeros();

  // Writes the lanes back and adds the squares of what has changed to change[lane].
  void Store(double* change);

 private:
  // Columns [column, column + columns) of lanes [lane, lane + rows).
  struct Square {
    int64_t lane = 0;
    int64_t rows = 0;
    int64_t column = 0;
    int64_t columns = 0;
  };

  template <typename Visit>
  void ForEachSquare(const Visit& visit);
  void LoadSquare(const Square& square);
  void StoreSquare(const Square& square, double* change);

  float* Row(int64_t lane) const { return slice_.weight + (first_ + lane) * slice_.in_features; }
  float* Lanes(int64_t column) {
    return weight() + (slice_.position ? slice_.position[column] : column) * lanes_;
  }

  RowSlice slice_;
  int64_t first_;
  int64_t count_;
  int64_t lanes_;
  HostTensor weight_;
};

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_ROW_LANES_H_
