// A CUDA device as the kernels see it: an ordered queue of work, and memory.
//
// Every kernel that has a CUDA twin declares it beside the CPU one, as an overload that
// takes a DeviceQueue. Pointers of such an overload are device memory unless it says
// otherwise; it enqueues work and returns, except where it says that it waits. Errors
// of earlier work may come back from later calls. In a build without CUDA every one of
// them returns kUnimplemented (no_cuda.cc).
#ifndef LLMC_KERNELS_DEVICE_QUEUE_H_
#define LLMC_KERNELS_DEVICE_QUEUE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "llmc/status.h"

namespace llmc::kernels {

struct DeviceFacts {
  std::string name;            // "NVIDIA H200".
  int64_t total_bytes = 0;     // Of device memory.
  int64_t free_bytes = 0;      // Now.
  int compute_capability = 0;  // 90: 9.0.
  int num_multiprocessors = 0;
};

// Devices of this host that this process may use; 0 also without CUDA in the build.
int NumDevices();

// Why NumDevices() is 0: "this build has no CUDA", "CUDA: no driver", ...; empty: it is not.
std::string WhyNoDevice();

absl::StatusOr<DeviceFacts> FactsOfDevice(int device);

// Not thread-safe; one thread at a time.
class DeviceQueue {
 public:
  // `stream`: a cudaStream_t that outlives the queue (one of LibTorch's pool, so that its
  // operations and ours stay in order; its default stream is null and cannot be given);
  // null: a stream of its own.
  // kUnimplemented without CUDA, kNotFound when there is no such device.
  static absl::StatusOr<std::unique_ptr<DeviceQueue>> Create(int device, void* stream = nullptr);
  ~DeviceQueue();
  DeviceQueue(const DeviceQueue&) = delete;
  DeviceQueue& operator=(const DeviceQueue&) = delete;

  int device() const;
  void* stream() const;

  // Device memory is host memory: the kernels run on the CPU, for tests of their logic.
  static bool SharesHostMemory();

  // Waits until all work is done; the error of any of it.
  absl::Status Synchronize();

  // In the order of the queue. Copies of pageable host memory wait.
  absl::Status CopyToDevice(const void* host, int64_t num_bytes, void* device);
  absl::Status CopyToHost(const void* device, int64_t num_bytes, void* host);
  absl::Status Zero(void* device, int64_t num_bytes);

  struct Impl;  // Library handles; of the CUDA files of this folder.
  Impl& impl() { return *impl_; }

 private:
  explicit DeviceQueue(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// A point in the order of a queue. Copies are the same point.
class DeviceEvent {
 public:
  DeviceEvent() = default;
  // After all work that was enqueued so far.
  static absl::StatusOr<DeviceEvent> Record(DeviceQueue& queue);

  // Until the queue is there; on any thread, which sleeps.
  absl::Status Wait() const;

  // Device time between two points of one queue, which has passed both.
  absl::StatusOr<double> SecondsSince(const DeviceEvent& earlier) const;

 private:
  std::shared_ptr<void> event_;  // A cudaEvent_t.
};

// Owned device memory, 256-byte aligned, not initialised. Move-only. Freed when work
// that was enqueued before is done.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  // kResourceExhausted, with what is free, when it does not fit.
  static absl::StatusOr<DeviceBuffer> Allocate(DeviceQueue& queue, int64_t num_bytes);

  int64_t num_bytes() const { return num_bytes_; }
  explicit operator bool() const { return memory_ != nullptr; }

  template <typename T>
  T* as() {
    return static_cast<T*>(memory_.get());
  }
  template <typename T>
  const T* as() const {
    return static_cast<const T*>(memory_.get());
  }

 private:
  int64_t num_bytes_ = 0;
  std::shared_ptr<void> memory_;
};

// Host memory that a device copies to and from at full speed and without waiting.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  // kResourceExhausted when the host has no more to pin.
  static absl::StatusOr<PinnedBuffer> Allocate(int64_t num_bytes);

  int64_t num_bytes() const { return num_bytes_; }
  std::byte* bytes() { return static_cast<std::byte*>(memory_.get()); }
  const std::byte* bytes() const { return static_cast<const std::byte*>(memory_.get()); }

 private:
  int64_t num_bytes_ = 0;
  std::shared_ptr<void> memory_;
};

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_DEVICE_QUEUE_H_
