#include "modifiers/weight_staging.h"

#include <algorithm>
#include <cstring>

#include "llmc/parallel.h"
#include "model/torch_tensor.h"

namespace llmc {
namespace {

// One thread copies slower than a device takes it.
void CopyBytes(const std::byte* from, int64_t num_bytes, std::byte* to) {
  constexpr int64_t kUnit = 4 << 20;
  ParallelFor((num_bytes + kUnit - 1) / kUnit, [&](int64_t unit) {
    const int64_t first = unit * kUnit;
    std::memcpy(to + first, from + first, std::min(kUnit, num_bytes - first));
  });
}

}  // namespace

absl::Status WeightStaging::Reserve(int64_t num_bytes) {
  if (uploaded_) LLMC_RETURN_IF_ERROR(uploaded_->Wait());
  uploaded_.reset();
  if (pinned_.num_bytes() >= num_bytes) return absl::OkStatus();
  pinned_ = kernels::PinnedBuffer();
  LLMC_ASSIGN_OR_RETURN(pinned_, kernels::PinnedBuffer::Allocate(num_bytes));
  return absl::OkStatus();
}

absl::StatusOr<at::Tensor> WeightStaging::Upload(const TensorView& host) {
  LLMC_RETURN_IF_ERROR(Reserve(std::ssize(host.bytes)));
  CopyBytes(host.bytes.data(), std::ssize(host.bytes), pinned_.bytes());
  const std::span<const std::byte> staged(pinned_.bytes(), host.bytes.size());
  LLMC_ASSIGN_OR_RETURN(at::Tensor weight, device_.Upload({host.dtype, host.shape, staged}));
  LLMC_ASSIGN_OR_RETURN(uploaded_, kernels::DeviceEvent::Record(*device_.queue()));
  return weight;
}

absl::Status WeightStaging::Download(const at::Tensor& tensor, std::span<std::byte> host) {
  LLMC_RETURN_IF_ERROR(Reserve(std::ssize(host)));
  LLMC_RETURN_IF_ERROR(device_.Download(tensor, {pinned_.bytes(), host.size()}));
  CopyBytes(pinned_.bytes(), std::ssize(host), host.data());
  return absl::OkStatus();
}

kernels::DeviceWeight WeightStaging::Of(const at::Tensor& weight) const {
  kernels::DeviceWeight view;
  view.elements = weight.const_data_ptr();
  view.dtype = weight.scalar_type() == at::kBFloat16 ? DType::kBF16
               : weight.scalar_type() == at::kHalf   ? DType::kF16
                                                     : DType::kF32;
  view.rows = weight.size(0);
  view.columns = weight.size(1);
  view.queue = device_.queue();
  return view;
}

}  // namespace llmc
