// The walk over the columns of one block, around a rule that fixes a column: GPTQ rounds
// it, SparseGPT prunes it. Updates and their order are those of
// kernels/column_walk_loops.h, so are the bits.
//
// A thread block has 32 lanes and 4 warps; the block of U and the lanes' weights are in
// shared memory. The first warp fixes columns one by one within a step of some columns;
// all warps then bring the columns beyond the step up to date.
//
// A Rule is passed by value and has:
//   Lane                   what it keeps for a lane, made by MakeLane(row)
//   step()                 columns fixed one by one
//   Begin(context, lane)   before a column; its weight and those of its step are current
//   Fix(context, w, lane)  what the weight w becomes
#ifndef LLMC_KERNELS_COLUMN_BLOCK_CUH_
#define LLMC_KERNELS_COLUMN_BLOCK_CUH_

#include <cstdint>

#include "kernels/column_lanes.cuh"
#include "kernels/cuda_queue.cuh"

namespace llmc::kernels {

// Most columns of a block.
inline constexpr int kBlockColumns = 128;
inline constexpr int kBlockWarps = 4;

// Columns [begin, begin + width) of all lanes.
struct ColumnBlock {
  const float* upper = nullptr;  // U, f32 [n, n].
  int64_t n = 0;
  int64_t begin = 0;
  int width = 0;           // 1..kBlockColumns.
  int loss_columns = 0;    // Squares are added in float32 over so many columns; from column 0.
  float* lanes = nullptr;  // In/out, f32 [n, ld].
  float* error = nullptr;  // Out, f32 [width, ld].
  double* loss = nullptr;  // f64 [rows]: += error^2 / 2.
  int64_t rows = 0;
  int64_t ld = 0;
};

// What a rule sees of a column.
struct ColumnContext {
  int64_t column = 0;              // In visiting order.
  int index = 0;                   // In the block.
  int lane = 0;                    // Of 32.
  int64_t row = 0;                 // Of the lanes.
  const float* weights = nullptr;  // Shared, [block columns, 32]: current from `index` on.
  const float* upper = nullptr;    // Shared, [block columns, kBlockColumns].
};

// Shared memory of a block: U's and the weights.
inline constexpr size_t kColumnBlockBytes = sizeof(float) * kBlockColumns * (kBlockColumns + kWarp);

__device__ inline void LoadBlock(const ColumnBlock& b, float* upper, float* weights) {
  const int lane = threadIdx.x % kWarp;
  const int warp = threadIdx.x / kWarp;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarp + lane;
  for (int i = warp; i < b.width; i += kBlockWarps) {
    const float* const from = b.upper + (b.begin + i) * b.n + b.begin;
    for (int c = lane; c < kBlockColumns; c += kWarp) {
      upper[i * kBlockColumns + c] = c >= i && c < b.width ? from[c] : 0.0f;
    }
  }
  for (int c = warp; c < b.width; c += kBlockWarps) {
    weights[c * kWarp + lane] = b.lanes[(b.begin + c) * b.ld + row];
  }
}

// Columns [end, width) absorb the errors [first, end), which stand where their weights
// were.
__device__ inline void UpdateRest(const ColumnBlock& b, int first, int end, const float* upper,
                                  float* weights) {
  constexpr int kRun = 4;
  const int lane = threadIdx.x % kWarp;
  const int warp = threadIdx.x / kWarp;
  // Runs begin at multiples of 4, for 16-byte reads of U.
  for (int j = end / kRun * kRun + warp * kRun; j < b.width; j += kBlockWarps * kRun) {
    float sum[kRun];
#pragma unroll
    for (int c = 0; c < kRun; ++c) sum[c] = weights[(j + c) * kWarp + lane];
    for (int i = first; i < end; ++i) {
      const float error = weights[i * kWarp + lane];
      const float4 f = *reinterpret_cast<const float4*>(&upper[i * kBlockColumns + j]);
      sum[0] = __fmaf_rn(-error, f.x, sum[0]);
      sum[1] = __fmaf_rn(-error, f.y, sum[1]);
      sum[2] = __fmaf_rn(-error, f.z, sum[2]);
      sum[3] = __fmaf_rn(-error, f.w, sum[3]);
    }
#pragma unroll
    for (int c = 0; c < kRun; ++c) {
      if (j + c >= end && j + c < b.width) weights[(j + c) * kWarp + lane] = sum[c];
    }
  }
}

// What a lane adds up.
struct LaneLoss {
  float squares = 0;
  double loss = 0;
};

template <typename Rule>
__device__ void FixColumns(const ColumnBlock& b, const Rule& rule, int first, int end,
                           typename Rule::Lane& kept, LaneLoss& sums, float* upper,
                           float* weights) {
  ColumnContext context;
  context.lane = threadIdx.x % kWarp;
  context.row = static_cast<int64_t>(blockIdx.x) * kWarp + context.lane;
  context.weights = weights;
  context.upper = upper;
  for (int i = first; i < end; ++i) {
    context.index = i;
    context.column = b.begin + i;
    rule.Begin(context, kept);
    const float* const row = upper + i * kBlockColumns;
    const float w = weights[i * kWarp + context.lane];
    const float q = rule.Fix(context, w, kept);
    const float e = (w - q) / row[i];
    b.lanes[context.column * b.ld + context.row] = q;
    weights[i * kWarp + context.lane] = e;
    sums.squares += e * e;
    if ((context.column + 1) % b.loss_columns == 0 || context.column + 1 == b.n) {
      sums.loss += 0.5 * static_cast<double>(sums.squares);
      sums.squares = 0;
    }
    for (int j = i + 1; j < end; ++j) {
      float& later = weights[j * kWarp + context.lane];
      later = __fmaf_rn(-e, row[j], later);
    }
  }
}

template <typename Rule>
__global__ void __launch_bounds__(kBlockWarps* kWarp) SolveBlockKernel(ColumnBlock b, Rule rule) {
  float* const upper = DynamicShared<float>();
  float* const weights = upper + kBlockColumns * kBlockColumns;
  const int lane = threadIdx.x % kWarp;
  const int warp = threadIdx.x / kWarp;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarp + lane;
  LoadBlock(b, upper, weights);
  typename Rule::Lane kept = rule.MakeLane(row);
  LaneLoss sums;
  __syncthreads();
  const int step = rule.step();
  for (int first = 0; first < b.width; first += step) {
    const int end = first + step < b.width ? first + step : b.width;
    if (warp == 0) FixColumns(b, rule, first, end, kept, sums, upper, weights);
    __syncthreads();
    UpdateRest(b, first, end, upper, weights);
    __syncthreads();
  }
  for (int c = warp; c < b.width; c += kBlockWarps) {
    b.error[c * b.ld + row] = weights[c * kWarp + lane];
  }
  if (warp == 0 && row < b.rows) b.loss[row] += sums.loss;
}

// Solves one block and lets the columns beyond it absorb its errors.
template <typename Rule>
absl::Status SolveBlock(const ColumnBlock& b, const Rule& rule, DeviceQueue& queue) {
  LLMC_RETURN_IF_ERROR(Launch(queue,
                              {static_cast<unsigned>(b.ld / kWarp), kBlockWarps * kWarp,
                               kColumnBlockBytes + Rule::kSharedBytes},
                              SolveBlockKernel<Rule>, b, rule));
  const int64_t end = b.begin + b.width;
  if (end == b.n) return absl::OkStatus();
  return UpdateLanes({.factor = b.upper + b.begin * b.n + end,
                      .factor_stride = b.n,
                      .error = b.error,
                      .num_errors = b.width,
                      .lanes = b.lanes + end * b.ld,
                      .columns = b.n - end,
                      .ld = b.ld},
                     queue);
}

// The widest block that begins and ends where squares are added up.
inline int BlockWidth(int loss_columns) { return kBlockColumns / loss_columns * loss_columns; }

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_COLUMN_BLOCK_CUH_
