#include "linear_algebra_reference.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "kernels/triangle.h"
#include "llmc/float_formats.h"

namespace llmc::kernels {

HostTensor RandomFloats(int64_t rows, int64_t cols, uint64_t seed) {
  HostTensor tensor(DType::kF32, {rows, cols});
  std::mt19937_64 random(seed);
  for (int64_t i = 0; i < rows * cols; ++i) {
    tensor.as<float>()[i] = static_cast<float>(static_cast<int64_t>(random() >> 40)) / 0x1p23f - 1;
  }
  return tensor;
}

HostTensor CorrelatedTokens(int64_t tokens, int64_t features, uint64_t seed) {
  HostTensor x = RandomFloats(tokens, features, seed);
  const HostTensor size = RandomFloats(1, features, seed + 1);
  for (int64_t t = 0; t < tokens; ++t) {
    float* const row = x.as<float>() + t * features;
    for (int64_t f = 1; f < features; ++f) row[f] = 0.3f * row[f] + 0.7f * row[f - 1];
    for (int64_t f = 0; f < features; ++f) row[f] *= std::exp2(3 * size.as<float>()[f]);
  }
  return x;
}

HostTensor ToBf16(const HostTensor& from) {
  HostTensor to(DType::kBF16, from.shape());
  for (int64_t i = 0; i < from.num_elements(); ++i) {
    to.as<uint16_t>()[i] = FloatToBf16(from.as<float>()[i]);
  }
  return to;
}

HostTensor ToFloat(const HostTensor& bf16) {
  HostTensor to(DType::kF32, bf16.shape());
  for (int64_t i = 0; i < bf16.num_elements(); ++i) {
    to.as<float>()[i] = Bf16ToFloat(bf16.as<uint16_t>()[i]);
  }
  return to;
}

Doubles ReferenceGram(const HostTensor& x) {
  const int64_t n = x.dim(1);
  Doubles gram(n * n, 0.0);
  for (int64_t t = 0; t < x.dim(0); ++t) {
    const float* const row = x.as<float>() + t * n;
    for (int64_t i = 0; i < n; ++i) {
      const double value = row[i];
      for (int64_t j = 0; j < n; ++j) gram[i * n + j] += value * row[j];
    }
  }
  return gram;
}

HostTensor ToFloatMatrix(const Doubles& from, int64_t n) {
  HostTensor to(DType::kF32, {static_cast<int64_t>(from.size()) / n, n});
  for (size_t i = 0; i < from.size(); ++i) to.as<float>()[i] = static_cast<float>(from[i]);
  return to;
}

double LargestGramError(const std::vector<float>& gram, const Doubles& expected, int64_t n) {
  const Triangle triangle(n);
  double largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = i; j < n; ++j) {
      const double scale = std::sqrt(expected[i * (n + 1)] * expected[j * (n + 1)]);
      const double error = gram[triangle.offset(i, j)] - expected[i * n + j];
      largest = std::max(largest, std::abs(error) / scale);
      if (std::isnan(error)) return error;
    }
  }
  return largest;
}

namespace {

// Lower L with L L^T = a.
Doubles LowerCholesky(const Doubles& a, int64_t n) {
  Doubles l(n * n, 0.0);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      double sum = a[i * n + j];
      for (int64_t k = 0; k < j; ++k) sum -= l[i * n + k] * l[j * n + k];
      l[i * n + j] = i == j ? std::sqrt(sum) : sum / l[j * n + j];
    }
  }
  return l;
}

// (L L^T)^-1, by forward and backward substitution of unit vectors.
Doubles InverseFromCholesky(const Doubles& l, int64_t n) {
  Doubles inverse(n * n, 0.0);
  for (int64_t c = 0; c < n; ++c) {
    Doubles x(n, 0.0);
    for (int64_t i = c; i < n; ++i) {
      double sum = i == c ? 1.0 : 0.0;
      for (int64_t k = c; k < i; ++k) sum -= l[i * n + k] * x[k];
      x[i] = sum / l[i * n + i];
    }
    for (int64_t i = n - 1; i >= 0; --i) {
      double sum = x[i];
      for (int64_t k = i + 1; k < n; ++k) sum -= l[k * n + i] * x[k];
      x[i] = sum / l[i * n + i];
    }
    for (int64_t i = 0; i < n; ++i) inverse[i * n + c] = x[i];
  }
  return inverse;
}

}  // namespace

Doubles ReferenceInverseFactor(const HostTensor& hessian, double lambda) {
  const int64_t n = hessian.dim(0);
  Doubles h(hessian.as<float>(), hessian.as<float>() + n * n);
  for (int64_t i = 0; i < n; ++i) h[i * (n + 1)] += lambda;
  const Doubles l = LowerCholesky(InverseFromCholesky(LowerCholesky(h, n), n), n);
  Doubles upper(n * n);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) upper[i * n + j] = l[j * n + i];
  }
  return upper;
}

}  // namespace llmc::kernels
