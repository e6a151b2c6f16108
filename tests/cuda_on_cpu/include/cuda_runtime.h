// The part of the CUDA runtime that kernels/*_cuda.cu use, on the CPU, so that the same
// sources can be run without a device.
//
// Every CUDA thread of a block is a fiber, so barriers and warp shuffles work; blocks are
// run by ParallelFor. Streams are immediate. Breaches that a device would punish, or
// silently allow, end the program with a message: barriers that not all threads reach, too
// large a block or too much shared memory, writes beyond an allocation (a guard zone; with
// AddressSanitizer its redzone). Fresh memory is all ones, which is a NaN in every float
// format. Every other block runs its threads in falling order, which shows many missing
// barriers.
//
// The names are CUDA's, with C++ linkage, so that no library that links the real runtime
// finds these instead.
#ifndef LLMC_TESTS_CUDA_ON_CPU_CUDA_RUNTIME_H_
#define LLMC_TESTS_CUDA_ON_CPU_CUDA_RUNTIME_H_

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
// constinit: an array that no code has to initialise is reached without a call.
#define __shared__ constinit thread_local
#define __align__(n) __attribute__((aligned(n)))

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_in = 1, unsigned y_in = 1, unsigned z_in = 1)
      : x(x_in), y(y_in), z(z_in) {}
};
struct uint3 {
  unsigned x, y, z;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

extern __thread uint3 threadIdx;
extern __thread uint3 blockIdx;
extern __thread uint3 blockDim;
extern __thread uint3 gridDim;
inline constexpr int warpSize = 32;

namespace cuda_on_cpu {

struct LaunchLimits {
  const void* kernel;
  dim3 grid;
  dim3 block;
  size_t shared_bytes;
};
void RunGrid(const LaunchLimits& launch, const std::function<void()>& thread);
void AllowSharedBytes(const void* kernel, int bytes);
void WaitForBlock();
void WaitForWarp();
int Lane();
// The lane's slot of its warp.
uint64_t& WarpSlot(int lane);
int LanesOfWarp();

}  // namespace cuda_on_cpu

namespace llmc::kernels {

// What `extern __shared__` names in the kernels. Declared with its size: GCC reaches a
// thread's array of unknown size through a function that need not exist.
inline constexpr size_t kMostSharedBytes = 227 * 1024;
extern constinit thread_local unsigned char dynamic_shared[kMostSharedBytes];

}  // namespace llmc::kernels

inline void __syncthreads() { cuda_on_cpu::WaitForBlock(); }
inline void __syncwarp(unsigned = ~0u) { cuda_on_cpu::WaitForWarp(); }

template <typename T>
T __shfl_sync(unsigned, T value, int source, int width = 32) {
  static_assert(sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  cuda_on_cpu::WarpSlot(cuda_on_cpu::Lane()) = bits;
  cuda_on_cpu::WaitForWarp();
  const int from = cuda_on_cpu::Lane() / width * width + source % width;
  bits = cuda_on_cpu::WarpSlot(from < cuda_on_cpu::LanesOfWarp() ? from : cuda_on_cpu::Lane());
  cuda_on_cpu::WaitForWarp();
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes) {
  return __shfl_sync(mask, value, cuda_on_cpu::Lane() ^ lanes);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, int lanes) {
  const int from = cuda_on_cpu::Lane() + lanes;
  return __shfl_sync(mask, value, from < 32 ? from : cuda_on_cpu::Lane());
}
inline unsigned __ballot_sync(unsigned, int predicate) {
  cuda_on_cpu::WarpSlot(cuda_on_cpu::Lane()) = predicate != 0;
  cuda_on_cpu::WaitForWarp();
  unsigned ballot = 0;
  for (int i = 0; i < cuda_on_cpu::LanesOfWarp(); ++i) {
    ballot |= static_cast<unsigned>(cuda_on_cpu::WarpSlot(i)) << i;
  }
  cuda_on_cpu::WaitForWarp();
  return ballot;
}

template <typename T>
T atomicAdd(T* address, T value) {
  static_assert(std::is_integral_v<T>);
  return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}
inline unsigned atomicOr(unsigned* address, unsigned value) {
  return __atomic_fetch_or(address, value, __ATOMIC_RELAXED);
}
template <typename T>
T atomicMin(T* address, T value) {
  T seen = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (value < seen && !__atomic_compare_exchange_n(address, &seen, value, false,
                                                      __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return seen;
}
template <typename T>
T atomicMax(T* address, T value) {
  T seen = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (value > seen && !__atomic_compare_exchange_n(address, &seen, value, false,
                                                      __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return seen;
}

inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline long long __double2ll_rn(double value) { return std::llrint(value); }
inline int __popc(unsigned bits) { return std::popcount(bits); }
template <typename T>
T __ldg(const T* address) {
  return *address;
}

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidDevice = 101
};
struct EmulatedStream;
struct EmulatedEvent;
struct EmulatedPool;
using cudaStream_t = EmulatedStream*;
using cudaEvent_t = EmulatedEvent*;
using cudaMemPool_t = EmulatedPool*;
enum cudaMemcpyKind {
  cudaMemcpyHostToHost,
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault
};
enum cudaMemPoolAttr { cudaMemPoolAttrReleaseThreshold };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
inline constexpr unsigned cudaStreamNonBlocking = 1;
inline constexpr unsigned cudaEventBlockingSync = 1;
inline constexpr unsigned cudaEventDisableTiming = 2;
inline constexpr unsigned cudaHostAllocPortable = 1;

struct cudaDeviceProp {
  char name[256];
  int major, minor, multiProcessorCount;
};
struct cudaLaunchConfig_t {
  dim3 gridDim;
  dim3 blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  void* attrs = nullptr;
  unsigned numAttrs = 0;
};

const char* cudaGetErrorString(cudaError_t code);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaMemGetInfo(size_t* free, size_t* total);
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device);
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end);
cudaError_t cudaMallocAsync(void** memory, size_t bytes, cudaStream_t stream);
cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream);
cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void* memory);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream);

template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute, int value) {
  cuda_on_cpu::AllowSharedBytes(reinterpret_cast<const void*>(kernel), value);
  return cudaSuccess;
}

template <typename... Params, typename... Args>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Params...),
                               Args&&... args) {
  cuda_on_cpu::RunGrid({reinterpret_cast<const void*>(kernel), config->gridDim, config->blockDim,
                        config->dynamicSmemBytes},
                       [&]() { kernel(static_cast<Params>(args)...); });
  return cudaSuccess;
}

#endif  // LLMC_TESTS_CUDA_ON_CPU_CUDA_RUNTIME_H_
