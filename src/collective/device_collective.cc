#include "collective/device_collective.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace llmc {

absl::Status DeviceCollective::CheckRoot(absl::string_view name, int root) const {
  if (root >= 0 && root < world_size()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name, ": root ", root, ", expected one of ", world_size(), " ranks"));
}

absl::Status DeviceCollective::AllReduceSum(kernels::DeviceQueue& queue, int64_t* values,
                                            int64_t count) {
  if (count == 0) return absl::OkStatus();
  return DoReduce("AllReduceSum", queue, {values, static_cast<size_t>(count)}, kAllRanks);
}

absl::Status DeviceCollective::ReduceSum(kernels::DeviceQueue& queue, int64_t* values,
                                         int64_t count, int root) {
  LLMC_RETURN_IF_ERROR(CheckRoot("ReduceSum", root));
  if (count == 0) return absl::OkStatus();
  return DoReduce("ReduceSum", queue, {values, static_cast<size_t>(count)}, root);
}

absl::Status DeviceCollective::Broadcast(kernels::DeviceQueue& queue, void* bytes,
                                         int64_t num_bytes, int root) {
  LLMC_RETURN_IF_ERROR(CheckRoot("Broadcast", root));
  if (num_bytes == 0) return absl::OkStatus();
  return DoBroadcast("Broadcast", queue,
                     {static_cast<std::byte*>(bytes), static_cast<size_t>(num_bytes)}, root);
}

absl::Status DeviceCollective::AllGather(kernels::DeviceQueue& queue, void* out,
                                         std::span<const int64_t> offsets) {
  const bool well_formed = std::ssize(offsets) == world_size() + 1 && offsets.front() == 0 &&
                           std::is_sorted(offsets.begin(), offsets.end());
  if (!well_formed) {
    return absl::InvalidArgumentError(absl::StrCat(
        "AllGather: offsets, expected ", world_size() + 1, " rising numbers that begin with 0"));
  }
  if (offsets.back() == 0) return absl::OkStatus();
  return DoAllGather("AllGather", queue, static_cast<std::byte*>(out), offsets);
}

absl::Status DeviceCollective::Join(kernels::DeviceQueue& queue) { return DoJoin(queue); }

absl::Status DeviceCollective::Finish() { return DoFinish(); }

void DeviceCollective::Abort(absl::string_view why) {
  DoAbort(why);
  host_.Abort(why);
}

absl::StatusOr<DeviceTransport> ParseDeviceTransport(absl::string_view name) {
  if (name == "auto") return DeviceTransport::kAuto;
  if (name == "staged") return DeviceTransport::kStaged;
  return absl::InvalidArgumentError(
      absl::StrCat("device transport: ", name, ", expected auto or staged"));
}

int DeviceOfRank(const Collective& host, int num_devices) {
  return host.rank_on_host() % num_devices;
}

absl::StatusOr<std::unique_ptr<DeviceCollective>> MakeDeviceCollective(
    Collective& host, int device, const DeviceCollectiveOptions& options) {
  if (host.world_size() == 1 || options.transport == DeviceTransport::kStaged) {
    return MakeStagedDeviceCollective(host);
  }
  return MakeNcclDeviceCollective(host, device, options.timeout);
}

}  // namespace llmc
