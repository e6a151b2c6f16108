#include "calibration/tensor_collective.h"

namespace llmc {
namespace {

// The bytes of `tensor` in host memory while it is in use by a collective: its own on the
// host, a copy elsewhere.
class HostBytes {
 public:
  HostBytes(const ComputeDevice& device, at::Tensor& tensor) : device_(device), tensor_(tensor) {}

  absl::StatusOr<std::span<std::byte>> Take(bool is_read) {
    if (device_.is_host()) {
      return std::span(static_cast<std::byte*>(tensor_.data_ptr()), tensor_.nbytes());
    }
    LLMC_ASSIGN_OR_RETURN(copy_,
                          kernels::PinnedBuffer::Allocate(static_cast<int64_t>(tensor_.nbytes())));
    const std::span<std::byte> bytes(copy_.bytes(), tensor_.nbytes());
    if (is_read) LLMC_RETURN_IF_ERROR(device_.Download(tensor_, bytes));
    return bytes;
  }

  absl::Status PutBack() {
    if (device_.is_host()) return absl::OkStatus();
    LLMC_RETURN_IF_ERROR(device_.queue()->CopyToDevice(copy_.bytes(), copy_.num_bytes(),
                                                       tensor_.data_ptr()));
    return device_.Synchronize();
  }

 private:
  const ComputeDevice& device_;
  at::Tensor& tensor_;
  kernels::PinnedBuffer copy_;
};

}  // namespace

absl::Status ReduceSumTensor(Collective& collective, const ComputeDevice& device,
                             at::Tensor& values, int root) {
  if (collective.world_size() == 1) return absl::OkStatus();
  HostBytes host(device, values);
  const auto bytes = host.Take(/*is_read=*/true);
  LLMC_RETURN_IF_ERROR(collective.AgreeOnStatus(bytes.status()));
  const std::span<int64_t> sums(reinterpret_cast<int64_t*>(bytes->data()),
                                bytes->size() / sizeof(int64_t));
  LLMC_RETURN_IF_ERROR(root < 0 ? collective.AllReduceSum(sums) : collective.ReduceSum(sums, root));
  return root < 0 || root == collective.rank() ? host.PutBack() : absl::OkStatus();
}

absl::Status BroadcastTensor(Collective& collective, const ComputeDevice& device,
                             at::Tensor& tensor, int root) {
  if (collective.world_size() == 1) return absl::OkStatus();
  HostBytes host(device, tensor);
  const auto bytes = host.Take(/*is_read=*/collective.rank() == root);
  LLMC_RETURN_IF_ERROR(collective.AgreeOnStatus(bytes.status()));
  LLMC_RETURN_IF_ERROR(collective.Broadcast(*bytes, root));
  return collective.rank() == root ? absl::OkStatus() : host.PutBack();
}

}  // namespace llmc
