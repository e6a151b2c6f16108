// Collective operations on tensors that lie where the ranks compute.
#ifndef LLMC_CALIBRATION_TENSOR_COLLECTIVE_H_
#define LLMC_CALIBRATION_TENSOR_COLLECTIVE_H_

#include "ATen/core/Tensor.h"
#include "collective/collective.h"
#include "collective/device_collective.h"
#include "llmc/status.h"
#include "model/compute_device.h"

namespace llmc {

// Where a rank computes, and how what lies there reaches the other ranks. All borrowed.
struct RankPlace {
  const ComputeDevice* device = &ComputeDevice::Host();
  DeviceCollective* collective = nullptr;  // Null on the host.
};

// Collective: sums `values`, I64, contiguous, over ranks into `root`'s; root -1: into all.
// On a device later work of its queue sees the sums.
absl::Status ReduceSumTensor(Collective& host, const RankPlace& place, const at::Tensor& values,
                             int root);

// Collective: `root`'s elements in `tensor` of every rank; contiguous, and of the same
// shape and type everywhere.
absl::Status BroadcastTensor(Collective& host, const RankPlace& place, const at::Tensor& tensor,
                             int root);

}  // namespace llmc

#endif  // LLMC_CALIBRATION_TENSOR_COLLECTIVE_H_
