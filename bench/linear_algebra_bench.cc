// Speed of the GPTQ linear algebra next to plain sgemm, on the threads that
// LLMC_BENCH_THREADS says (default 1). GFLOP/s are for each core in use, by CPU
// time; a multiply-add is two.
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/cholesky.h"
#include "kernels/fixed_point.h"
#include "kernels/gemm.h"
#include "kernels/gptq_solve.h"
#include "kernels/hessian.h"
#include "llmc/float_formats.h"
#include "llmc/parallel.h"
#include "llmc/tensor.h"

namespace llmc::kernels {
namespace {

const bool kThreadsAreSet = [] {
  const char* const text = std::getenv("LLMC_BENCH_THREADS");
  SetNumThreads(text ? std::atoi(text) : 1);
  return true;
}();

HostTensor Random(int64_t rows, int64_t cols) {
  HostTensor tensor(DType::kF32, {rows, cols});
  std::minstd_rand random(7);
  for (int64_t i = 0; i < rows * cols; ++i) {
    tensor.as<float>()[i] = static_cast<float>(random() % 2001) / 1000.0f - 1.0f;
  }
  return tensor;
}

HostTensor ToBf16(const HostTensor& from) {
  HostTensor to(DType::kBF16, from.shape());
  for (int64_t i = 0; i < from.num_elements(); ++i) {
    to.as<uint16_t>()[i] = FloatToBf16(from.as<float>()[i]);
  }
  return to;
}

void ReportFlops(benchmark::State& state, double flops) {
  state.counters["GFLOP/s"] = benchmark::Counter(
      flops * 1e-9 * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

void BM_Sgemm(benchmark::State& state) {
  const int64_t n = state.range(0);
  const HostTensor a = Random(n, n);
  HostTensor c = Random(n, n);
  const Matrix<const float> factor{a.as<float>(), n, n, n};
  for (auto _ : state) Gemm(factor, factor, Matrix<float>{c.as<float>(), n, n, n});
  ReportFlops(state, 2.0 * n * n * n);
}
BENCHMARK(BM_Sgemm)->Arg(1024)->Arg(2048)->Unit(benchmark::kMillisecond)->MeasureProcessCPUTime();

// Counts the triangle only: features * (features + 1) * tokens.
void BM_AddGram(benchmark::State& state) {
  const int64_t features = state.range(0);
  const int64_t tokens = 2048;
  const auto method = static_cast<GramMethod>(state.range(1));
  HostTensor x = Random(tokens, features);
  if (state.range(2) != 0) x = ToBf16(x);
  std::vector<float> gram(Triangle(features).num_elements());
  const TokenRows rows{x.bytes().data(), x.dtype(), tokens, features, features};
  for (auto _ : state) {
    if (!AddGram(rows, gram, method).ok()) return state.SkipWithError("not on this CPU");
  }
  ReportFlops(state, static_cast<double>(features) * (features + 1) * tokens);
}
BENCHMARK(BM_AddGram)
    ->ArgNames({"features", "method", "bf16"})
    ->ArgsProduct({{1024, 4096}, {1}, {1}})
    ->ArgsProduct({{1024, 4096}, {2, 3}, {0}})
    ->Unit(benchmark::kMillisecond)
    ->MeasureProcessCPUTime();

void BM_AddToFixedPoint(benchmark::State& state) {
  const int64_t n = state.range(0);
  const Triangle triangle(n);
  std::vector<float> gram(triangle.num_elements(), 1.0f);
  std::vector<int64_t> totals(triangle.num_elements());
  const std::vector<int16_t> exponents(n, 3);
  for (auto _ : state) AddToFixedPoint(triangle, {40, exponents}, gram.data(), totals.data());
  state.SetBytesProcessed(state.iterations() * triangle.num_elements() * 24);
}
BENCHMARK(BM_AddToFixedPoint)->Arg(4096)->Unit(benchmark::kMillisecond)->MeasureProcessCPUTime();

HostTensor SampleHessian(int64_t n) {
  const HostTensor x = Random(2 * n, n);
  HostTensor hessian(DType::kF32, {n, n});
  const Matrix<const float> rows{x.as<float>(), 2 * n, n, n};
  Gemm(rows, rows, Matrix<float>{hessian.as<float>(), n, n, n}, {.transposed = Transposed::kFirst});
  return hessian;
}

void BM_FactorInverseHessian(benchmark::State& state) {
  const int64_t n = state.range(0);
  const HostTensor hessian = SampleHessian(n);
  const std::vector<int32_t> order = OrderByDiagonal(hessian);
  for (auto _ : state) {
    if (!FactorInverseHessian(hessian, order).ok()) return state.SkipWithError("singular");
  }
  ReportFlops(state, 2.0 / 3.0 * n * n * n);
}
BENCHMARK(BM_FactorInverseHessian)
    ->Arg(1024)
    ->Arg(4096)
    ->Unit(benchmark::kMillisecond)
    ->MeasureProcessCPUTime();

void BM_GptqSolve(benchmark::State& state) {
  const int64_t n = state.range(0);
  const int64_t rows = state.range(1);
  const HostTensor hessian = SampleHessian(n);
  const std::vector<int32_t> order = OrderByDiagonal(hessian);
  const absl::StatusOr<InverseFactor> factor = FactorInverseHessian(hessian, order);
  const HostTensor dense = Random(rows, n);
  HostTensor weight(DType::kF32, {rows, n});
  const std::vector<float> scale(rows * (n / 128), 2.0f / 15);
  GptqProblem problem;
  problem.rows = rows;
  problem.in_features = n;
  problem.weight = weight.as<float>();
  problem.inverse_factor = factor->upper.as<float>();
  problem.order = order.data();
  problem.grid.scale = scale.data();
  problem.grid.num_groups = n / 128;
  problem.grid.group_size = 128;
  problem.grid.scale_dtype = DType::kBF16;
  for (auto _ : state) {
    std::memcpy(weight.bytes().data(), dense.bytes().data(), dense.bytes().size());
    if (!GptqSolve(problem).ok()) return state.SkipWithError("failed");
  }
  ReportFlops(state, static_cast<double>(rows) * n * n);
}
BENCHMARK(BM_GptqSolve)
    ->ArgNames({"in", "out"})
    ->Args({1024, 1024})
    ->Args({4096, 1024})
    ->Args({4096, 64})
    ->Unit(benchmark::kMillisecond)
    ->MeasureProcessCPUTime();

}  // namespace
}  // namespace llmc::kernels
