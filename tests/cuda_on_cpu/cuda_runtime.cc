#include "cuda_runtime.h"

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>

#include "fibers.h"
#include "kernels/device_queue.h"
#include "llmc/parallel.h"

__thread uint3 threadIdx;
__thread uint3 blockIdx;
__thread uint3 blockDim;
__thread uint3 gridDim;

namespace llmc::kernels {

constinit thread_local unsigned char dynamic_shared[kMostSharedBytes] __attribute__((aligned(128)));

bool DeviceQueue::SharesHostMemory() { return true; }

}  // namespace llmc::kernels

namespace cuda_on_cpu {
namespace {

constexpr int kMostThreads = 1024;
constexpr unsigned char kPoison = 0xff;
constexpr size_t kGuardBytes = 256;
constexpr unsigned char kGuard = 0xa5;

[[noreturn]] void Die(const char* message) {
  std::fprintf(stderr, "CUDA on CPU: %s\n", message);
  std::abort();
}

struct Barrier {
  int arrived = 0;
  unsigned generation = 0;
};

struct Warp {
  Barrier barrier;
  uint64_t slots[32];
};

// What one thread of the CPU runs blocks with.
struct BlockRunner {
  FiberPool fibers;
  Barrier barrier;
  Warp warps[kMostThreads / 32];
  int num_threads = 0;
};

BlockRunner& Runner() {
  thread_local std::unique_ptr<BlockRunner> runner = std::make_unique<BlockRunner>();
  return *runner;
}

void SetThread(int index) {
  const auto x = static_cast<unsigned>(index);
  threadIdx = {x % blockDim.x, x / blockDim.x % blockDim.y, x / blockDim.x / blockDim.y};
}

void Wait(Barrier& barrier, int count) {
  FiberPool& fibers = Runner().fibers;
  if (++barrier.arrived == count) {
    barrier.arrived = 0;
    ++barrier.generation;
    return;
  }
  const int index = fibers.current();
  fibers.WaitWhile(&barrier.generation, barrier.generation);
  SetThread(index);
}

std::mutex& Mutex() {
  static std::mutex mutex;
  return mutex;
}

std::map<const void*, int>& AllowedSharedBytes() {
  static std::map<const void*, int> allowed;
  return allowed;
}

void CheckLaunch(const LaunchLimits& launch) {
  const dim3& b = launch.block;
  if (b.x * b.y * b.z == 0 || b.x * b.y * b.z > kMostThreads) Die("threads of a block");
  if (launch.grid.y > 65535 || launch.grid.z > 65535 || launch.grid.x > 0x7fffffffu) {
    Die("blocks of a grid");
  }
  const std::lock_guard lock(Mutex());
  const auto it = AllowedSharedBytes().find(launch.kernel);
  const int allowed = it == AllowedSharedBytes().end() ? 48 * 1024 : it->second;
  if (launch.shared_bytes > static_cast<size_t>(allowed)) Die("shared memory of a block");
}

void RunBlock(const LaunchLimits& launch, int64_t block, const std::function<void()>& thread) {
  BlockRunner& runner = Runner();
  const dim3& grid = launch.grid;
  runner.num_threads = static_cast<int>(launch.block.x * launch.block.y * launch.block.z);
  gridDim = {grid.x, grid.y, grid.z};
  blockDim = {launch.block.x, launch.block.y, launch.block.z};
  blockIdx = {static_cast<unsigned>(block % grid.x), static_cast<unsigned>(block / grid.x % grid.y),
              static_cast<unsigned>(block / grid.x / grid.y)};
  std::memset(llmc::kernels::dynamic_shared, kPoison, launch.shared_bytes);
  runner.fibers.Run(runner.num_threads, block % 2 == 1, [&](int index) {
    SetThread(index);
    thread();
  });
  if (runner.barrier.arrived != 0) Die("threads left a block while others wait");
}

}  // namespace

void RunGrid(const LaunchLimits& launch, const std::function<void()>& thread) {
  CheckLaunch(launch);
  const int64_t blocks = int64_t{launch.grid.x} * launch.grid.y * launch.grid.z;
  // Several blocks a unit: most are short.
  constexpr int64_t kBlocksPerUnit = 8;
  llmc::ParallelFor((blocks + kBlocksPerUnit - 1) / kBlocksPerUnit, [&](int64_t unit) {
    const int64_t end = std::min(blocks, (unit + 1) * kBlocksPerUnit);
    for (int64_t b = unit * kBlocksPerUnit; b < end; ++b) RunBlock(launch, b, thread);
  });
}

void AllowSharedBytes(const void* kernel, int bytes) {
  if (bytes > static_cast<int>(llmc::kernels::kMostSharedBytes)) Die("shared memory of a block");
  const std::lock_guard lock(Mutex());
  int& allowed = AllowedSharedBytes()[kernel];
  allowed = std::max(allowed, bytes);
}

void WaitForBlock() { Wait(Runner().barrier, Runner().num_threads); }

int LanesOfWarp() {
  BlockRunner& runner = Runner();
  return std::min(32, runner.num_threads - runner.fibers.current() / 32 * 32);
}

void WaitForWarp() {
  BlockRunner& runner = Runner();
  Wait(runner.warps[runner.fibers.current() / 32].barrier, LanesOfWarp());
}

int Lane() { return Runner().fibers.current() % 32; }

uint64_t& WarpSlot(int lane) {
  BlockRunner& runner = Runner();
  return runner.warps[runner.fibers.current() / 32].slots[lane];
}

}  // namespace cuda_on_cpu

using cuda_on_cpu::kGuard;
using cuda_on_cpu::kGuardBytes;

const char* cudaGetErrorString(cudaError_t code) {
  if (code == cudaErrorMemoryAllocation) return "out of memory";
  return code == cudaSuccess ? "no error" : "invalid argument";
}
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {"CUDA kernels on the CPU", 9, 0, llmc::NumThreads()};
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *free = *total = size_t{8} << 30;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t*, int) { return cudaSuccess; }
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }

// Handles are small blocks of memory, so that AddressSanitizer finds those never freed.
template <typename Handle>
static cudaError_t NewHandle(Handle* handle) {
  *handle = static_cast<Handle>(std::malloc(1));
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) { return NewHandle(stream); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  std::free(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t event, unsigned) {
  return event == nullptr ? cudaErrorInvalidValue : cudaSuccess;
}
// Work is done when it is enqueued, and so is an event.
struct EmulatedEvent {
  std::chrono::steady_clock::time_point time = {};
  bool is_recorded = false;
};
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new EmulatedEvent;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  if (event == nullptr) return cudaErrorInvalidValue;
  *event = {std::chrono::steady_clock::now(), true};
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return event == nullptr ? cudaErrorInvalidValue : cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  if (begin == nullptr || end == nullptr) return cudaErrorInvalidValue;
  if (!begin->is_recorded || !end->is_recorded) return cudaErrorInvalidValue;
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - begin->time).count();
  return cudaSuccess;
}

// [size, guard][bytes][guard].
cudaError_t cudaMallocAsync(void** memory, size_t bytes, cudaStream_t) {
  if (bytes > size_t{8} << 30) return cudaErrorMemoryAllocation;
  const size_t whole = (bytes + 2 * kGuardBytes + 255) / 256 * 256;
  auto* const block = static_cast<unsigned char*>(std::aligned_alloc(256, whole));
  if (block == nullptr) return cudaErrorMemoryAllocation;
  std::memset(block, kGuard, kGuardBytes);
  std::memcpy(block, &bytes, sizeof(bytes));
  std::memset(block + kGuardBytes, cuda_on_cpu::kPoison, bytes);
  std::memset(block + kGuardBytes + bytes, kGuard, kGuardBytes);
  *memory = block + kGuardBytes;
  return cudaSuccess;
}
cudaError_t cudaFreeAsync(void* memory, cudaStream_t) {
  auto* const block = static_cast<unsigned char*>(memory) - kGuardBytes;
  size_t bytes = 0;
  std::memcpy(&bytes, block, sizeof(bytes));
  const auto is_whole = [](const unsigned char* guard, size_t count) {
    return std::all_of(guard, guard + count, [](unsigned char c) { return c == kGuard; });
  };
  if (!is_whole(block + sizeof(bytes), kGuardBytes - sizeof(bytes)) ||
      !is_whole(block + kGuardBytes + bytes, kGuardBytes)) {
    cuda_on_cpu::Die("a write beyond an allocation");
  }
  std::free(block);
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) {
  *memory = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  return *memory == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
cudaError_t cudaFreeHost(void* memory) {
  std::free(memory);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                            cudaStream_t) {
  std::memmove(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
  std::memset(memory, value, bytes);
  return cudaSuccess;
}
