// What a thread beside the one that computes copies to or from a device with.
#ifndef LLMC_PIPELINE_COPY_LANE_H_
#define LLMC_PIPELINE_COPY_LANE_H_

#include <cstdint>
#include <memory>

#include "kernels/device_queue.h"
#include "llmc/status.h"
#include "model/compute_device.h"

namespace llmc {

// One user at a time.
struct CopyLane {
  std::unique_ptr<ComputeDevice> device;  // ComputeDevice::Beside.
  kernels::PinnedBuffer staging;          // As large as anybody needed.

  // The first `num_bytes` of `staging`, which grows; what was copied from it is done.
  absl::StatusOr<std::byte*> Staging(int64_t num_bytes) {
    if (staging.num_bytes() < num_bytes) {
      staging = kernels::PinnedBuffer();
      LLMC_ASSIGN_OR_RETURN(staging, kernels::PinnedBuffer::Allocate(num_bytes));
    }
    return staging.bytes();
  }
};

}  // namespace llmc

#endif  // LLMC_PIPELINE_COPY_LANE_H_
