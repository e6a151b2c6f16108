// Dense products and factorizations of one tile, each on the calling thread.
//
// The library below (MKL, as LibTorch carries it) is held to one thread for the
// length of a call, so the bits of a result depend on the arguments and on their
// alignment modulo 64 bytes only. Parallelism is ParallelFor over tiles, above
// this file. All matrices are row-major.
#ifndef LLMC_KERNELS_GEMM_H_
#define LLMC_KERNELS_GEMM_H_

#include <cstdint>

namespace llmc::kernels {

// A matrix whose row r begins at data + r * stride (elements).
template <typename T>
struct Matrix {
  T* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  T* row(int64_t r) const { return data + r * stride; }
  T& at(int64_t r, int64_t c) const { return data[r * stride + c]; }
  Matrix block(int64_t r, int64_t c, int64_t num_rows, int64_t num_cols) const {
    return {data + r * stride + c, num_rows, num_cols, stride};
  }
  operator Matrix<const T>() const { return {data, rows, cols, stride}; }
};

// Which factor enters a product transposed.
enum class Transposed : uint8_t { kNone, kFirst, kSecond };

// c = alpha * A * B + beta * c, with A = a or a^T and B = b or b^T. Shapes
// agree; c overlaps neither factor. A dimension of 0 is allowed.
template <typename T>
struct GemmCall {
  Transposed transposed = Transposed::kNone;
  T alpha = 1;
  T beta = 0;
};
void Gemm(Matrix<const float> a, Matrix<const float> b, Matrix<float> c, GemmCall<float> call = {});
void Gemm(Matrix<const double> a, Matrix<const double> b, Matrix<double> c,
          GemmCall<double> call = {});

// Replaces the lower triangle of `a` by L with L L^T = a; what lies above the
// diagonal is neither read nor written. False, with `a` unspecified, when a
// pivot is not positive and finite.
bool CholeskyLower(Matrix<float> a);
bool CholeskyLower(Matrix<double> a);

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_GEMM_H_
