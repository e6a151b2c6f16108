#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/gram_tile.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512bf16")
#include "kernels/gram_tile_loops.h"

namespace llmc::kernels {
namespace {

struct Bf16Dot {
  static inline __m512 Add(__m512 sum, __m512i a, __m512i b) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
};

}  // namespace

void AddGramTileBf16Dot(const GramTile& tile) { AddTile<Bf16Dot>(tile); }

}  // namespace llmc::kernels
#pragma GCC pop_options

namespace llmc::kernels {

bool HasGramTileBf16Dot() { return __builtin_cpu_supports("avx512bf16"); }

}  // namespace llmc::kernels
