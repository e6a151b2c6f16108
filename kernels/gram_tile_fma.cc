#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/gram_tile.h"

#pragma GCC push_options
#pragma GCC target("avx512f")
#include "kernels/gram_tile_loops.h"

namespace llmc::kernels {
namespace {

struct Fma {
  static inline __m512 Add(__m512 sum, __m512i a, __m512i b) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
  }
};

}  // namespace

void AddGramTileFma(const GramTile& tile) { AddTile<Fma>(tile); }

}  // namespace llmc::kernels
#pragma GCC pop_options

namespace llmc::kernels {

bool HasGramTileFma() { return __builtin_cpu_supports("avx512f"); }

}  // namespace llmc::kernels
