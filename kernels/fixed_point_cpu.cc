#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/fixed_point.h"
#include "llmc/parallel.h"

namespace llmc::kernels {
namespace {

// Twice this still fits an int64_t.
constexpr double kLargest = 0x1p62;

// One row of a tile: totals += round(values * row_scale * col_scale).
struct RowConversion {
  float* values;            // [cols], becomes 0.
  const double* col_scale;  // [cols], powers of two.
  double row_scale;         // A power of two.
  int64_t cols;
  int64_t* totals;  // [cols]
};

void ConvertScalar(const RowConversion& row, int64_t first) {
  for (int64_t c = first; c < row.cols; ++c) {
    const double scaled = row.values[c] * (row.row_scale * row.col_scale[c]);
    const auto rounded =
        static_cast<uint64_t>(std::llrint(std::clamp(scaled, -kLargest, kLargest)));
    // Wraps as the vector path does, where saturated values meet.
    row.totals[c] = static_cast<int64_t>(static_cast<uint64_t>(row.totals[c]) + rounded);
    row.values[c] = 0;
  }
}

// GCC 12 takes the undefined operands inside its own intrinsics for a mistake.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

__attribute__((target("avx512f,avx512dq"))) void ConvertAvx512(const RowConversion& row) {
  const __m512d row_scale = _mm512_set1_pd(row.row_scale);
  const __m512d largest = _mm512_set1_pd(kLargest);
  const __m512d smallest = _mm512_set1_pd(-kLargest);
  int64_t c = 0;
  for (; c + 8 <= row.cols; c += 8) {
    const __m512d scale = _mm512_mul_pd(row_scale, _mm512_loadu_pd(row.col_scale + c));
    const __m512d value = _mm512_cvtps_pd(_mm256_loadu_ps(row.values + c));
    const __m512d scaled =
        _mm512_min_pd(_mm512_max_pd(_mm512_mul_pd(value, scale), smallest), largest);
    const __m512i total = _mm512_loadu_si512(row.totals + c);
    _mm512_storeu_si512(row.totals + c, _mm512_add_epi64(total, _mm512_cvtpd_epi64(scaled)));
    _mm256_storeu_ps(row.values + c, _mm256_setzero_ps());
  }
  ConvertScalar(row, c);
}

void ConvertRow(const RowConversion& row) {
  static const bool has_avx512 =
      __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq");
  has_avx512 ? ConvertAvx512(row) : ConvertScalar(row, 0);
}

using TileScales = std::array<double, Triangle::kTile>;

TileScales PowersOfTwo(std::span<const int16_t> exponents, int64_t first, int64_t count, int sign) {
  TileScales scales;
  for (int64_t i = 0; i < count; ++i) scales[i] = std::ldexp(1.0, sign * exponents[first + i]);
  return scales;
}

}  // namespace

int16_t HalfExponent(float value) {
  if (value == 0) return kZeroExponent;
  if (!(value > 0) || !std::isfinite(value)) return kNotFiniteExponent;
  int exponent = 0;
  std::frexp(value, &exponent);
  return static_cast<int16_t>((exponent + 1) >> 1);
}

void DiagonalExponents(const Triangle& triangle, const float* gram, std::span<int16_t> exponents) {
  for (int64_t i = 0; i < triangle.n(); ++i) {
    exponents[i] = HalfExponent(gram[triangle.offset(i, i)]);
  }
}

void AddToFixedPoint(const Triangle& triangle, const FixedPointScale& scale, float* gram,
                     int64_t* totals) {
  ParallelFor(triangle.num_tiles(), [&](int64_t t) {
    const TriangleTile tile = triangle.tile(t);
    const TileScales row_scale = PowersOfTwo(scale.exponents, tile.row, tile.rows, -1);
    const TileScales col_scale = PowersOfTwo(scale.exponents, tile.col, tile.cols, -1);
    const double whole = std::ldexp(1.0, scale.scale_bits);
    for (int64_t r = 0; r < tile.rows; ++r) {
      const int64_t offset = tile.offset + r * tile.cols;
      ConvertRow({.values = gram + offset,
                  .col_scale = col_scale.data(),
                  .row_scale = row_scale[r] * whole,
                  .cols = tile.cols,
                  .totals = totals + offset});
    }
  });
}

void ExpandFixedPoint(const Triangle& triangle, const FixedPointScale& scale, double factor,
                      const int64_t* totals, float* full) {
  const int64_t n = triangle.n();
  ParallelFor(triangle.num_tiles(), [&](int64_t t) {
    const TriangleTile tile = triangle.tile(t);
    const TileScales row_scale = PowersOfTwo(scale.exponents, tile.row, tile.rows, 1);
    const TileScales col_scale = PowersOfTwo(scale.exponents, tile.col, tile.cols, 1);
    const double whole = std::ldexp(factor, -scale.scale_bits);
    for (int64_t r = 0; r < tile.rows; ++r) {
      const int64_t* const from = totals + tile.offset + r * tile.cols;
      const int64_t first = tile.row == tile.col ? r : 0;
      for (int64_t c = first; c < tile.cols; ++c) {
        const double value = static_cast<double>(from[c]) * (row_scale[r] * col_scale[c]);
        const float result = static_cast<float>(value * whole);
        full[(tile.row + r) * n + tile.col + c] = result;
        full[(tile.col + c) * n + tile.row + r] = result;
      }
    }
  });
}

}  // namespace llmc::kernels
