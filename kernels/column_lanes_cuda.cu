#include <cuda_pipeline.h>

#include "kernels/column_lanes.cuh"

namespace llmc::kernels {
namespace {

constexpr int kSquare = 32;
constexpr int kSquareRows = 8;

// Block (i, j): columns [32 i, ...) of rows [32 j, ...).
__global__ void LoadLanesKernel(DeviceRows rows, LoadedLanes out, int64_t ld) {
  __shared__ float square[kSquare][kSquare + 1];
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * kSquare;
  const int64_t first_col = static_cast<int64_t>(blockIdx.x) * kSquare;
  const int64_t from_col = first_col + threadIdx.x;
  for (int i = threadIdx.y; i < kSquare; i += kSquareRows) {
    const int64_t row = first_row + i;
    float value = 0;
    if (row < rows.rows && from_col < rows.in_features) {
      value = rows.weight[row * rows.in_features + from_col];
      if (rows.minus != nullptr) value -= rows.minus[row * rows.in_features + from_col];
    }
    square[i][threadIdx.x] = value;
  }
  __syncthreads();
  for (int i = threadIdx.y; i < kSquare; i += kSquareRows) {
    const int64_t col = first_col + i;
    if (col >= rows.in_features) break;  // The same for a whole warp.
    const int64_t to = rows.position != nullptr ? rows.position[col] : col;
    const float value = square[threadIdx.x][i];
    out.lanes[to * ld + first_row + threadIdx.x] = value;
    if (out.zeros == nullptr) continue;
    const unsigned zeros = __ballot_sync(~0u, value == 0);
    if (threadIdx.x == 0) out.zeros[to * (ld / kWarp) + blockIdx.y] = zeros;
  }
}

constexpr int kStoreColumns = 64;
constexpr int kStoreThreads = 256;

// Block b: rows [32 b, 32 b + 32), all columns from the left, so that one thread adds up
// the squares of a row in column order.
__global__ void StoreLanesKernel(const float* lanes, DeviceRows rows, int64_t ld, double* change) {
  __shared__ float after[kStoreColumns][kWarp + 1];
  __shared__ float before[kStoreColumns][kWarp + 1];
  const int lane = threadIdx.x % kWarp;
  const int warp = threadIdx.x / kWarp;
  constexpr int kWarps = kStoreThreads / kWarp;
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kWarp;
  double sum = 0;
  for (int64_t first = 0; first < rows.in_features; first += kStoreColumns) {
    const int64_t left = rows.in_features - first;
    const int columns = left < kStoreColumns ? static_cast<int>(left) : kStoreColumns;
    __syncthreads();  // The sums of the columns before are taken.
    for (int c = warp; c < columns; c += kWarps) {
      const int64_t from = rows.position != nullptr ? rows.position[first + c] : first + c;
      after[c][lane] = lanes[from * ld + first_row + lane];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < kWarp * kStoreColumns; i += kStoreThreads) {
      const int r = i / kStoreColumns;
      const int c = i % kStoreColumns;
      if (first_row + r >= rows.rows || c >= columns) continue;
      float* const weight = rows.weight + (first_row + r) * rows.in_features + first + c;
      before[c][r] = *weight;
      *weight = after[c][r];
    }
    __syncthreads();
    if (warp != 0 || first_row + lane >= rows.rows) continue;
    for (int c = 0; c < columns; ++c) {
      const double difference =
          static_cast<double>(before[c][lane]) - static_cast<double>(after[c][lane]);
      sum += difference * difference;
    }
  }
  if (warp == 0 && first_row + lane < rows.rows) change[first_row + lane] = sum;
}

// One block updates a tile of 128 columns and 128 lanes; a thread 8 columns of 8 lanes in
// registers. Errors and factor come through shared memory in slices of 16 errors, two
// slices ahead.
constexpr int kTile = 128;
constexpr int kSlice = 16;
constexpr int kStages = 3;
constexpr int kUpdateThreads = 256;

struct Slice {
  float factor[kSlice][kTile];
  float error[kSlice][kTile];
};

// kCount floats (1 or 4), of which `valid` exist; 0 beyond them.
template <int kCount>
__device__ void CopyAsync(float* to, const float* from, int valid) {
  if (valid >= kCount) {
    __pipeline_memcpy_async(to, from, kCount * sizeof(float));
    return;
  }
  // An edge: at once.
#pragma unroll
  for (int i = 0; i < kCount; ++i) to[i] = i < valid ? from[i] : 0.0f;
}

// One operand's part of a slice: rows of `length` floats, `stride` apart, from column
// `first` on. A thread copies the same kCount columns of every kRowsAtOnce-th row.
template <int kCount>
class OperandCopy {
 public:
  __device__ OperandCopy(const float* matrix, int64_t stride, int64_t length, int first)
      : row_(threadIdx.x / kPerRow),
        column_(static_cast<int>(threadIdx.x) % kPerRow * kCount),
        valid_(static_cast<int>(length) - first - column_),
        from_(matrix + row_ * stride + first + column_),
        stride_(stride) {}

  // Copies the next slice, of which `rows` exist.
  __device__ void Next(int rows, float (*to)[kTile]) {
#pragma unroll
    for (int k = 0; k < kSlice; k += kRowsAtOnce) {
      CopyAsync<kCount>(&to[row_ + k][column_], from_, row_ + k < rows ? valid_ : 0);
      from_ += kRowsAtOnce * stride_;
    }
  }

 private:
  static constexpr int kPerRow = kTile / kCount;
  static constexpr int kRowsAtOnce = kUpdateThreads / kPerRow;
  const int row_;
  const int column_;
  const int valid_;
  const float* from_;
  const int64_t stride_;
};

// Where the 8 x 8 numbers of a thread lie in the tile: two runs of 4 each way, so that a
// warp's reads of shared memory are 16 bytes apart and meet no bank twice.
struct ThreadTile {
  int column;  // Runs begin here and 16 further.
  int lane;    // Runs begin here and 32 further.
};

__device__ ThreadTile TileOfThread() {
  const int in_warp = threadIdx.x % kWarp;
  const int warp = threadIdx.x / kWarp;
  return {warp / 2 * 32 + in_warp / 8 * 4, warp % 2 * 64 + in_warp % 8 * 4};
}
__device__ int ColumnAt(const ThreadTile& t, int i) { return t.column + i / 4 * 16 + i % 4; }

// Loads or stores the thread's numbers.
template <bool kLoad>
__device__ void MoveSums(const LaneUpdate& u, int first_column, int first_lane, const ThreadTile& t,
                         float (&sum)[8][8]) {
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int column = first_column + ColumnAt(t, i);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int lane = first_lane + t.lane + half * 32;
      if (column >= u.columns || lane >= u.ld) continue;
      float4* const at = reinterpret_cast<float4*>(u.lanes + column * u.ld + lane);
      float* const s = &sum[i][half * 4];
      if constexpr (kLoad) {
        const float4 v = *at;
        s[0] = v.x;
        s[1] = v.y;
        s[2] = v.z;
        s[3] = v.w;
      } else {
        *at = make_float4(s[0], s[1], s[2], s[3]);
      }
    }
  }
}

__device__ void AddSlice(const Slice& slice, const ThreadTile& t, float (&sum)[8][8]) {
#pragma unroll
  for (int k = 0; k < kSlice; ++k) {
    float factor[8];
    float error[8];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float4 f = *reinterpret_cast<const float4*>(&slice.factor[k][t.column + half * 16]);
      const float4 e = *reinterpret_cast<const float4*>(&slice.error[k][t.lane + half * 32]);
      factor[half * 4] = f.x;
      factor[half * 4 + 1] = f.y;
      factor[half * 4 + 2] = f.z;
      factor[half * 4 + 3] = f.w;
      error[half * 4] = e.x;
      error[half * 4 + 1] = e.y;
      error[half * 4 + 2] = e.z;
      error[half * 4 + 3] = e.w;
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
#pragma unroll
      for (int j = 0; j < 8; ++j) sum[i][j] = __fmaf_rn(-error[j], factor[i], sum[i][j]);
    }
  }
}

template <int kCount>
__global__ void __launch_bounds__(kUpdateThreads, 2) UpdateLanesKernel(LaneUpdate u) {
  __shared__ __align__(16) Slice slices[kStages];
  const int first_column = static_cast<int>(blockIdx.x) * kTile;
  const int first_lane = static_cast<int>(blockIdx.y) * kTile;
  const int num_slices = static_cast<int>((u.num_errors + kSlice - 1) / kSlice);
  OperandCopy<kCount> factor(u.factor, u.factor_stride, u.columns, first_column);
  OperandCopy<4> error(u.error, u.ld, u.ld, first_lane);
  const auto load = [&](int s) {
    if (s < num_slices) {
      const int rows = static_cast<int>(u.num_errors) - s * kSlice;
      factor.Next(rows, slices[s % kStages].factor);
      error.Next(rows, slices[s % kStages].error);
    }
    __pipeline_commit();
  };
  for (int s = 0; s < kStages - 1; ++s) load(s);
  const ThreadTile t = TileOfThread();
  float sum[8][8] = {};
  MoveSums<true>(u, first_column, first_lane, t, sum);
  for (int s = 0; s < num_slices; ++s) {
    __pipeline_wait_prior(kStages - 2);
    __syncthreads();  // The slice is there, and the one before it may be overwritten.
    load(s + kStages - 1);
    AddSlice(slices[s % kStages], t, sum);
  }
  MoveSums<false>(u, first_column, first_lane, t, sum);
}

constexpr int kOrderThreads = 256;

__global__ void InvertOrderKernel(const int32_t* order, int64_t n, int32_t* positions) {
  const int64_t p = static_cast<int64_t>(blockIdx.x) * kOrderThreads + threadIdx.x;
  if (p < n) positions[order[p]] = static_cast<int32_t>(p);
}

}  // namespace

absl::Status LoadLanes(const DeviceRows& rows, const LoadedLanes& out, DeviceQueue& queue) {
  const int64_t ld = LanesOf(rows.rows);
  const dim3 grid(NumBlocks(rows.in_features, kSquare), NumBlocks(ld, kSquare));
  return Launch(queue, {grid, dim3(kSquare, kSquareRows)}, LoadLanesKernel, rows, out, ld);
}

absl::Status StoreLanes(const float* lanes, const DeviceRows& rows, double* change,
                        DeviceQueue& queue) {
  const int64_t ld = LanesOf(rows.rows);
  return Launch(queue, {NumBlocks(ld, kWarp), kStoreThreads}, StoreLanesKernel, lanes, rows, ld,
                change);
}

absl::Status UpdateLanes(const LaneUpdate& update, DeviceQueue& queue) {
  const dim3 grid(NumBlocks(update.columns, kTile), NumBlocks(update.ld, kTile));
  const bool is_aligned =
      update.factor_stride % 4 == 0 && reinterpret_cast<uintptr_t>(update.factor) % 16 == 0;
  return is_aligned ? Launch(queue, {grid, kUpdateThreads}, UpdateLanesKernel<4>, update)
                    : Launch(queue, {grid, kUpdateThreads}, UpdateLanesKernel<1>, update);
}

absl::Status InvertOrder(const int32_t* order, int64_t n, int32_t* positions, DeviceQueue& queue) {
  return Launch(queue, {NumBlocks(n, kOrderThreads), kOrderThreads}, InvertOrderKernel, order, n,
                positions);
}

}  // namespace llmc::kernels
