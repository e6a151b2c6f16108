// L by cuSOLVER, L^-1 by products of cuBLAS on blocks that double in size.
//
// A row-major lower triangle is a column-major upper one, which is what the libraries see.
#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cholesky.h"
#include "kernels/cuda_queue.cuh"
#include "kernels/damping.h"

namespace llmc::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kSmall = 32;  // Triangles that a warp inverts by itself.

__global__ void DiagonalKernel(const float* matrix, int64_t n, float* diagonal) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) diagonal[i] = matrix[i * (n + 1)];
}

absl::StatusOr<Diagonal> ReadDiagonal(const float* hessian, int64_t n, DeviceQueue& queue) {
  LLMC_ASSIGN_OR_RETURN(DeviceBuffer entries, DeviceBuffer::Allocate(queue, n * 4));
  LLMC_RETURN_IF_ERROR(Launch(queue, {NumBlocks(n, kThreads), kThreads}, DiagonalKernel, hessian, n,
                              entries.as<float>()));
  std::vector<float> host(n);
  LLMC_RETURN_IF_ERROR(queue.CopyToHost(entries.as<float>(), n * 4, host.data()));
  LLMC_RETURN_IF_ERROR(queue.Synchronize());
  return ExamineDiagonal(host);
}

struct Reversal {
  const float* hessian = nullptr;
  const int32_t* order = nullptr;  // Device; null: natural.
  int64_t n = 0;
  double live_mean = 0;
  double lambda = 0;
};

// out = lower triangle of J (H + lambda I) J, 0 above it.
template <typename T>
__global__ void FillReversedKernel(Reversal call, T* out) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t r = blockIdx.y;
  const int64_t n = call.n;
  if (c >= n) return;
  const int64_t row = call.order != nullptr ? call.order[n - 1 - r] : n - 1 - r;
  const int64_t col = call.order != nullptr ? call.order[n - 1 - c] : n - 1 - c;
  T value = 0;
  if (c < r) value = call.hessian[row * n + col];
  if (c == r) {
    const double entry = call.hessian[row * (n + 1)];
    value = static_cast<T>((entry == 0 ? call.live_mean : entry) + call.lambda);
  }
  out[r * n + c] = value;
}

// What lies above the diagonal becomes 0: libraries may use it as they like.
template <typename T>
__global__ void ClearAboveKernel(T* matrix, int64_t n) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t r = blockIdx.y;
  if (c < n && c > r) matrix[r * n + c] = 0;
}

// Block b: inverts the lower triangle of rows [32 b, 32 b + 32), a thread for each of
// its columns.
template <typename T>
__global__ void InvertSmallKernel(T* matrix, int64_t n) {
  __shared__ T l[kSmall][kSmall + 1];
  __shared__ T inverse[kSmall][kSmall + 1];
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kSmall;
  const int size = static_cast<int>(n - first < kSmall ? n - first : kSmall);
  const int c = threadIdx.x;
  for (int r = 0; r < size; ++r) {
    if (c < size) l[r][c] = matrix[(first + r) * n + first + c];
  }
  __syncthreads();
  if (c >= size) return;
  for (int r = 0; r < size; ++r) {
    T sum = r == c ? T{1} : T{0};
    for (int k = c; k < r; ++k) sum -= l[r][k] * inverse[k][c];
    inverse[r][c] = r < c ? T{0} : sum / l[r][r];
    matrix[(first + r) * n + first + c] = inverse[r][c];
  }
}

// upper = J matrix J in float32; *bad = 1 where a diagonal entry is not finite and
// positive.
template <typename T>
__global__ void ReverseKernel(const T* matrix, int64_t n, float* upper, int* bad) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t r = blockIdx.y;
  if (c >= n) return;
  const float value = static_cast<float>(matrix[(n - 1 - r) * n + n - 1 - c]);
  upper[r * n + c] = value;
  // Every thread that writes writes the same.
  if (r == c && !(value > 0 && value < INFINITY)) *bad = 1;
}

template <typename T>
struct TypeOf;
template <>
struct TypeOf<float> {
  static constexpr cudaDataType kType = CUDA_R_32F;
  // Pedantic: never TF32.
  static constexpr cublasComputeType_t kCompute = CUBLAS_COMPUTE_32F_PEDANTIC;
};
template <>
struct TypeOf<double> {
  static constexpr cudaDataType kType = CUDA_R_64F;
  static constexpr cublasComputeType_t kCompute = CUBLAS_COMPUTE_64F_PEDANTIC;
};

// Row-major c = alpha * a * b for `count` problems.
template <typename T>
struct Products {
  const T* a;
  const T* b;
  T* c;
  int64_t m, n, k;        // c is [m, n], a [m, k].
  int64_t lda, ldb, ldc;  // Elements from row to row.
  int64_t a_stride, b_stride, c_stride;
  int64_t count;
  T alpha;
};

template <typename T>
absl::Status Multiply(const Products<T>& p, cublasHandle_t blas) {
  const T zero = 0;
  // Column-major c^T = b^T a^T.
  return BlasStatus(
      cublasGemmStridedBatchedEx(
          blas, CUBLAS_OP_N, CUBLAS_OP_N, static_cast<int>(p.n), static_cast<int>(p.m),
          static_cast<int>(p.k), &p.alpha, p.b, TypeOf<T>::kType, static_cast<int>(p.ldb),
          p.b_stride, p.a, TypeOf<T>::kType, static_cast<int>(p.lda), p.a_stride, &zero, p.c,
          TypeOf<T>::kType, static_cast<int>(p.ldc), p.c_stride, static_cast<int>(p.count),
          TypeOf<T>::kCompute, CUBLAS_GEMM_DEFAULT),
      "cublasGemmStridedBatchedEx");
}

// With the diagonal blocks A, C of `size` inverted, the block B below A becomes
// -C B A, for `count` pairs whose lower one has `rows` rows; the first begins at `first`.
struct Pairs {
  int64_t first;
  int64_t size;
  int64_t rows;
  int64_t count;
};

template <typename T>
absl::Status JoinPairs(const Pairs& pairs, int64_t n, T* matrix, T* scratch, cublasHandle_t blas) {
  T* const upper = matrix + pairs.first * (n + 1);
  T* const below = upper + pairs.size * n;
  T* const lower = below + pairs.size;
  const int64_t step = 2 * pairs.size * (n + 1);
  LLMC_RETURN_IF_ERROR(
      Multiply<T>({lower, below, scratch, pairs.rows, pairs.size, pairs.rows, n, n, pairs.size,
                   step, step, pairs.rows * pairs.size, pairs.count, 1},
                  blas));
  return Multiply<T>({scratch, upper, below, pairs.rows, pairs.size, pairs.size, pairs.size, n, n,
                      pairs.rows * pairs.size, step, step, pairs.count, -1},
                     blas);
}

// Most elements that JoinPairs needs of `scratch`.
int64_t ScratchElements(int64_t n) {
  int64_t most = 1;
  for (int64_t size = kSmall; size < n; size *= 2) {
    most = std::max(most, (n / (2 * size) * size + std::min(size, n)) * size);
  }
  return most;
}

template <typename T>
absl::Status InvertLower(T* matrix, int64_t n, DeviceQueue& queue) {
  LLMC_ASSIGN_OR_RETURN(const cublasHandle_t blas, BlasOf(queue));
  LLMC_ASSIGN_OR_RETURN(DeviceBuffer scratch,
                        DeviceBuffer::Allocate(queue, ScratchElements(n) * sizeof(T)));
  LLMC_RETURN_IF_ERROR(Launch(queue, {NumBlocks(n, kSmall), static_cast<unsigned>(kSmall)},
                              InvertSmallKernel<T>, matrix, n));
  for (int64_t size = kSmall; size < n; size *= 2) {
    const int64_t whole = n / (2 * size);
    if (whole > 0) {
      LLMC_RETURN_IF_ERROR(JoinPairs<T>({0, size, size, whole}, n, matrix, scratch.as<T>(), blas));
    }
    const int64_t first = whole * 2 * size;
    const int64_t rows = n - first - size;  // Of the lower block of a pair cut short.
    if (rows > 0) {
      LLMC_RETURN_IF_ERROR(JoinPairs<T>({first, size, rows, 1}, n, matrix, scratch.as<T>(), blas));
    }
  }
  return absl::OkStatus();
}

// L in place of the lower triangle; *info stays 0 when there is one.
template <typename T>
absl::Status FactorLower(T* matrix, int64_t n, int* info, DeviceQueue& queue) {
  LLMC_ASSIGN_OR_RETURN(const cusolverDnHandle_t solver, SolverOf(queue));
  constexpr cudaDataType kType = TypeOf<T>::kType;
  size_t device_bytes = 0;
  size_t host_bytes = 0;
  LLMC_RETURN_IF_ERROR(SolverStatus(
      cusolverDnXpotrf_bufferSize(solver, queue.impl().solver_params, CUBLAS_FILL_MODE_UPPER, n,
                                  kType, matrix, n, kType, &device_bytes, &host_bytes),
      "cusolverDnXpotrf_bufferSize"));
  LLMC_ASSIGN_OR_RETURN(DeviceBuffer workspace,
                        DeviceBuffer::Allocate(queue, static_cast<int64_t>(device_bytes)));
  std::vector<std::byte> host(host_bytes);
  return SolverStatus(cusolverDnXpotrf(solver, queue.impl().solver_params, CUBLAS_FILL_MODE_UPPER,
                                       n, kType, matrix, n, kType, workspace.as<std::byte>(),
                                       device_bytes, host.data(), host_bytes, info),
                      "cusolverDnXpotrf");
}

// What cuSOLVER and the check of the diagonal found.
struct Outcome {
  int info = 0;
  int bad = 0;
};

dim3 RowGrid(int64_t n) { return dim3(NumBlocks(n, kThreads), static_cast<unsigned>(n)); }

// True, with `upper` filled, when the matrix is positive definite in type T. Waits.
template <typename T>
absl::StatusOr<bool> TryFactor(const Reversal& call, float* upper, DeviceQueue& queue) {
  const int64_t n = call.n;
  LLMC_ASSIGN_OR_RETURN(DeviceBuffer work, DeviceBuffer::Allocate(queue, n * n * sizeof(T)));
  LLMC_ASSIGN_OR_RETURN(DeviceBuffer outcome, DeviceBuffer::Allocate(queue, sizeof(Outcome)));
  LLMC_RETURN_IF_ERROR(queue.Zero(outcome.as<Outcome>(), sizeof(Outcome)));
  LLMC_RETURN_IF_ERROR(
      Launch(queue, {RowGrid(n), kThreads}, FillReversedKernel<T>, call, work.as<T>()));
  LLMC_RETURN_IF_ERROR(FactorLower<T>(work.as<T>(), n, &outcome.as<Outcome>()->info, queue));
  LLMC_RETURN_IF_ERROR(Launch(queue, {RowGrid(n), kThreads}, ClearAboveKernel<T>, work.as<T>(), n));
  // Also of a matrix that has no L; what comes out is not looked at.
  LLMC_RETURN_IF_ERROR(InvertLower<T>(work.as<T>(), n, queue));
  LLMC_RETURN_IF_ERROR(Launch(queue, {RowGrid(n), kThreads}, ReverseKernel<T>, work.as<T>(), n,
                              upper, &outcome.as<Outcome>()->bad));
  Outcome found;
  LLMC_RETURN_IF_ERROR(queue.CopyToHost(outcome.as<Outcome>(), sizeof(found), &found));
  LLMC_RETURN_IF_ERROR(queue.Synchronize());
  return found.info == 0 && found.bad == 0;
}

absl::Status CheckArguments(int64_t n, std::span<const int32_t> order,
                            const InverseFactorOptions& options) {
  // Rows are blocks of a grid, whose second size ends there.
  constexpr int64_t kMostRows = 65535;
  if (n <= 0 || n > kMostRows) {
    return absl::InvalidArgumentError(
        absl::StrCat("Hessian: ", n, " columns, expected 1..", kMostRows));
  }
  return CheckFactoring(n, order, options);
}

}  // namespace

absl::StatusOr<DeviceInverseFactor> FactorInverseHessian(const float* hessian, int64_t n,
                                                         std::span<const int32_t> order,
                                                         const InverseFactorOptions& options,
                                                         DeviceQueue& queue) {
  LLMC_RETURN_IF_ERROR(CheckArguments(n, order, options));
  LLMC_ASSIGN_OR_RETURN(const Diagonal diagonal, ReadDiagonal(hessian, n, queue));
  DeviceInverseFactor factor;
  LLMC_ASSIGN_OR_RETURN(factor.upper, DeviceBuffer::Allocate(queue, n * n * 4));
  DeviceBuffer device_order;
  if (!order.empty()) {
    LLMC_ASSIGN_OR_RETURN(device_order, DeviceBuffer::Allocate(queue, n * 4));
    LLMC_RETURN_IF_ERROR(queue.CopyToDevice(order.data(), n * 4, device_order.as<int32_t>()));
  }
  const auto try_factor = [&](bool use_fp64, double lambda) {
    const Reversal call{hessian, device_order.as<int32_t>(), n, diagonal.live_mean, lambda};
    float* const upper = factor.upper.as<float>();
    return use_fp64 ? TryFactor<double>(call, upper, queue) : TryFactor<float>(call, upper, queue);
  };
  LLMC_RETURN_IF_ERROR(FactorWithDamping(diagonal, options, try_factor, factor));
  return factor;
}

}  // namespace llmc::kernels
