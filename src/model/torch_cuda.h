// The few calls of LibTorch that only its CUDA libraries have. torch_cuda.cc is in builds
// with CUDA; no_cuda.cc stands in elsewhere, where device memory is host memory.
#ifndef LLMC_MODEL_TORCH_CUDA_H_
#define LLMC_MODEL_TORCH_CUDA_H_

#include <cstdint>
#include <memory>

#include "ATen/core/Tensor.h"

namespace llmc {

// Whether this build can use CUDA at all.
bool HasTorchCuda();

// LibTorch's name of a device.
at::Device TorchCudaDevice(int index);

// A stream of LibTorch's pool. Streams of the two purposes are never the same.
class TorchStream {
 public:
  enum class Purpose : uint8_t { kCompute, kCopy };
  TorchStream(int device, Purpose purpose);
  ~TorchStream();
  TorchStream(const TorchStream&) = delete;
  TorchStream& operator=(const TorchStream&) = delete;

  void* stream() const;  // A cudaStream_t; null without CUDA.

  // `tensor` was made on another stream: its memory is not given away before this one has
  // done what was enqueued on it by the time the tensor ends.
  void Use(const at::Tensor& tensor) const;

  // Makes the stream LibTorch's current one on this thread, until it ends there.
  class Scope {
   public:
    explicit Scope(const TorchStream& stream);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
  };

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Of LibTorch's own memory: what it holds without using it, ready to be used again.
int64_t TorchCudaIdleBytes(int index);

}  // namespace llmc

#endif  // LLMC_MODEL_TORCH_CUDA_H_
