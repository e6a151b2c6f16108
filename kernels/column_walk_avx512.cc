#include <immintrin.h>

#include <bit>
#include <cstdint>

#include "kernels/gptq_rows.h"
#include "kernels/prune_rows.h"
#include "kernels/round_to_grid.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,fma")
#include "kernels/gptq_rows_loops.h"
#include "kernels/prune_rows_loops.h"

namespace llmc::kernels {
namespace {

struct Avx512Vector {
  using Type = __m512;
  static constexpr int kLanes = 16;
  static constexpr int kMaxVectors = 4;  // 24 of 32 registers hold sums.
  static Type Load(const float* from) { return _mm512_loadu_ps(from); }
  static Type Broadcast(float value) { return _mm512_set1_ps(value); }
  static void Store(float* to, Type value) { _mm512_storeu_ps(to, value); }
  static Type NegativeMultiplyAdd(Type a, Type b, Type c) { return _mm512_fnmadd_ps(a, b, c); }
};

}  // namespace

void SolveGptqRowsAvx512(const GptqRows& rows) { SolveRows<Avx512Vector>(rows); }

void PruneRowsAvx512(const PruneRows& rows) { PruneBlocks<Avx512Vector>(rows); }

}  // namespace llmc::kernels
#pragma GCC pop_options

namespace llmc::kernels {

bool HasColumnWalkAvx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

}  // namespace llmc::kernels
