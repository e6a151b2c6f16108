// Where a rank computes: the CPUs of its host, or one CUDA device.
#ifndef LLMC_MODEL_COMPUTE_DEVICE_H_
#define LLMC_MODEL_COMPUTE_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "ATen/core/Tensor.h"
#include "absl/strings/string_view.h"
#include "kernels/device_queue.h"
#include "llmc/status.h"
#include "llmc/tensor.h"
#include "model/torch_cuda.h"

namespace llmc {

// One place to compute, LibTorch and the kernels alike. A device's work is ordered: what
// LibTorch does on the thread that opened it, and what goes to queue(), happens in the
// order of the calls. A device is used by that thread alone; the host by any.
class ComputeDevice {
 public:
  ~ComputeDevice();
  ComputeDevice(const ComputeDevice&) = delete;
  ComputeDevice& operator=(const ComputeDevice&) = delete;

  // The host: LibTorch's CPU operations, and the kernels without a queue.
  static const ComputeDevice& Host();

  // By --device: "cpu", "cuda" or "auto", which takes a CUDA device when there is one.
  // Ranks of one host take its devices in turn. kInvalidArgument, with the reason, when
  // "cuda" has no device.
  //
  // A CUDA device is opened with a stream of its own, which becomes LibTorch's current
  // one on this thread, and LibTorch is told to give equal bits for equal work: no TF32,
  // no sums in reduced precision, deterministic kernels, a fixed cuBLAS workspace.
  static absl::StatusOr<std::unique_ptr<ComputeDevice>> Choose(absl::string_view wanted,
                                                               int rank_on_host);

  // Why "auto" took the host though this program can use CUDA; empty: it did not, or
  // cannot.
  static std::string WhyHost(absl::string_view wanted);

  // The same CUDA device with a queue of its own, for another thread to copy with. That
  // thread makes its stream current (TorchStream::Scope). Work of the two is not ordered.
  absl::StatusOr<std::unique_ptr<ComputeDevice>> Beside() const;

  bool is_host() const { return queue_ == nullptr; }
  at::Device torch_device() const { return torch_device_; }
  // Tensors made on another stream are handed to this one; null on the host.
  const TorchStream* stream() const { return stream_.get(); }
  // Null on the host.
  kernels::DeviceQueue* queue() const { return queue_.get(); }
  // "cpu", "cuda (NVIDIA H200)".
  const std::string& name() const { return name_; }

  // Uninitialised memory of this device. kResourceExhausted.
  absl::StatusOr<at::Tensor> New(at::ScalarType type, const Shape& shape) const;
  absl::StatusOr<at::Tensor> Zeros(at::ScalarType type, const Shape& shape) const;

  // A copy of host bytes. Waits unless they are pinned.
  absl::StatusOr<at::Tensor> Upload(const TensorView& host) const;
  // The same of a whole tensor, which on the host is used as it is.
  absl::StatusOr<at::Tensor> Place(HostTensor host) const;
  // The elements of `tensor`, on this device, in host memory. Waits.
  absl::StatusOr<HostTensor> Download(const at::Tensor& tensor) const;
  absl::Status Download(const at::Tensor& tensor, std::span<std::byte> host) const;

  // `memory` as a tensor, which then owns it.
  at::Tensor Adopt(kernels::DeviceBuffer memory, at::ScalarType type, const Shape& shape) const;

  // Waits for all work so far; the first error of any of it.
  absl::Status Synchronize() const;

  // Device memory that this process may still allocate; 0 on the host.
  int64_t free_bytes() const;
  // Looks how much of the device this process holds; peak_bytes() is the most seen, 0 on
  // the host.
  void SampleMemory() const;
  int64_t peak_bytes() const { return peak_bytes_; }

 private:
  ComputeDevice();
  static absl::StatusOr<std::unique_ptr<ComputeDevice>> OpenCuda(int index,
                                                                 TorchStream::Purpose purpose);

  at::Device torch_device_;
  std::unique_ptr<TorchStream> stream_;           // Outlives the queue.
  std::unique_ptr<TorchStream::Scope> current_;  // On the thread of Choose.
  std::unique_ptr<kernels::DeviceQueue> queue_;
  std::string name_;
  int64_t free_at_start_ = 0;
  mutable int64_t peak_bytes_ = 0;
};

// Calls unit(i) for i in [0, num_units): on the host side by side, on a device in order on
// the calling thread, whose work its queue then overlaps. In inference mode.
void ForUnits(const ComputeDevice& device, int64_t num_units,
              const std::function<void(int64_t)>& unit);

}  // namespace llmc

#endif  // LLMC_MODEL_COMPUTE_DEVICE_H_
