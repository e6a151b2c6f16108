#include <cmath>

#include "kernels/gemm.h"

// BLAS and LAPACK as libtorch_cpu.so exports them; every argument by reference.
extern "C" {
void sgemm_(const char* transa, const char* transb, const int* m, const int* n, const int* k,
            const float* alpha, const float* a, const int* lda, const float* b, const int* ldb,
            const float* beta, float* c, const int* ldc);
void dgemm_(const char* transa, const char* transb, const int* m, const int* n, const int* k,
            const double* alpha, const double* a, const int* lda, const double* b, const int* ldb,
            const double* beta, double* c, const int* ldc);
void spotrf_(const char* uplo, const int* n, float* a, const int* lda, int* error);
void dpotrf_(const char* uplo, const int* n, double* a, const int* lda, int* error);
int MKL_Set_Num_Threads_Local(int num_threads);
}

namespace llmc::kernels {
namespace {

// Holds MKL to the calling thread, and restores what the thread had before.
class OneThread {
 public:
  OneThread() : before_(MKL_Set_Num_Threads_Local(1)) {}
  ~OneThread() { MKL_Set_Num_Threads_Local(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  const int before_;
};

// BLAS is column-major: a row-major matrix is its transpose there, so products
// are formed with the factors exchanged and lower triangles are upper ones.
template <typename T>
void GemmImpl(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, GemmCall<T> call) {
  if (c.rows == 0 || c.cols == 0) return;
  const bool first = call.transposed == Transposed::kFirst;
  const bool second = call.transposed == Transposed::kSecond;
  const int m = static_cast<int>(c.cols);
  const int n = static_cast<int>(c.rows);
  const int k = static_cast<int>(first ? a.rows : a.cols);
  const int lda = static_cast<int>(a.stride);
  const int ldb = static_cast<int>(b.stride);
  const int ldc = static_cast<int>(c.stride);
  const char* const trans_b = second ? "T" : "N";
  const char* const trans_a = first ? "T" : "N";
  const OneThread one_thread;
  if constexpr (sizeof(T) == sizeof(float)) {
    sgemm_(trans_b, trans_a, &m, &n, &k, &call.alpha, b.data, &ldb, a.data, &lda, &call.beta,
           c.data, &ldc);
  } else {
    dgemm_(trans_b, trans_a, &m, &n, &k, &call.alpha, b.data, &ldb, a.data, &lda, &call.beta,
           c.data, &ldc);
  }
}

template <typename T>
bool CholeskyImpl(Matrix<T> a) {
  const int n = static_cast<int>(a.rows);
  const int lda = static_cast<int>(a.stride);
  int error = 0;
  {
    const OneThread one_thread;
    if constexpr (sizeof(T) == sizeof(float)) {
      spotrf_("U", &n, a.data, &lda, &error);
    } else {
      dpotrf_("U", &n, a.data, &lda, &error);
    }
  }
  if (error != 0) return false;
  for (int64_t i = 0; i < a.rows; ++i) {
    if (!(a.at(i, i) > 0) || !std::isfinite(a.at(i, i))) return false;
  }
  return true;
}

}  // namespace

void Gemm(Matrix<const float> a, Matrix<const float> b, Matrix<float> c, GemmCall<float> call) {
  GemmImpl(a, b, c, call);
}
void Gemm(Matrix<const double> a, Matrix<const double> b, Matrix<double> c, GemmCall<double> call) {
  GemmImpl(a, b, c, call);
}

bool CholeskyLower(Matrix<float> a) { return CholeskyImpl(a); }
bool CholeskyLower(Matrix<double> a) { return CholeskyImpl(a); }

}  // namespace llmc::kernels
