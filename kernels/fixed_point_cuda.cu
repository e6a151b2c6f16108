#include <bit>
#include <cmath>

#include "kernels/cuda_queue.cuh"
#include "kernels/fixed_point.h"

namespace llmc::kernels {
namespace {

constexpr int64_t kTile = Triangle::kTile;

// 2^exponent, normal: -1022 <= exponent <= 1023.
__device__ double PowerOfTwo(int exponent) {
  return std::bit_cast<double>(static_cast<uint64_t>(exponent + 1023) << 52);
}

// HalfExponent of the CPU, from the bits.
__device__ int16_t HalfExponentOf(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) == 0) return kZeroExponent;
  if (bits >= 0x7f800000u) return kNotFiniteExponent;  // Also every negative number.
  // frexp's exponent, the least with value < 2^exponent; a subnormal number's is one less
  // for every leading zero of its fraction.
  int exponent = static_cast<int>(bits >> 23) - 126;
  if (bits < 0x00800000u) {
    exponent = -125;
    for (uint32_t fraction = bits; fraction < 0x00800000u; fraction <<= 1) --exponent;
  }
  return static_cast<int16_t>((exponent + 1) >> 1);
}

constexpr int kThreads = 256;
constexpr int kRowsPerBlock = 16;

__global__ void DiagonalExponentsKernel(Triangle triangle, const float* gram, int16_t* exponents) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < triangle.n()) exponents[i] = HalfExponentOf(gram[triangle.offset(i, i)]);
}

// Block (t, s): rows [16 s, 16 s + 16) of tile t, a thread for each column.
__global__ void AddToFixedPointKernel(Triangle triangle, DeviceFixedPointScale scale, float* gram,
                                      int64_t* totals) {
  constexpr double kLargest = 0x1p62;
  const TriangleTile tile = triangle.tile(blockIdx.x);
  const int64_t c = threadIdx.x;
  if (c >= tile.cols) return;
  const int col_exponent = scale.scale_bits - scale.exponents[tile.col + c];
  const int64_t first = static_cast<int64_t>(blockIdx.y) * kRowsPerBlock;
  const int64_t end = first + kRowsPerBlock < tile.rows ? first + kRowsPerBlock : tile.rows;
  for (int64_t r = first; r < end; ++r) {
    const int64_t i = tile.offset + r * tile.cols + c;
    double scaled = gram[i] * PowerOfTwo(col_exponent - scale.exponents[tile.row + r]);
    scaled = scaled > -kLargest ? scaled : -kLargest;
    scaled = scaled < kLargest ? scaled : kLargest;
    totals[i] = static_cast<int64_t>(static_cast<uint64_t>(totals[i]) +
                                     static_cast<uint64_t>(__double2ll_rn(scaled)));
    gram[i] = 0;
  }
}

constexpr int kSquare = 32;
constexpr int kSquareRows = 8;  // Rows that a block handles at once.

struct ExpandShape {
  double whole;  // factor * 2^-scale_bits
  const int16_t* exponents;
  const int64_t* totals;
  float* full;
};

// Block (t, i, j): square (i, j) of tile t, written as it lies and transposed.
__global__ void ExpandFixedPointKernel(Triangle triangle, ExpandShape shape) {
  __shared__ float square[kSquare][kSquare + 1];
  const TriangleTile tile = triangle.tile(blockIdx.x);
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * kSquare;
  const int64_t first_col = static_cast<int64_t>(blockIdx.z) * kSquare;
  const bool is_diagonal = tile.row == tile.col;
  // Uniform in the block, so that all of it meets the barrier or none.
  if (first_row >= tile.rows || first_col >= tile.cols || (is_diagonal && first_col < first_row)) {
    return;
  }
  const int64_t n = triangle.n();
  const int64_t c = first_col + threadIdx.x;
  for (int i = threadIdx.y; i < kSquare; i += kSquareRows) {
    const int64_t r = first_row + i;
    if (r >= tile.rows || c >= tile.cols || (is_diagonal && c < r)) continue;
    const int exponent = shape.exponents[tile.row + r] + shape.exponents[tile.col + c];
    const double value =
        static_cast<double>(shape.totals[tile.offset + r * tile.cols + c]) * PowerOfTwo(exponent);
    const float result = static_cast<float>(value * shape.whole);
    shape.full[(tile.row + r) * n + tile.col + c] = result;
    square[i][threadIdx.x] = result;
  }
  __syncthreads();
  const int64_t r = first_row + threadIdx.x;
  for (int i = threadIdx.y; i < kSquare; i += kSquareRows) {
    const int64_t col = first_col + i;
    if (r >= tile.rows || col >= tile.cols || (is_diagonal && col < r)) continue;
    shape.full[(tile.col + col) * n + tile.row + r] = square[threadIdx.x][i];
  }
}

}  // namespace

absl::Status DiagonalExponents(const Triangle& triangle, const float* gram, int16_t* exponents,
                               DeviceQueue& queue) {
  return Launch(queue, {NumBlocks(triangle.n(), kThreads), kThreads}, DiagonalExponentsKernel,
                triangle, gram, exponents);
}

absl::Status AddToFixedPoint(const Triangle& triangle, const DeviceFixedPointScale& scale,
                             float* gram, int64_t* totals, DeviceQueue& queue) {
  static_assert(kThreads == kTile);
  const dim3 grid(static_cast<unsigned>(triangle.num_tiles()), kTile / kRowsPerBlock);
  return Launch(queue, {grid, kThreads}, AddToFixedPointKernel, triangle, scale, gram, totals);
}

absl::Status ExpandFixedPoint(const Triangle& triangle, const DeviceFixedPointScale& scale,
                              const ExpandCall& call, DeviceQueue& queue) {
  const ExpandShape shape{std::ldexp(call.factor, -scale.scale_bits), scale.exponents, call.totals,
                          call.full};
  const dim3 grid(static_cast<unsigned>(triangle.num_tiles()), kTile / kSquare, kTile / kSquare);
  return Launch(queue, {grid, dim3(kSquare, kSquareRows)}, ExpandFixedPointKernel, triangle, shape);
}

}  // namespace llmc::kernels
