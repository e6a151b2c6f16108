// The one file that knows NCCL. Its communicator is non-blocking: no call of it waits
// for a peer, so a peer that is gone costs a timeout and not the process.
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <fstream>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "collective/device_collective.h"

namespace llmc {
namespace {

using Clock = std::chrono::steady_clock;
using kernels::DeviceQueue;
using std::chrono::milliseconds;

// How often operations under way are looked at.
constexpr auto kLookInterval = milliseconds(5);
constexpr auto kWaitInterval = std::chrono::microseconds(50);
// A start is short; a rank that failed before it must not cost the operations' timeout.
constexpr auto kStartTimeout = std::chrono::minutes(5);

absl::Status CudaStatus(absl::string_view what, cudaError_t error) {
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(what, ": CUDA: ", cudaGetErrorString(error)));
}

// The calling thread's device, put back at the end.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    cudaGetDevice(&before_);
    status_ = CudaStatus("cudaSetDevice", cudaSetDevice(device));
  }
  ~OnDevice() { cudaSetDevice(before_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  const absl::Status& status() const { return status_; }

 private:
  int before_ = 0;
  absl::Status status_;
};

struct DestroyEvent {
  void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
};
using Event = std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, DestroyEvent>;

cudaStream_t StreamOf(DeviceQueue& queue) { return static_cast<cudaStream_t>(queue.stream()); }

class NcclDeviceCollective final : public DeviceCollective {
 public:
  NcclDeviceCollective(Collective& host, int device, milliseconds timeout)
      : DeviceCollective(host), device_(device), timeout_(timeout) {}

  ~NcclDeviceCollective() override {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      is_ending_ = true;
    }
    wake_watch_.notify_all();
    if (watch_.joinable()) watch_.join();
    const OnDevice on_device(device_);
    DestroyCommunicator();
    operations_.clear();
    spare_events_.clear();
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  // Collective.
  absl::Status Start(const ncclUniqueId& id) {
    absl::Status mine = Connect(id);
    if (mine.ok()) watch_ = std::thread([this] { Watch(); });
    return mine;
  }

  std::string transport() const override {
    int version = 0;
    ncclGetVersion(&version);
    return absl::StrCat("nccl ", version / 10000, ".", version / 100 % 100, ".", version % 100);
  }

 private:
  struct Operation {
    std::string name;
    Event may_begin;  // The queue's work before it is done.
    Event is_done;
    std::optional<Clock::time_point> begin;  // When may_begin was first seen done.
  };

  absl::Status DoReduce(absl::string_view name, DeviceQueue& queue, std::span<int64_t> values,
                        int root) override {
    return Run(name, queue, [&] {
      if (root == kAllRanks) {
        return ncclAllReduce(values.data(), values.data(), values.size(), ncclInt64, ncclSum,
                             communicator_, stream_);
      }
      return ncclReduce(values.data(), values.data(), values.size(), ncclInt64, ncclSum, root,
                        communicator_, stream_);
    });
  }

  absl::Status DoBroadcast(absl::string_view name, DeviceQueue& queue, std::span<std::byte> bytes,
                           int root) override {
    return Run(name, queue, [&] { return BroadcastBytes(bytes.data(), bytes.size(), root); });
  }

  absl::Status DoAllGather(absl::string_view name, DeviceQueue& queue, std::byte* out,
                           std::span<const int64_t> offsets) override {
    return Run(name, queue, [&] {
      // NCCL's own gather wants equal shares.
      ncclResult_t result = ncclGroupStart();
      for (int r = 0; r < world_size() && result == ncclSuccess; ++r) {
        const int64_t size = offsets[r + 1] - offsets[r];
        if (size > 0) result = BroadcastBytes(out + offsets[r], static_cast<size_t>(size), r);
      }
      const ncclResult_t ended = ncclGroupEnd();
      return result == ncclSuccess ? ended : result;
    });
  }

  absl::Status DoJoin(DeviceQueue& queue) override {
    const OnDevice on_device(device_);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!broken_.ok() || operations_.empty()) return broken_;
    return CudaStatus("Join",
                      cudaStreamWaitEvent(StreamOf(queue), operations_.back().is_done.get(), 0));
  }

  absl::Status DoFinish() override {
    const OnDevice on_device(device_);
    for (;;) {
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        Look();
        if (!broken_.ok() || operations_.empty()) return broken_;
      }
      std::this_thread::sleep_for(kWaitInterval);
    }
  }

  void DoAbort(absl::string_view why) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    Break(absl::UnavailableError(absl::StrCat("rank ", rank(), " aborted: ", why)));
    ends_world_ = false;  // The caller does.
  }

  ncclResult_t BroadcastBytes(std::byte* bytes, size_t size, int root) {
    return ncclBroadcast(bytes, bytes, size, ncclUint8, root, communicator_, stream_);
  }

  absl::Status Connect(const ncclUniqueId& id) {
    const OnDevice on_device(device_);
    LLMC_RETURN_IF_ERROR(on_device.status());
    int least = 0;
    int greatest = 0;
    LLMC_RETURN_IF_ERROR(CudaStatus("cudaDeviceGetStreamPriorityRange",
                                    cudaDeviceGetStreamPriorityRange(&least, &greatest)));
    LLMC_RETURN_IF_ERROR(
        CudaStatus("cudaStreamCreate",
                   cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest)));
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    const ncclResult_t result =
        ncclCommInitRankConfig(&communicator_, world_size(), id, rank(), &config);
    absl::Status started = Settle("start", result, std::min<milliseconds>(timeout_, kStartTimeout));
    const std::lock_guard<std::mutex> lock(mutex_);
    // Every rank learns of it when they agree on the start.
    if (!started.ok()) Break(started);
    ends_world_ = false;
    return started;
  }

  // Waits until NCCL has done what the host does of a call; the device's part goes on.
  absl::Status Settle(absl::string_view name, ncclResult_t result, milliseconds timeout) {
    const Clock::time_point deadline = Clock::now() + timeout;
    while (result == ncclInProgress) {
      if (Clock::now() > deadline) {
        return absl::UnavailableError(absl::StrCat(
            "NCCL: ", name, ": a rank did not arrive within ", timeout.count(), " ms"));
      }
      std::this_thread::sleep_for(kWaitInterval);
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!broken_.ok()) return broken_;
      if (ncclCommGetAsyncError(communicator_, &result) != ncclSuccess) result = ncclSystemError;
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    return NcclStatus(name, result);
  }

  absl::Status NcclStatus(absl::string_view name, ncclResult_t result) const {
    if (result == ncclSuccess) return absl::OkStatus();
    const std::string message =
        absl::StrCat("NCCL: ", name, ": ", ncclGetErrorString(result), ": ",
                     communicator_ != nullptr ? ncclGetLastError(communicator_) : "");
    const bool is_ours = result == ncclInvalidArgument || result == ncclInvalidUsage;
    return is_ours ? absl::InternalError(message) : absl::UnavailableError(message);
  }

  // Enqueues what `enqueue` gives to NCCL, after the work that `queue` holds now.
  template <typename Enqueue>
  absl::Status Run(absl::string_view name, DeviceQueue& queue, const Enqueue& enqueue) {
    const OnDevice on_device(device_);
    absl::Status status = on_device.status();
    Operation operation;
    operation.name = std::string(name);
    if (status.ok()) status = FollowQueue(queue, operation);
    if (status.ok()) status = Enqueued(name, enqueue);
    const std::unique_lock<std::mutex> lock(mutex_);
    if (status.ok() && broken_.ok()) {
      status = CudaStatus(name, cudaEventRecord(operation.is_done.get(), stream_));
    }
    if (!status.ok()) Break(status);
    if (broken_.ok()) operations_.push_back(std::move(operation));
    wake_watch_.notify_all();
    return broken_;
  }

  absl::Status FollowQueue(DeviceQueue& queue, Operation& operation) {
    const std::lock_guard<std::mutex> lock(mutex_);
    LLMC_RETURN_IF_ERROR(broken_);
    LLMC_ASSIGN_OR_RETURN(operation.may_begin, TakeEvent());
    LLMC_ASSIGN_OR_RETURN(operation.is_done, TakeEvent());
    LLMC_RETURN_IF_ERROR(
        CudaStatus(operation.name, cudaEventRecord(operation.may_begin.get(), StreamOf(queue))));
    return CudaStatus(operation.name, cudaStreamWaitEvent(stream_, operation.may_begin.get(), 0));
  }

  template <typename Enqueue>
  absl::Status Enqueued(absl::string_view name, const Enqueue& enqueue) {
    ncclResult_t result = ncclSuccess;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      LLMC_RETURN_IF_ERROR(broken_);
      result = enqueue();
    }
    return Settle(name, result, timeout_);
  }

  absl::StatusOr<Event> TakeEvent() {
    if (!spare_events_.empty()) {
      Event event = std::move(spare_events_.back());
      spare_events_.pop_back();
      return event;
    }
    cudaEvent_t event = nullptr;
    LLMC_RETURN_IF_ERROR(
        CudaStatus("cudaEventCreate", cudaEventCreateWithFlags(&event, cudaEventDisableTiming)));
    return Event(event);
  }

  // Sees failures while the ranks' own threads are elsewhere, even waiting for a queue.
  void Watch() {
    const OnDevice on_device(device_);
    std::unique_lock<std::mutex> lock(mutex_);
    while (!is_ending_) {
      wake_watch_.wait_for(lock, operations_.empty() ? milliseconds(1000) : kLookInterval);
      Look();
      if (broken_.ok()) continue;
      const bool ends_world = std::exchange(ends_world_, false);
      const std::string why(broken_.message());
      lock.unlock();
      if (ends_world) host_.Abort(why);
      return;
    }
  }

  // Retires what is done, and finds what has failed or takes too long.
  void Look() {
    while (broken_.ok() && !operations_.empty()) {
      Operation& first = operations_.front();
      if (!CheckCommunicator(first.name)) return;
      if (!first.begin && IsDone(first.name, first.may_begin)) first.begin = Clock::now();
      if (!first.begin || !IsDone(first.name, first.is_done)) return CheckTime(first);
      spare_events_.push_back(std::move(first.may_begin));
      spare_events_.push_back(std::move(first.is_done));
      operations_.pop_front();
    }
  }

  bool CheckCommunicator(absl::string_view name) {
    ncclResult_t state = ncclSuccess;
    if (ncclCommGetAsyncError(communicator_, &state) != ncclSuccess) state = ncclSystemError;
    if (state != ncclSuccess && state != ncclInProgress) Break(NcclStatus(name, state));
    return broken_.ok();
  }

  bool IsDone(absl::string_view name, const Event& event) {
    const cudaError_t state = cudaEventQuery(event.get());
    if (state != cudaSuccess && state != cudaErrorNotReady) Break(CudaStatus(name, state));
    return state == cudaSuccess;
  }

  void CheckTime(const Operation& operation) {
    if (!broken_.ok() || !operation.begin || Clock::now() - *operation.begin <= timeout_) return;
    Break(absl::UnavailableError(absl::StrCat(
        "NCCL: ", operation.name, ": a rank did not arrive within ", timeout_.count(), " ms")));
  }

  // With the mutex held. Lets what waits on the device go on; the watch ends the world.
  void Break(const absl::Status& status) {
    if (!broken_.ok()) return;
    broken_ = status;
    ends_world_ = true;
    if (communicator_ != nullptr) ncclCommAbort(std::exchange(communicator_, nullptr));
    wake_watch_.notify_all();
  }

  // Orderly, where nothing has failed and nothing is under way.
  void DestroyCommunicator() {
    if (communicator_ == nullptr) return;
    if (!operations_.empty()) {
      ncclCommAbort(communicator_);
      return;
    }
    ncclResult_t state = ncclCommFinalize(communicator_);
    const Clock::time_point deadline =
        Clock::now() + std::min<milliseconds>(timeout_, kStartTimeout);
    while (state == ncclInProgress && Clock::now() < deadline) {
      std::this_thread::yield();
      if (ncclCommGetAsyncError(communicator_, &state) != ncclSuccess) break;
    }
    state == ncclSuccess ? ncclCommDestroy(communicator_) : ncclCommAbort(communicator_);
  }

  const int device_;
  const milliseconds timeout_;
  cudaStream_t stream_ = nullptr;
  std::thread watch_;
  std::mutex mutex_;  // What follows, and every call of NCCL.
  std::condition_variable wake_watch_;
  ncclComm_t communicator_ = nullptr;
  std::deque<Operation> operations_;  // Under way, oldest first.
  std::vector<Event> spare_events_;
  absl::Status broken_;
  bool ends_world_ = false;
  bool is_ending_ = false;
};

// The machine and its PCI slot: what NCCL compares.
absl::StatusOr<std::string> PlaceOfDevice(int device) {
  char slot[32] = {};
  LLMC_RETURN_IF_ERROR(
      CudaStatus("cudaDeviceGetPCIBusId", cudaDeviceGetPCIBusId(slot, sizeof(slot), device)));
  // Containers of one machine differ in name, not in this.
  std::string machine;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> machine;
  return absl::StrCat("machine ", machine, ", PCI ", slot);
}

// Collective.
absl::Status CheckOneRankPerDevice(Collective& host, int device) {
  const absl::StatusOr<std::string> mine = PlaceOfDevice(device);
  LLMC_RETURN_IF_ERROR(host.AgreeOnStatus(mine.status()));
  LLMC_ASSIGN_OR_RETURN(const std::vector<std::string> places, host.AllGatherStrings(*mine));
  for (size_t r = 1; r < places.size(); ++r) {
    const auto first = std::find(places.begin(), places.begin() + r, places[r]);
    if (first == places.begin() + r) continue;
    return absl::FailedPreconditionError(absl::StrCat(
        "NCCL: ranks ", first - places.begin(), " and ", r, " are on one device (", places[r],
        "), expected a device for each rank; start fewer ranks, or choose the staged transport"));
  }
  return absl::OkStatus();
}

// Collective: rank 0's id on every rank.
absl::StatusOr<ncclUniqueId> ShareUniqueId(Collective& host) {
  ncclUniqueId id = {};
  absl::Status made;
  if (host.rank() == 0) {
    const ncclResult_t result = ncclGetUniqueId(&id);
    if (result != ncclSuccess) {
      made = absl::UnavailableError(absl::StrCat("NCCL: no id: ", ncclGetErrorString(result)));
    }
  }
  LLMC_RETURN_IF_ERROR(host.AgreeOnStatus(made));
  LLMC_RETURN_IF_ERROR(host.Broadcast(std::as_writable_bytes(std::span(&id, 1)), 0));
  return id;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceCollective>> MakeNcclDeviceCollective(Collective& host,
                                                                           int device,
                                                                           milliseconds timeout) {
  LLMC_RETURN_IF_ERROR(CheckOneRankPerDevice(host, device));
  LLMC_ASSIGN_OR_RETURN(const ncclUniqueId id, ShareUniqueId(host));
  auto collective = std::make_unique<NcclDeviceCollective>(host, device, timeout);
  LLMC_RETURN_IF_ERROR(host.AgreeOnStatus(collective->Start(id)));
  return std::unique_ptr<DeviceCollective>(std::move(collective));
}

}  // namespace llmc
