// What GPTQ and SparseGPT share: a walk over the columns of a unit of rows that
// fixes one column after the other and lets those to the right absorb its error.
// Rows are vector lanes, so arrays are transposed: [column, lane].
#ifndef LLMC_KERNELS_COLUMN_WALK_H_
#define LLMC_KERNELS_COLUMN_WALK_H_

#include <cstdint>

#include "kernels/packed_factor.h"

namespace llmc::kernels {

// Most lanes of a unit.
inline constexpr int64_t kMaxLanes = 64;

struct ColumnWalk {
  int64_t lanes = 0;  // 16, 32 or 64.
  const PackedFactor* factor = nullptr;
  float* weight = nullptr;  // In/out, f32 [n, lanes], columns in visiting order.
  float* error = nullptr;   // Scratch, f32 [block_size, lanes].
  double* loss = nullptr;   // f64 [lanes]: += error^2 / 2 of every column.
};

// Lanes of a unit, chosen for speed alone: few rows are spread over all threads.
int64_t LanesFor(int64_t rows);

// What this CPU offers.
bool HasColumnWalkAvx512();
bool HasColumnWalkAvx2();

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_COLUMN_WALK_H_
