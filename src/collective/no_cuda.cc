#include "collective/device_collective.h"

namespace llmc {

absl::StatusOr<std::unique_ptr<DeviceCollective>> MakeNcclDeviceCollective(
    Collective&, int, std::chrono::milliseconds) {
  return absl::UnimplementedError("NCCL: this build has no CUDA");
}

}  // namespace llmc
