#include <immintrin.h>

#include <bit>
#include <cstdint>

#include "kernels/gptq_rows.h"
#include "kernels/prune_rows.h"
#include "kernels/round_to_grid.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma")
#include "kernels/gptq_rows_loops.h"
#include "kernels/prune_rows_loops.h"

namespace llmc::kernels {
namespace {

struct Avx2Vector {
  using Type = __m256;
  static constexpr int kLanes = 8;
  static constexpr int kMaxVectors = 2;  // 12 of 16 registers hold sums.
  static Type Load(const float* from) { return _mm256_loadu_ps(from); }
  static Type Broadcast(float value) { return _mm256_set1_ps(value); }
  static void Store(float* to, Type value) { _mm256_storeu_ps(to, value); }
  static Type NegativeMultiplyAdd(Type a, Type b, Type c) { return _mm256_fnmadd_ps(a, b, c); }
};

}  // namespace

void SolveGptqRowsAvx2(const GptqRows& rows) { SolveRows<Avx2Vector>(rows); }

void PruneRowsAvx2(const PruneRows& rows) { PruneBlocks<Avx2Vector>(rows); }

}  // namespace llmc::kernels
#pragma GCC pop_options

namespace llmc::kernels {

bool HasColumnWalkAvx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

}  // namespace llmc::kernels
