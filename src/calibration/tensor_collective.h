// Collective operations on tensors that may lie on a device.
#ifndef LLMC_CALIBRATION_TENSOR_COLLECTIVE_H_
#define LLMC_CALIBRATION_TENSOR_COLLECTIVE_H_

#include "ATen/core/Tensor.h"
#include "collective/collective.h"
#include "llmc/status.h"
#include "model/compute_device.h"

namespace llmc {

// Collective: sums `values`, I64, contiguous, over ranks into `root`'s; root -1: into all.
absl::Status ReduceSumTensor(Collective& collective, const ComputeDevice& device,
                             at::Tensor& values, int root);

// Collective: `root`'s elements in `tensor` of every rank; contiguous, and of the same
// shape and type everywhere.
absl::Status BroadcastTensor(Collective& collective, const ComputeDevice& device,
                             at::Tensor& tensor, int root);

}  // namespace llmc

#endif  // LLMC_CALIBRATION_TENSOR_COLLECTIVE_H_
