// Communication between the ranks of one job on device memory, in step with the
// queue that makes and uses it: the sums of Hessians, factors, gathered rows.
//
// All ranks call the same operations in the same order with equal sizes and
// roots. Sums are of integers, so they have the same bits on every rank, whatever
// the transport and the number of ranks.
//
// Order: an operation begins when the work that `queue` held at the call is done,
// and runs beside what is added to the queue afterwards. Its memory must stay as
// it is, and allocated, until Join or Finish: Join lets a queue's later work see
// the results without making the host wait; Finish makes the host wait as well.
// A transport without the means for that is done when the call returns.
//
// Errors: a peer that does not arrive within the timeout, is gone or has aborted
// gives kUnavailable naming the operation, from Finish or the next call, and the
// same from every call after it; a device that fails gives its error. Either also
// ends the world, as Abort does, because peers wait for what cannot happen: under
// MPI a rank may see its end before the error. No queue waits for ever: what the
// operation held up goes on, with unspecified results, so ask Finish before use.
//
// Thread-safety: one call at a time per object, Abort at any time.
#ifndef LLMC_COLLECTIVE_DEVICE_COLLECTIVE_H_
#define LLMC_COLLECTIVE_DEVICE_COLLECTIVE_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/strings/string_view.h"
#include "collective/collective.h"
#include "kernels/device_queue.h"
#include "llmc/status.h"

namespace llmc {

class DeviceCollective {
 public:
  virtual ~DeviceCollective() = default;
  DeviceCollective(const DeviceCollective&) = delete;
  DeviceCollective& operator=(const DeviceCollective&) = delete;

  int rank() const { return host_.rank(); }
  int world_size() const { return host_.world_size(); }
  // "nccl 2.28.9", "staged" or "self", for the report.
  virtual std::string transport() const = 0;

  // Element-wise sums over ranks of `count` numbers, modulo 2^64.
  absl::Status AllReduceSum(kernels::DeviceQueue& queue, int64_t* values, int64_t count);
  // Only `root`'s values become the sums; the others keep theirs.
  absl::Status ReduceSum(kernels::DeviceQueue& queue, int64_t* values, int64_t count, int root);

  // Copies `root`'s bytes to the other ranks.
  absl::Status Broadcast(kernels::DeviceQueue& queue, void* bytes, int64_t num_bytes, int root);

  // Rank r has filled its place of `out`, the bytes [offsets[r], offsets[r + 1]); all
  // places are filled on all ranks. `offsets` (world_size + 1 of them, rising from 0)
  // is the same on all ranks. kInvalidArgument otherwise.
  absl::Status AllGather(kernels::DeviceQueue& queue, void* out, std::span<const int64_t> offsets);

  // Work that `queue` gets later begins after all operations so far.
  absl::Status Join(kernels::DeviceQueue& queue);
  // Waits for all operations so far, no longer than the timeout each.
  absl::Status Finish();

  // Ends the work of every rank, as Collective::Abort, and this rank's operations.
  void Abort(absl::string_view why);

 protected:
  static constexpr int kAllRanks = -1;

  explicit DeviceCollective(Collective& host) : host_(host) {}

  // What a transport implements; arguments have been checked and are not empty.
  virtual absl::Status DoReduce(absl::string_view name, kernels::DeviceQueue& queue,
                                std::span<int64_t> values, int root) = 0;
  virtual absl::Status DoBroadcast(absl::string_view name, kernels::DeviceQueue& queue,
                                   std::span<std::byte> bytes, int root) = 0;
  virtual absl::Status DoAllGather(absl::string_view name, kernels::DeviceQueue& queue,
                                   std::byte* out, std::span<const int64_t> offsets) = 0;
  virtual absl::Status DoJoin(kernels::DeviceQueue& queue) = 0;
  virtual absl::Status DoFinish() = 0;
  virtual void DoAbort(absl::string_view why) = 0;

  Collective& host_;

 private:
  absl::Status CheckRoot(absl::string_view name, int root) const;
};

enum class DeviceTransport {
  kAuto,    // NCCL; a world of one needs none.
  kStaged,  // Through host memory: ranks may share a device.
};

// "auto" or "staged"; kInvalidArgument otherwise.
absl::StatusOr<DeviceTransport> ParseDeviceTransport(absl::string_view name);

struct DeviceCollectiveOptions {
  DeviceTransport transport = DeviceTransport::kAuto;
  // How long one operation may take once it could begin. The start: the same, but five
  // minutes at most.
  std::chrono::milliseconds timeout = std::chrono::minutes(30);
};

// One rank a device by its place on the host; in turns when there are more ranks.
int DeviceOfRank(const Collective& host, int num_devices);

// The ranks of `host`, which outlives the result, each on its own `device`.
// Collective. kFailedPrecondition when two ranks name one device, which NCCL refuses
// (kStaged takes it), kUnimplemented when more than one rank asks for NCCL and the
// build has none, kUnavailable when NCCL cannot start.
absl::StatusOr<std::unique_ptr<DeviceCollective>> MakeDeviceCollective(
    Collective& host, int device, const DeviceCollectiveOptions& options = {});

// Copies to host memory and runs `host`'s operation there.
std::unique_ptr<DeviceCollective> MakeStagedDeviceCollective(Collective& host);

// By NCCL, also for a world of one. Errors as of MakeDeviceCollective.
absl::StatusOr<std::unique_ptr<DeviceCollective>> MakeNcclDeviceCollective(
    Collective& host, int device, std::chrono::milliseconds timeout);

}  // namespace llmc

#endif  // LLMC_COLLECTIVE_DEVICE_COLLECTIVE_H_
