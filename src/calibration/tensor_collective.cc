#include "calibration/tensor_collective.h"

#include <span>

namespace llmc {

absl::Status ReduceSumTensor(Collective& host, const RankPlace& place, const at::Tensor& values,
                             int root) {
  if (host.world_size() == 1) return absl::OkStatus();
  auto* const numbers = static_cast<int64_t*>(values.data_ptr());
  if (place.device->is_host()) {
    const std::span<int64_t> sums(numbers, static_cast<size_t>(values.numel()));
    return root < 0 ? host.AllReduceSum(sums) : host.ReduceSum(sums, root);
  }
  kernels::DeviceQueue& queue = *place.device->queue();
  LLMC_RETURN_IF_ERROR(root < 0
                           ? place.collective->AllReduceSum(queue, numbers, values.numel())
                           : place.collective->ReduceSum(queue, numbers, values.numel(), root));
  return place.collective->Join(queue);
}

absl::Status BroadcastTensor(Collective& host, const RankPlace& place, const at::Tensor& tensor,
                             int root) {
  if (host.world_size() == 1) return absl::OkStatus();
  if (place.device->is_host()) {
    return host.Broadcast({static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes()}, root);
  }
  kernels::DeviceQueue& queue = *place.device->queue();
  LLMC_RETURN_IF_ERROR(place.collective->Broadcast(
      queue, tensor.data_ptr(), static_cast<int64_t>(tensor.nbytes()), root));
  return place.collective->Join(queue);
}

}  // namespace llmc
