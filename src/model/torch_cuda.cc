#include "model/torch_cuda.h"

#include "c10/cuda/CUDACachingAllocator.h"
#include "c10/cuda/CUDAGuard.h"
#include "c10/cuda/CUDAStream.h"

namespace llmc {

bool HasTorchCuda() { return true; }

at::Device TorchCudaDevice(int index) {
  return {at::kCUDA, static_cast<c10::DeviceIndex>(index)};
}

struct TorchStream::Impl {
  c10::cuda::CUDAStream stream;
};

TorchStream::TorchStream(int device, Purpose purpose)
    : impl_(new Impl{c10::cuda::getStreamFromPool(/*isHighPriority=*/purpose == Purpose::kCompute,
                                                  static_cast<c10::DeviceIndex>(device))}) {}
TorchStream::~TorchStream() = default;

void* TorchStream::stream() const { return impl_->stream.stream(); }

void TorchStream::Use(const at::Tensor& tensor) const {
  c10::cuda::CUDACachingAllocator::recordStream(tensor.storage().data_ptr(), impl_->stream);
}

struct TorchStream::Scope::Impl {
  c10::cuda::CUDAStreamGuard guard;
};

TorchStream::Scope::Scope(const TorchStream& stream)
    : impl_(new Impl{c10::cuda::CUDAStreamGuard(stream.impl_->stream)}) {}
TorchStream::Scope::~Scope() = default;

int64_t TorchCudaIdleBytes(int index) {
  const auto stats =
      c10::cuda::CUDACachingAllocator::getDeviceStats(static_cast<c10::DeviceIndex>(index));
  constexpr auto kAll =
      static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  return stats.reserved_bytes[kAll].current - stats.allocated_bytes[kAll].current;
}

}  // namespace llmc
