// cuBLAS and cuSOLVER calls as plain loops; matrices are column-major.
#include <cmath>
#include <cstdlib>
#include <vector>

#include "cublas_v2.h"
#include "cusolverDn.h"
#include "llmc/float_formats.h"
#include "llmc/parallel.h"

namespace {

template <typename T>
T Load(const void* from, cudaDataType type, int64_t index) {
  switch (type) {
    case CUDA_R_32F:
      return static_cast<T>(static_cast<const float*>(from)[index]);
    case CUDA_R_64F:
      return static_cast<T>(static_cast<const double*>(from)[index]);
    case CUDA_R_16F:
      return static_cast<T>(llmc::F16ToFloat(static_cast<const uint16_t*>(from)[index]));
    default:
      return static_cast<T>(llmc::Bf16ToFloat(static_cast<const uint16_t*>(from)[index]));
  }
}

struct Operand {
  const void* from;
  cudaDataType type;
  bool is_transposed;
  int64_t ld;
  int64_t offset;

  int64_t index(int64_t row, int64_t col) const {
    return offset + (is_transposed ? row * ld + col : row + col * ld);
  }
};

template <typename T>
struct Product {
  Operand a, b;
  int64_t m, n, k;
  T alpha, beta;
  T* c;
  int64_t ldc;
};

template <typename T>
void Multiply(const Product<T>& p) {
  std::vector<T> sums(p.m * p.n, T{0});
  std::vector<T> column(p.m);
  for (int64_t k = 0; k < p.k; ++k) {
    for (int64_t i = 0; i < p.m; ++i) column[i] = Load<T>(p.a.from, p.a.type, p.a.index(i, k));
    for (int64_t j = 0; j < p.n; ++j) {
      const T factor = Load<T>(p.b.from, p.b.type, p.b.index(k, j));
      T* const sum = sums.data() + j * p.m;
      for (int64_t i = 0; i < p.m; ++i) sum[i] += column[i] * factor;
    }
  }
  for (int64_t j = 0; j < p.n; ++j) {
    for (int64_t i = 0; i < p.m; ++i) {
      T& c = p.c[i + j * p.ldc];
      // cuBLAS does not read C when beta is 0.
      c = p.beta == 0 ? p.alpha * sums[i + j * p.m] : p.alpha * sums[i + j * p.m] + p.beta * c;
    }
  }
}

// L with L L^T = A, in the triangle that `at(row, col)`, row >= col, walks over.
template <typename T, typename At>
int64_t FirstBadPivot(int64_t n, const At& at) {
  for (int64_t j = 0; j < n; ++j) {
    T pivot = at(j, j);
    for (int64_t k = 0; k < j; ++k) pivot -= at(j, k) * at(j, k);
    if (!(pivot > 0)) return j + 1;
    at(j, j) = std::sqrt(pivot);
    for (int64_t i = j + 1; i < n; ++i) {
      T sum = at(i, j);
      for (int64_t k = 0; k < j; ++k) sum -= at(i, k) * at(j, k);
      at(i, j) = sum / at(j, j);
    }
  }
  return 0;
}

template <typename T>
int Factor(T* a, int64_t n, int64_t lda, bool is_upper) {
  return static_cast<int>(FirstBadPivot<T>(n, [&](int64_t row, int64_t col) -> T& {
    return is_upper ? a[col + row * lda] : a[row + col * lda];
  }));
}

}  // namespace

const char* cublasGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_SUCCESS ? "CUBLAS_STATUS_SUCCESS" : "CUBLAS_STATUS_INVALID_VALUE";
}
cublasStatus_t cublasCreate(cublasHandle_t* handle) {
  *handle = static_cast<cublasHandle_t>(std::malloc(1));
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy(cublasHandle_t handle) {
  std::free(handle);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream(cublasHandle_t, cudaStream_t) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasSetWorkspace(cublasHandle_t, void* workspace, size_t) {
  const bool is_aligned = reinterpret_cast<uintptr_t>(workspace) % 256 == 0;
  return is_aligned ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t, cublasOperation_t op_a,
                                          cublasOperation_t op_b, int m, int n, int k,
                                          const void* alpha, const void* a, cudaDataType a_type,
                                          int lda, long long a_stride, const void* b,
                                          cudaDataType b_type, int ldb, long long b_stride,
                                          const void* beta, void* c, cudaDataType c_type, int ldc,
                                          long long c_stride, int batch_count,
                                          cublasComputeType_t compute, cublasGemmAlgo_t) {
  const bool is_double = c_type == CUDA_R_64F;
  const bool computes_double =
      compute == CUBLAS_COMPUTE_64F || compute == CUBLAS_COMPUTE_64F_PEDANTIC;
  if (m < 0 || n < 0 || k < 0 || batch_count < 0 || a_type != b_type ||
      (c_type != CUDA_R_32F && !is_double) || is_double != computes_double ||
      lda < (op_a == CUBLAS_OP_N ? m : k) || ldb < (op_b == CUBLAS_OP_N ? k : n) || ldc < m) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const auto run = [&]<typename T>(T) {
    llmc::ParallelFor(batch_count, [&](int64_t i) {
      Multiply<T>({{a, a_type, op_a == CUBLAS_OP_T, lda, i * a_stride},
                   {b, b_type, op_b == CUBLAS_OP_T, ldb, i * b_stride},
                   m,
                   n,
                   k,
                   *static_cast<const T*>(alpha),
                   *static_cast<const T*>(beta),
                   static_cast<T*>(c) + i * c_stride,
                   ldc});
    });
  };
  is_double ? run(double{}) : run(float{});
  return CUBLAS_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnCreate(cusolverDnHandle_t* handle) {
  *handle = static_cast<cusolverDnHandle_t>(std::malloc(1));
  return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnDestroy(cusolverDnHandle_t handle) {
  std::free(handle);
  return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnCreateParams(cusolverDnParams_t* params) {
  *params = static_cast<cusolverDnParams_t>(std::malloc(1));
  return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnDestroyParams(cusolverDnParams_t params) {
  std::free(params);
  return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnSetStream(cusolverDnHandle_t, cudaStream_t) {
  return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnSetDeterministicMode(cusolverDnHandle_t, cusolverDeterministicMode_t) {
  return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnXpotrf_bufferSize(cusolverDnHandle_t, cusolverDnParams_t,
                                             cublasFillMode_t, int64_t, cudaDataType, const void*,
                                             int64_t, cudaDataType, size_t* device_bytes,
                                             size_t* host_bytes) {
  *device_bytes = 64;
  *host_bytes = 0;
  return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnXpotrf(cusolverDnHandle_t, cusolverDnParams_t, cublasFillMode_t uplo,
                                  int64_t n, cudaDataType type, void* a, int64_t lda,
                                  cudaDataType compute, void*, size_t, void*, size_t, int* info) {
  if (type != compute || (type != CUDA_R_32F && type != CUDA_R_64F) || lda < n) {
    return CUSOLVER_STATUS_INVALID_VALUE;
  }
  const bool is_upper = uplo == CUBLAS_FILL_MODE_UPPER;
  *info = type == CUDA_R_64F ? Factor(static_cast<double*>(a), n, lda, is_upper)
                             : Factor(static_cast<float*>(a), n, lda, is_upper);
  return CUSOLVER_STATUS_SUCCESS;
}
