// Without CUDA, or with CUDA's sources compiled for the CPU (tests).

#include "model/torch_cuda.h"

namespace llmc {

bool HasTorchCuda() { return false; }

at::Device TorchCudaDevice(int) { return at::Device(at::kCPU); }

struct TorchStream::Impl {};

TorchStream::TorchStream(int, Purpose) {}
TorchStream::~TorchStream() = default;
void* TorchStream::stream() const { return nullptr; }
void TorchStream::Use(const at::Tensor&) const {}

struct TorchStream::Scope::Impl {};

TorchStream::Scope::Scope(const TorchStream&) {}
TorchStream::Scope::~Scope() = default;

int64_t TorchCudaIdleBytes(int) { return 0; }

}  // namespace llmc
