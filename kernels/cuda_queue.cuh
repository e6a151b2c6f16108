// What the CUDA files of this folder share: the inside of a DeviceQueue, checks of CUDA's
// return codes, and the one way to launch a kernel.
#ifndef LLMC_KERNELS_CUDA_QUEUE_CUH_
#define LLMC_KERNELS_CUDA_QUEUE_CUH_

#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <cusolverDn.h>

#include <array>
#include <memory>
#include <utility>

#include "kernels/device_queue.h"
#include "llmc/status.h"

namespace llmc::kernels {

// OK, or `call` and CUDA's reason: kResourceExhausted when memory is short, else kInternal.
absl::Status CudaStatus(cudaError_t code, const char* call);
absl::Status BlasStatus(cublasStatus_t code, const char* call);
absl::Status SolverStatus(cusolverStatus_t code, const char* call);

// A stream, destroyed with the last queue or buffer that uses it when it is ours.
struct CudaStream {
  int device = 0;
  cudaStream_t handle = nullptr;
  bool is_owned = false;

  CudaStream() = default;
  ~CudaStream();
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;
};

// A stream with its own cuBLAS handle and workspace, so that products which run at the
// same time share nothing and cuBLAS has no reason to choose by what it finds free.
struct BlasLane {
  std::shared_ptr<CudaStream> stream;
  cublasHandle_t handle = nullptr;
  DeviceBuffer workspace;
  cudaEvent_t done = nullptr;

  BlasLane() = default;
  ~BlasLane();
  BlasLane(const BlasLane&) = delete;
  BlasLane& operator=(const BlasLane&) = delete;
};

struct DeviceQueue::Impl {
  // Lane 0 is the queue's own stream; the others are for products side by side.
  static constexpr int kNumLanes = 4;

  std::shared_ptr<CudaStream> stream;
  std::array<BlasLane, kNumLanes> lanes;
  cudaEvent_t forked = nullptr;
  cusolverDnHandle_t solver = nullptr;
  cusolverDnParams_t solver_params = nullptr;

  Impl() = default;
  ~Impl();
};

inline cudaStream_t StreamOf(DeviceQueue& queue) { return queue.impl().stream->handle; }

// Makes the queue's device the calling thread's current one.
absl::Status Enter(DeviceQueue& queue);

// The cuBLAS handle of a lane and the cuSOLVER handle, made on first use.
absl::StatusOr<cublasHandle_t> BlasOf(DeviceQueue& queue, int lane = 0);
absl::StatusOr<cusolverDnHandle_t> SolverOf(DeviceQueue& queue);  // And impl().solver_params.

// Lanes 1 and up wait for the queue; the queue waits for them.
absl::Status ForkLanes(DeviceQueue& queue);
absl::Status JoinLanes(DeviceQueue& queue);

struct LaunchShape {
  dim3 grid;
  dim3 block;
  size_t shared_bytes = 0;  // Dynamic, at most 227 KiB.
};

// Enqueues kernel(args...); nothing when the grid is empty.
template <typename... Params, typename... Args>
absl::Status Launch(DeviceQueue& queue, const LaunchShape& shape, void (*kernel)(Params...),
                    Args&&... args) {
  constexpr size_t kSharedWithoutAsking = 48 * 1024;
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return absl::OkStatus();
  LLMC_RETURN_IF_ERROR(Enter(queue));
  if (shape.shared_bytes > kSharedWithoutAsking) {
    LLMC_RETURN_IF_ERROR(
        CudaStatus(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        static_cast<int>(shape.shared_bytes)),
                   "cudaFuncSetAttribute"));
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = StreamOf(queue);
  return CudaStatus(cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...),
                    "cudaLaunchKernelEx");
}

// A block's dynamic shared memory.
extern __shared__ __align__(16) unsigned char dynamic_shared[];
template <typename T>
__device__ T* DynamicShared() {
  return reinterpret_cast<T*>(dynamic_shared);
}

// Blocks of `size` that cover `n`.
inline unsigned NumBlocks(int64_t n, int64_t size) {
  return static_cast<unsigned>((n + size - 1) / size);
}

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_CUDA_QUEUE_CUH_
