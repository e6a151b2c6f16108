// Weights between host memory and a device.
#ifndef LLMC_MODIFIERS_WEIGHT_STAGING_H_
#define LLMC_MODIFIERS_WEIGHT_STAGING_H_

#include <cstddef>
#include <optional>
#include <span>

#include "ATen/core/Tensor.h"
#include "kernels/device_queue.h"
#include "kernels/weight_grid.h"
#include "llmc/status.h"
#include "llmc/tensor.h"
#include "model/compute_device.h"

namespace llmc {

// Copies through pinned memory that it keeps, as much as the largest weight. For the thread
// of the device.
class WeightStaging {
 public:
  // A CUDA device, borrowed.
  explicit WeightStaging(const ComputeDevice& device) : device_(device) {}

  // `host` on the device. Waits for the upload before this one, not for its own.
  absl::StatusOr<at::Tensor> Upload(const TensorView& host);

  // The bytes of `tensor`, contiguous, in `host`. Waits.
  absl::Status Download(const at::Tensor& tensor, std::span<std::byte> host);

  // `weight`, which Upload gave, as the kernels take it. Borrowed.
  kernels::DeviceWeight Of(const at::Tensor& weight) const;

 private:
  absl::Status Reserve(int64_t num_bytes);

  const ComputeDevice& device_;
  kernels::PinnedBuffer pinned_;
  std::optional<kernels::DeviceEvent> uploaded_;  // Until then `pinned_` is in use.
};

}  // namespace llmc

#endif  // LLMC_MODIFIERS_WEIGHT_STAGING_H_
