// Between llmc's tensors and LibTorch's, and the one seam where LibTorch's
// exceptions become statuses.
#ifndef LLMC_MODEL_TORCH_TENSOR_H_
#define LLMC_MODEL_TORCH_TENSOR_H_

#include <functional>

#include "ATen/core/Tensor.h"
#include "absl/strings/string_view.h"
#include "llmc/dtype.h"
#include "llmc/status.h"
#include "llmc/tensor.h"

namespace llmc {

at::ScalarType TorchType(DType dtype);
// kInvalidArgument for types that safetensors has no name for.
absl::StatusOr<DType> DTypeFrom(at::ScalarType type);

// The same bytes as a CPU tensor, which then owns them. No copy.
at::Tensor ToTorch(HostTensor tensor);

// A copy of `tensor` (any device, any strides) in host memory.
absl::StatusOr<HostTensor> ToHost(const at::Tensor& tensor);

// The bytes of a contiguous CPU tensor, borrowed. kInternal for another one.
absl::StatusOr<TensorView> ViewOf(const at::Tensor& tensor);

// Runs `work`; an exception of LibTorch or of the allocator becomes
// kResourceExhausted (out of memory) or kInternal, "where: what it said".
absl::Status CatchTorch(absl::string_view where, const std::function<void()>& work);

// Keeps every LibTorch operation on the thread that calls it, on all threads of
// ParallelFor, present and future, so that the bits do not depend on the number
// of threads and samples run side by side. Call once, early, from the main
// thread. LibTorch then never starts a thread of its own.
void UseOneThreadPerOperation();

}  // namespace llmc

#endif  // LLMC_MODEL_TORCH_TENSOR_H_
