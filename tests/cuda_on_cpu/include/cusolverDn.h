// The cuSOLVER calls that kernels/*_cuda.cu make: an unblocked Cholesky factorization.
#ifndef LLMC_TESTS_CUDA_ON_CPU_CUSOLVERDN_H_
#define LLMC_TESTS_CUDA_ON_CPU_CUSOLVERDN_H_

#include "cublas_v2.h"
#include "cuda_runtime.h"

enum cusolverStatus_t {
  CUSOLVER_STATUS_SUCCESS = 0,
  CUSOLVER_STATUS_ALLOC_FAILED = 2,
  CUSOLVER_STATUS_INVALID_VALUE = 3
};
struct EmulatedSolver;
struct EmulatedSolverParams;
using cusolverDnHandle_t = EmulatedSolver*;
using cusolverDnParams_t = EmulatedSolverParams*;
enum cusolverDeterministicMode_t {
  CUSOLVER_DETERMINISTIC_RESULTS = 1,
  CUSOLVER_ALLOW_NON_DETERMINISTIC_RESULTS = 2
};
enum cublasFillMode_t { CUBLAS_FILL_MODE_LOWER = 0, CUBLAS_FILL_MODE_UPPER = 1 };

cusolverStatus_t cusolverDnCreate(cusolverDnHandle_t* handle);
cusolverStatus_t cusolverDnDestroy(cusolverDnHandle_t handle);
cusolverStatus_t cusolverDnCreateParams(cusolverDnParams_t* params);
cusolverStatus_t cusolverDnDestroyParams(cusolverDnParams_t params);
cusolverStatus_t cusolverDnSetStream(cusolverDnHandle_t handle, cudaStream_t stream);
cusolverStatus_t cusolverDnSetDeterministicMode(cusolverDnHandle_t handle,
                                                cusolverDeterministicMode_t mode);
cusolverStatus_t cusolverDnXpotrf_bufferSize(cusolverDnHandle_t handle, cusolverDnParams_t params,
                                             cublasFillMode_t uplo, int64_t n, cudaDataType type,
                                             const void* a, int64_t lda, cudaDataType compute,
                                             size_t* device_bytes, size_t* host_bytes);
cusolverStatus_t cusolverDnXpotrf(cusolverDnHandle_t handle, cusolverDnParams_t params,
                                  cublasFillMode_t uplo, int64_t n, cudaDataType type, void* a,
                                  int64_t lda, cudaDataType compute, void* device_workspace,
                                  size_t device_bytes, void* host_workspace, size_t host_bytes,
                                  int* info);

#endif  // LLMC_TESTS_CUDA_ON_CPU_CUSOLVERDN_H_
