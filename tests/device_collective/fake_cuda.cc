#include "fake_cuda.h"

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <thread>

#include "absl/strings/str_cat.h"
#include "kernels/device_queue.h"

// The runtime's opaque types.
struct CUstream_st {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::function<void()>> work;
  bool is_busy = false;
  bool is_ending = false;
  std::thread thread{[this] { Work(); }};

  void Add(std::function<void()> item) {
    const std::lock_guard<std::mutex> lock(mutex);
    work.push_back(std::move(item));
    changed.notify_all();
  }
  void Wait() {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [this] { return work.empty() && !is_busy; });
  }
  ~CUstream_st() {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      is_ending = true;
      changed.notify_all();
    }
    thread.join();
  }

 private:
  void Work() {
    std::unique_lock<std::mutex> lock(mutex);
    for (;;) {
      changed.wait(lock, [this] { return is_ending || !work.empty(); });
      if (work.empty()) return;
      const std::function<void()> item = std::move(work.front());
      work.pop_front();
      is_busy = true;
      lock.unlock();
      item();
      lock.lock();
      is_busy = false;
      changed.notify_all();
    }
  }
};

struct CUevent_st {
  // Streams may outlive the event's handle.
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    int64_t recorded = 0;
    int64_t done = 0;
  };
  std::shared_ptr<State> state = std::make_shared<State>();
};

namespace llmc::fake {
namespace {

std::atomic<cudaError_t> query_error{cudaSuccess};
std::atomic<bool> is_one_slot{false};
thread_local int current_device = 0;

// Ranges of host memory that copies do not wait for.
std::mutex pinned_mutex;
std::map<const char*, int64_t> pinned;

bool IsPinned(const void* memory) {
  const std::lock_guard<std::mutex> lock(pinned_mutex);
  const auto next = pinned.upper_bound(static_cast<const char*>(memory));
  if (next == pinned.begin()) return false;
  const auto& [begin, num_bytes] = *std::prev(next);
  return static_cast<const char*>(memory) < begin + num_bytes;
}

void Copy(CUstream_st& stream, const void* from, void* to, int64_t num_bytes, const void* host) {
  stream.Add([=] { std::memcpy(to, from, num_bytes); });
  if (!IsPinned(host)) stream.Wait();
}

}  // namespace

void ResetNccl();

void Reset() {
  query_error = cudaSuccess;
  is_one_slot = false;
  ResetNccl();
}
void PutDevicesInOneSlot() { is_one_slot = true; }
void FailEventQueries(cudaError_t error) { query_error = error; }
void Enqueue(void* stream, std::function<void()> work) {
  static_cast<cudaStream_t>(stream)->Add(std::move(work));
}

}  // namespace llmc::fake

extern "C" {

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorIllegalAddress ? "an illegal memory access was encountered" : "an error";
}
cudaError_t cudaGetDevice(int* device) {
  *device = llmc::fake::current_device;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= llmc::fake::kNumDevices) return cudaErrorInvalidDevice;
  llmc::fake::current_device = device;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char* slot, int length, int device) {
  const int number = llmc::fake::is_one_slot ? 0 : device;
  std::snprintf(slot, length, "0000:%02x:00.0", number);
  return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned int, int) {
  *stream = new CUstream_st;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned int) {
  *event = new CUevent_st;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const auto state = event->state;
  const std::lock_guard<std::mutex> lock(state->mutex);
  stream->Add([state, number = ++state->recorded] {
    const std::lock_guard<std::mutex> in_stream(state->mutex);
    state->done = number;
    state->changed.notify_all();
  });
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned int) {
  const auto state = event->state;
  const std::lock_guard<std::mutex> lock(state->mutex);
  stream->Add([state, number = state->recorded] {
    std::unique_lock<std::mutex> in_stream(state->mutex);
    state->changed.wait(in_stream, [&] { return state->done >= number; });
  });
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (const cudaError_t error = llmc::fake::query_error; error != cudaSuccess) return error;
  const std::lock_guard<std::mutex> lock(event->state->mutex);
  return event->state->done == event->state->recorded ? cudaSuccess : cudaErrorNotReady;
}

}  // extern "C"

namespace llmc::kernels {

struct DeviceQueue::Impl {
  int device = 0;
  CUstream_st stream;
};

DeviceQueue::DeviceQueue(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DeviceQueue::~DeviceQueue() = default;

absl::StatusOr<std::unique_ptr<DeviceQueue>> DeviceQueue::Create(int device, void*) {
  auto impl = std::make_unique<Impl>();
  impl->device = device;
  return std::unique_ptr<DeviceQueue>(new DeviceQueue(std::move(impl)));
}
int DeviceQueue::device() const { return impl_->device; }
void* DeviceQueue::stream() const { return &impl_->stream; }

absl::Status DeviceQueue::Synchronize() {
  impl_->stream.Wait();
  return absl::OkStatus();
}
absl::Status DeviceQueue::CopyToDevice(const void* host, int64_t num_bytes, void* device) {
  fake::Copy(impl_->stream, host, device, num_bytes, host);
  return absl::OkStatus();
}
absl::Status DeviceQueue::CopyToHost(const void* device, int64_t num_bytes, void* host) {
  fake::Copy(impl_->stream, device, host, num_bytes, host);
  return absl::OkStatus();
}

absl::StatusOr<DeviceBuffer> DeviceBuffer::Allocate(DeviceQueue&, int64_t num_bytes) {
  DeviceBuffer buffer;
  buffer.num_bytes_ = num_bytes;
  buffer.memory_ = std::shared_ptr<char[]>(new char[num_bytes]);
  return buffer;
}
absl::StatusOr<PinnedBuffer> PinnedBuffer::Allocate(int64_t num_bytes) {
  char* const memory = new char[num_bytes];
  const std::lock_guard<std::mutex> lock(fake::pinned_mutex);
  fake::pinned[memory] = num_bytes;
  PinnedBuffer buffer;
  buffer.num_bytes_ = num_bytes;
  buffer.memory_ = std::shared_ptr<void>(memory, [memory](void*) {
    const std::lock_guard<std::mutex> unpinning(fake::pinned_mutex);
    fake::pinned.erase(memory);
    delete[] memory;
  });
  return buffer;
}

}  // namespace llmc::kernels
