// The emulated runtime runs kernels as CUDA does, and notices what it promises to.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "cuda_runtime.h"

namespace {

constexpr int kThreads = 96;

template <typename... Params, typename... Args>
void Launch(dim3 grid, dim3 block, void (*kernel)(Params...), Args... args) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  ASSERT_EQ(cudaLaunchKernelEx(&config, kernel, args...), cudaSuccess);
}

// Reverses a block's numbers through shared memory.
__global__ void Reverse(int* numbers) {
  __shared__ int shared[kThreads];
  int* const own = numbers + blockIdx.x * kThreads;
  shared[threadIdx.x] = own[threadIdx.x];
  __syncthreads();
  own[threadIdx.x] = shared[kThreads - 1 - threadIdx.x];
}

TEST(CudaOnCpu, Barrier_OrdersSharedMemory) {
  std::vector<int> numbers(kThreads * 50);
  std::iota(numbers.begin(), numbers.end(), 0);
  Launch(50, kThreads, Reverse, numbers.data());
  for (int b = 0; b < 50; ++b) {
    for (int i = 0; i < kThreads; ++i) {
      ASSERT_EQ(numbers[b * kThreads + i], b * kThreads + kThreads - 1 - i);
    }
  }
}

__global__ void Votes(unsigned* out) {
  const int lane = threadIdx.x % 32;
  const unsigned ballot = __ballot_sync(~0u, lane % 3 == 0);
  unsigned sum = threadIdx.x;
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  out[threadIdx.x * 3] = ballot;
  out[threadIdx.x * 3 + 1] = sum;
  out[threadIdx.x * 3 + 2] = __shfl_sync(~0u, threadIdx.x, 5);
}

TEST(CudaOnCpu, Warps_VoteAndShuffle) {
  std::vector<unsigned> out(kThreads * 3);
  Launch(1, kThreads, Votes, out.data());
  for (unsigned t = 0; t < kThreads; ++t) {
    const unsigned first = t / 32 * 32;
    EXPECT_EQ(out[t * 3], 0x49249249u);
    EXPECT_EQ(out[t * 3 + 1], 32 * first + 31 * 32 / 2);
    EXPECT_EQ(out[t * 3 + 2], first + 5);
  }
}

__global__ void CountThreads(unsigned* count, dim3 expected) {
  if (blockDim.x == expected.x && threadIdx.y < blockDim.y && blockIdx.z < gridDim.z) {
    atomicAdd(count, 1u);
  }
}

TEST(CudaOnCpu, EveryThreadOfAGrid_RunsOnce) {
  unsigned count = 0;
  Launch(dim3(3, 5, 7), dim3(4, 8, 2), CountThreads, &count, dim3(4, 8, 2));
  EXPECT_EQ(count, 3u * 5 * 7 * 4 * 8 * 2);
}

__global__ void HalfAtTheBarrier() {
  if (threadIdx.x < kThreads / 2) __syncthreads();
}

TEST(CudaOnCpuDeathTest, BarrierThatHalfReaches_EndsTheProgram) {
  EXPECT_DEATH(Launch(1, kThreads, HalfAtTheBarrier), "barrier that others never reach");
}

// Without its barrier, Reverse is wrong in one order of threads or the other.
__global__ void ReverseWithoutBarrier(int* numbers) {
  __shared__ int shared[kThreads];
  int* const own = numbers + blockIdx.x * kThreads;
  shared[threadIdx.x] = own[threadIdx.x];
  own[threadIdx.x] = shared[kThreads - 1 - threadIdx.x];
}

TEST(CudaOnCpu, MissingBarrier_Shows) {
  std::vector<int> numbers(kThreads * 2);
  std::iota(numbers.begin(), numbers.end(), 1);
  std::vector<int> expected = numbers;
  for (int b = 0; b < 2; ++b) {
    std::reverse(expected.begin() + b * kThreads, expected.begin() + (b + 1) * kThreads);
  }
  Launch(2, kThreads, ReverseWithoutBarrier, numbers.data());
  EXPECT_NE(numbers, expected);
}

__global__ void Nothing() {}

TEST(CudaOnCpuDeathTest, LaunchBeyondTheLimits_EndsTheProgram) {
  EXPECT_DEATH(Launch(1, 1025, Nothing), "threads of a block");
  EXPECT_DEATH(Launch(dim3(1, 65536), 1, Nothing), "blocks of a grid");
  cudaLaunchConfig_t config = {};
  config.dynamicSmemBytes = 48 * 1024 + 1;
  EXPECT_DEATH(static_cast<void>(cudaLaunchKernelEx(&config, Nothing)), "shared memory");
  cudaFuncSetAttribute(Nothing, cudaFuncAttributeMaxDynamicSharedMemorySize, 48 * 1024 + 1);
  EXPECT_EQ(cudaLaunchKernelEx(&config, Nothing), cudaSuccess);
}

TEST(CudaOnCpuDeathTest, WriteBeyondAnAllocation_EndsTheProgram) {
  void* memory = nullptr;
  ASSERT_EQ(cudaMallocAsync(&memory, 10, nullptr), cudaSuccess);
  auto* const bytes = static_cast<unsigned char*>(memory);
  EXPECT_EQ(bytes[9], 0xff);  // Not initialised: all ones.
  EXPECT_EQ(cudaFreeAsync(memory, nullptr), cudaSuccess);
  EXPECT_DEATH(
      {
        cudaMallocAsync(&memory, 10, nullptr);
        static_cast<unsigned char*>(memory)[10] = 0;
        cudaFreeAsync(memory, nullptr);
      },
      "beyond an allocation");
}

}  // namespace
