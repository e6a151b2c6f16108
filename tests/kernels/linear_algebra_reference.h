// Double-precision references for the GPTQ kernels, written from the paper.
#ifndef LLMC_TESTS_KERNELS_LINEAR_ALGEBRA_REFERENCE_H_
#define LLMC_TESTS_KERNELS_LINEAR_ALGEBRA_REFERENCE_H_

#include <cstdint>
#include <vector>

#include "llmc/parallel.h"
#include "llmc/tensor.h"

namespace llmc::kernels {

// [n, n] or [rows, n], row-major.
using Doubles = std::vector<double>;

// Uniform in [-1, 1].
HostTensor RandomFloats(int64_t rows, int64_t cols, uint64_t seed);

// Tokens whose features are correlated, with very different variances.
HostTensor CorrelatedTokens(int64_t tokens, int64_t features, uint64_t seed);

// The same numbers rounded to BF16, as BF16 and as F32.
HostTensor ToBf16(const HostTensor& from);
HostTensor ToFloat(const HostTensor& bf16);

// X^T X in double. [features, features]
Doubles ReferenceGram(const HostTensor& x);
HostTensor ToFloatMatrix(const Doubles& from, int64_t n);

// Largest error of the upper triangle of `gram`, in the layout of Triangle(n), relative to
// sqrt(H_ii H_jj); NaN when one is.
double LargestGramError(const std::vector<float>& gram, const Doubles& expected, int64_t n);

// Upper U with U^T U = (H + lambda I)^-1, all in double; H is F32 [n, n].
Doubles ReferenceInverseFactor(const HostTensor& hessian, double lambda);

// `unit` of ParallelFor under a number of threads; restores the number.
template <typename Function>
auto WithThreads(int num_threads, const Function& function) {
  const int before = NumThreads();
  SetNumThreads(num_threads);
  auto result = function();
  SetNumThreads(before);
  return result;
}

}  // namespace llmc::kernels

#endif  // LLMC_TESTS_KERNELS_LINEAR_ALGEBRA_REFERENCE_H_
