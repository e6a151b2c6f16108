#include "model/compute_device.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "ATen/Context.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/from_blob.h"
#include "ATen/ops/zeros.h"
#include "absl/strings/str_cat.h"
#include "c10/core/InferenceMode.h"
#include "llmc/parallel.h"
#include "model/torch_cuda.h"
#include "model/torch_tensor.h"

namespace llmc {
namespace {

// Before the first cuBLAS handle. A workspace of fixed size is what makes cuBLAS give
// equal bits (its documentation, "Results reproducibility").
void FixCublasWorkspace() { setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0); }

void MakeTorchDeterministic() {
  at::Context& context = at::globalContext();
  context.setAllowTF32CuBLAS(false);
  context.setAllowTF32CuDNN(false);
  context.setAllowBF16ReductionCuBLAS(false);
  context.setAllowFP16ReductionCuBLAS(false);
  context.setDeterministicAlgorithms(true, /*warn_only=*/false);
  // New memory would be filled with NaN at every allocation.
  context.setDeterministicFillUninitializedMemory(false);
}

std::span<std::byte> BytesOf(const at::Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.data_ptr()), static_cast<size_t>(tensor.nbytes())};
}

}  // namespace

const ComputeDevice& ComputeDevice::Host() {
  static const ComputeDevice* const kHost = new ComputeDevice;
  return *kHost;
}

absl::StatusOr<std::unique_ptr<ComputeDevice>> ComputeDevice::Choose(absl::string_view wanted,
                                                                     int rank_on_host) {
  const int num_devices = wanted == "cpu" ? 0 : kernels::NumDevices();
  if (num_devices > 0) {
    FixCublasWorkspace();
    MakeTorchDeterministic();
    LLMC_ASSIGN_OR_RETURN(
        std::unique_ptr<ComputeDevice> device,
        OpenCuda(rank_on_host % num_devices, TorchStream::Purpose::kCompute));
    device->current_ = std::make_unique<TorchStream::Scope>(*device->stream_);
    return device;
  }
  if (wanted == "cuda") {
    return absl::InvalidArgumentError(absl::StrCat("--device cuda: ", kernels::WhyNoDevice()));
  }
  return std::unique_ptr<ComputeDevice>(new ComputeDevice);
}

std::string ComputeDevice::WhyHost(absl::string_view wanted) {
  if (wanted != "auto" || !HasTorchCuda() || kernels::NumDevices() > 0) return "";
  return absl::StrCat("--device auto: computing on the CPU: ", kernels::WhyNoDevice());
}

absl::StatusOr<std::unique_ptr<ComputeDevice>> ComputeDevice::OpenCuda(
    int index, TorchStream::Purpose purpose) {
  std::unique_ptr<ComputeDevice> device(new ComputeDevice);
  LLMC_RETURN_IF_ERROR(CatchTorch(absl::StrCat("CUDA device ", index), [&] {
    device->torch_device_ = TorchCudaDevice(index);
    device->stream_ = std::make_unique<TorchStream>(index, purpose);
  }));
  LLMC_ASSIGN_OR_RETURN(device->queue_,
                        kernels::DeviceQueue::Create(index, device->stream_->stream()));
  LLMC_ASSIGN_OR_RETURN(const kernels::DeviceFacts facts, kernels::FactsOfDevice(index));
  device->name_ = absl::StrCat("cuda (", facts.name, ")");
  device->free_at_start_ = facts.free_bytes;
  return device;
}

absl::StatusOr<std::unique_ptr<ComputeDevice>> ComputeDevice::Beside() const {
  return OpenCuda(queue_->device(), TorchStream::Purpose::kCopy);
}

ComputeDevice::ComputeDevice() : torch_device_(at::kCPU), name_("cpu") {}
ComputeDevice::~ComputeDevice() = default;

absl::StatusOr<at::Tensor> ComputeDevice::New(at::ScalarType type, const Shape& shape) const {
  at::Tensor tensor;
  LLMC_RETURN_IF_ERROR(CatchTorch(name_, [&] {
    tensor = at::empty(shape, at::TensorOptions().dtype(type).device(torch_device_));
  }));
  return tensor;
}

absl::StatusOr<at::Tensor> ComputeDevice::Zeros(at::ScalarType type, const Shape& shape) const {
  at::Tensor tensor;
  LLMC_RETURN_IF_ERROR(CatchTorch(name_, [&] {
    tensor = at::zeros(shape, at::TensorOptions().dtype(type).device(torch_device_));
  }));
  return tensor;
}

absl::StatusOr<at::Tensor> ComputeDevice::Upload(const TensorView& host) const {
  LLMC_ASSIGN_OR_RETURN(at::Tensor tensor, New(TorchType(host.dtype), host.shape));
  if (is_host()) {
    std::copy(host.bytes.begin(), host.bytes.end(), BytesOf(tensor).begin());
    return tensor;
  }
  const int64_t num_bytes = static_cast<int64_t>(host.bytes.size());
  LLMC_RETURN_IF_ERROR(queue_->CopyToDevice(host.bytes.data(), num_bytes, tensor.data_ptr()));
  return tensor;
}

absl::StatusOr<at::Tensor> ComputeDevice::Place(HostTensor host) const {
  if (is_host()) return ToTorch(std::move(host));
  return Upload(host.view());
}

absl::Status ComputeDevice::Download(const at::Tensor& tensor, std::span<std::byte> host) const {
  at::Tensor dense;
  LLMC_RETURN_IF_ERROR(CatchTorch(name_, [&] { dense = tensor.contiguous(); }));
  if (dense.nbytes() != host.size()) {
    return absl::InternalError(absl::StrCat("download of ", dense.nbytes(), " bytes, expected ",
                                            host.size()));
  }
  if (is_host()) {
    std::memcpy(host.data(), dense.const_data_ptr(), host.size());
    return absl::OkStatus();
  }
  LLMC_RETURN_IF_ERROR(queue_->CopyToHost(dense.const_data_ptr(),
                                          static_cast<int64_t>(host.size()), host.data()));
  return queue_->Synchronize();
}

absl::StatusOr<HostTensor> ComputeDevice::Download(const at::Tensor& tensor) const {
  LLMC_ASSIGN_OR_RETURN(const DType dtype, DTypeFrom(tensor.scalar_type()));
  HostTensor host(dtype, tensor.sizes().vec());
  LLMC_RETURN_IF_ERROR(Download(tensor, host.bytes()));
  return host;
}

at::Tensor ComputeDevice::Adopt(kernels::DeviceBuffer memory, at::ScalarType type,
                                const Shape& shape) const {
  auto owner = std::make_shared<kernels::DeviceBuffer>(std::move(memory));
  return at::from_blob(
      owner->as<void>(), shape, [owner](void*) mutable { owner.reset(); },
      at::TensorOptions().dtype(type).device(torch_device_), torch_device_);
}

absl::Status ComputeDevice::Synchronize() const {
  return is_host() ? absl::OkStatus() : queue_->Synchronize();
}

int64_t ComputeDevice::free_bytes() const {
  if (is_host()) return 0;
  const absl::StatusOr<kernels::DeviceFacts> facts = kernels::FactsOfDevice(queue_->device());
  return facts.ok() ? facts->free_bytes + TorchCudaIdleBytes(queue_->device()) : 0;
}

void ComputeDevice::SampleMemory() const {
  if (is_host()) return;
  const absl::StatusOr<kernels::DeviceFacts> facts = kernels::FactsOfDevice(queue_->device());
  if (facts.ok()) peak_bytes_ = std::max(peak_bytes_, free_at_start_ - facts->free_bytes);
}

void ForUnits(const ComputeDevice& device, int64_t num_units,
              const std::function<void(int64_t)>& unit) {
  const auto run = [&](int64_t i) {
    c10::InferenceMode guard;
    unit(i);
  };
  if (device.is_host()) return ParallelFor(num_units, run);
  for (int64_t i = 0; i < num_units; ++i) run(i);
}

}  // namespace llmc
