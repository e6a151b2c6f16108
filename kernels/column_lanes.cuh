// Rows of a weight on a device as lanes: the transposed copy on which GPTQ and SparseGPT
// walk over columns, and the two steps of that walk which they share.
//
// Arrays are [columns in visiting order, ld]: lane l is row l, ld is rows rounded up to a
// warp; lanes beyond the rows are 0.
#ifndef LLMC_KERNELS_COLUMN_LANES_CUH_
#define LLMC_KERNELS_COLUMN_LANES_CUH_

#include <cstdint>

#include "kernels/cuda_queue.cuh"
#include "kernels/device_queue.h"
#include "llmc/status.h"

namespace llmc::kernels {

inline constexpr int kWarp = 32;

inline int64_t LanesOf(int64_t rows) { return (rows + kWarp - 1) / kWarp * kWarp; }

// Device, f32 [rows, in_features], dense and row-major.
struct DeviceRows {
  float* weight = nullptr;
  const float* minus = nullptr;  // Subtracted when loaded; null: nothing.
  int64_t rows = 0;
  int64_t in_features = 0;
  const int32_t* position = nullptr;  // Device, [in_features]: where a column goes; null: natural.
};

struct LoadedLanes {
  float* lanes = nullptr;     // f32 [in_features, ld].
  uint32_t* zeros = nullptr;  // [in_features, ld / 32]: bit l: lane is 0. Null: not wanted.
};

// Transposes rows into lanes.
absl::Status LoadLanes(const DeviceRows& rows, const LoadedLanes& out, DeviceQueue& queue);

// Writes lanes back over `rows.weight` and the squares of what changed to change, f64
// [rows]: sums in double, in the original column order.
absl::Status StoreLanes(const float* lanes, const DeviceRows& rows, double* change,
                        DeviceQueue& queue);

// lanes[c, l] -= sum_k error[k, l] * factor[k, c] for c < columns: for every lane single
// fused multiply-adds in the order of k, so its bits depend on neither tiles nor rows.
struct LaneUpdate {
  const float* factor = nullptr;  // [num_errors, >= columns], rows factor_stride apart.
  int64_t factor_stride = 0;
  const float* error = nullptr;  // [num_errors, ld]
  int64_t num_errors = 0;
  float* lanes = nullptr;  // [columns, ld]
  int64_t columns = 0;
  int64_t ld = 0;
};
absl::Status UpdateLanes(const LaneUpdate& update, DeviceQueue& queue);

// positions[order[p]] = p.
absl::Status InvertOrder(const int32_t* order, int64_t n, int32_t* positions, DeviceQueue& queue);

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_COLUMN_LANES_CUH_
