// The error that changing a weight makes in its layer's output.
#ifndef LLMC_MODIFIERS_OUTPUT_ERROR_H_
#define LLMC_MODIFIERS_OUTPUT_ERROR_H_

#include "ATen/core/Tensor.h"
#include "llmc/status.h"
#include "llmc/tensor.h"
#include "model/compute_device.h"

namespace llmc {

// sum_r e_r^T H e_r with e = dense - changed (undefined: 0). F32 [rows, in_features] and
// [in_features, in_features], on `device`. Waits.
absl::StatusOr<double> OutputErrorOf(const ComputeDevice& device, const at::Tensor& dense,
                                     const at::Tensor& changed, const at::Tensor& hessian);

// tr(W H W^T) of one weight, [out_features, in_features], estimated from up to 512
// evenly spaced rows: what a relative output error is a fraction of.
absl::StatusOr<double> OutputEnergy(const ComputeDevice& device, const HostTensor& weight,
                                    const at::Tensor& hessian);

}  // namespace llmc

#endif  // LLMC_MODIFIERS_OUTPUT_ERROR_H_
