// Part of kernels/hessian: the loops of AddGramTile around one AVX-512 product.
// Included by the file of each product, after its target pragma, so that every
// function here is compiled for exactly the instructions of that file.
#ifndef LLMC_KERNELS_GRAM_TILE_LOOPS_H_
#define LLMC_KERNELS_GRAM_TILE_LOOPS_H_

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/gram_tile.h"

namespace llmc::kernels {
namespace {

// A micro-tile of kRows x kCols stays in registers over kStepsPerBlock steps, whose
// sum is then added: two short chains of roundings instead of a long one. Two
// column panels of a block stay in the first-level cache while the row panels of
// the tile pass by.
constexpr int64_t kRows = 8;
constexpr int64_t kCols = 2 * kPanel;
constexpr int64_t kStepsPerBlock = 256;

// Row lanes of consecutive steps are kPanel apart, as are column lanes; the second
// column panel begins `panel_lanes` after the first.
struct MicroTile {
  const uint32_t* rows;
  const uint32_t* cols;
  int64_t panel_lanes;
  int64_t num_steps;
  float* out;
  int64_t out_stride;
};

template <typename Product>
void AddMicroTile(const MicroTile& t) {
  __m512 sum[kRows][2];
#pragma GCC unroll 8
  for (int64_t r = 0; r < kRows; ++r) {
    sum[r][0] = sum[r][1] = _mm512_setzero_ps();
  }
  const uint32_t* rows = t.rows;
  const uint32_t* cols = t.cols;
  for (int64_t s = 0; s < t.num_steps; ++s, rows += kPanel, cols += kPanel) {
    const __m512i b0 = _mm512_loadu_si512(cols);
    const __m512i b1 = _mm512_loadu_si512(cols + t.panel_lanes);
#pragma GCC unroll 8
    for (int64_t r = 0; r < kRows; ++r) {
      const __m512i a = _mm512_set1_epi32(static_cast<int>(rows[r]));
      sum[r][0] = Product::Add(sum[r][0], a, b0);
      sum[r][1] = Product::Add(sum[r][1], a, b1);
    }
  }
#pragma GCC unroll 8
  for (int64_t r = 0; r < kRows; ++r) {
    float* const out = t.out + r * t.out_stride;
    _mm512_storeu_ps(out, _mm512_add_ps(_mm512_loadu_ps(out), sum[r][0]));
    _mm512_storeu_ps(out + kPanel, _mm512_add_ps(_mm512_loadu_ps(out + kPanel), sum[r][1]));
  }
}

// The same where the micro-tile reaches beyond the tile: by way of a copy.
template <typename Product>
void AddEdgeMicroTile(MicroTile t, int64_t rows, int64_t cols) {
  alignas(64) float out[kRows * kCols] = {};
  float* const real_out = t.out;
  for (int64_t r = 0; r < rows; ++r) {
    std::memcpy(out + r * kCols, real_out + r * t.out_stride, cols * sizeof(float));
  }
  const int64_t real_stride = t.out_stride;
  t.out = out;
  t.out_stride = kCols;
  AddMicroTile<Product>(t);
  for (int64_t r = 0; r < rows; ++r) {
    std::memcpy(real_out + r * real_stride, out + r * kCols, cols * sizeof(float));
  }
}

template <typename Product>
void AddMicroTiles(const GramTile& tile, int64_t first_step, int64_t num_steps, int64_t col) {
  const int64_t panel_lanes = kPanel * tile.num_steps;
  const bool has_second_panel = col + kPanel < tile.cols;
  MicroTile t;
  t.cols = tile.col_panels + col / kPanel * panel_lanes + first_step * kPanel;
  // Without a second panel the first is read twice and the result dropped.
  t.panel_lanes = has_second_panel ? panel_lanes : 0;
  t.num_steps = num_steps;
  t.out_stride = tile.cols;
  const int64_t cols = tile.cols - col < kCols ? tile.cols - col : kCols;
  for (int64_t row = 0; row < tile.rows; row += kRows) {
    if (tile.is_diagonal && row >= col + kCols) break;
    t.rows = tile.row_panels + row / kPanel * panel_lanes + first_step * kPanel + row % kPanel;
    t.out = tile.out + row * tile.cols + col;
    const int64_t rows = tile.rows - row < kRows ? tile.rows - row : kRows;
    if (rows == kRows && cols == kCols) {
      AddMicroTile<Product>(t);
    } else {
      AddEdgeMicroTile<Product>(t, rows, cols);
    }
  }
}

template <typename Product>
void AddTile(const GramTile& tile) {
  for (int64_t first = 0; first < tile.num_steps; first += kStepsPerBlock) {
    const int64_t rest = tile.num_steps - first;
    const int64_t num_steps = rest < kStepsPerBlock ? rest : kStepsPerBlock;
    for (int64_t col = 0; col < tile.cols; col += kCols) {
      AddMicroTiles<Product>(tile, first, num_steps, col);
    }
  }
}

}  // namespace
}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_GRAM_TILE_LOOPS_H_
