#include "model/torch_tensor.h"

#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <utility>

#include "ATen/Parallel.h"
#include "ATen/ops/from_blob.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace llmc {
namespace {

constexpr std::pair<DType, at::ScalarType> kTypes[] = {
    {DType::kBool, at::kBool},
    {DType::kU8, at::kByte},
    {DType::kI8, at::kChar},
    {DType::kF8E4M3, at::kFloat8_e4m3fn},
    {DType::kF8E5M2, at::kFloat8_e5m2},
    {DType::kI16, at::kShort},
    {DType::kU16, at::kUInt16},
    {DType::kF16, at::kHalf},
    {DType::kBF16, at::kBFloat16},
    {DType::kI32, at::kInt},
    {DType::kU32, at::kUInt32},
    {DType::kF32, at::kFloat},
    {DType::kF64, at::kDouble},
    {DType::kI64, at::kLong},
    {DType::kU64, at::kUInt64},
};

absl::Status FromMessage(absl::string_view where, absl::string_view message) {
  // LibTorch appends a stack trace to what it says.
  const absl::string_view first_line = message.substr(0, message.find('\n'));
  const std::string text = absl::StrCat(where, ": LibTorch: ", first_line);
  const bool memory = absl::StrContains(message, "allocate memory") ||
                      absl::StrContains(message, "out of memory") ||
                      absl::StrContains(message, "not enough memory");
  return memory ? absl::ResourceExhaustedError(text) : absl::InternalError(text);
}

}  // namespace

at::ScalarType TorchType(DType dtype) {
  for (const auto& [ours, theirs] : kTypes) {
    if (ours == dtype) return theirs;
  }
  return at::ScalarType::Undefined;
}

absl::StatusOr<DType> DTypeFrom(at::ScalarType type) {
  for (const auto& [ours, theirs] : kTypes) {
    if (theirs == type) return ours;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("tensor: dtype ", c10::toString(type), ", expected one that is stored"));
}

at::Tensor ToTorch(HostTensor tensor) {
  const at::ScalarType type = TorchType(tensor.dtype());
  auto owner = std::make_shared<HostTensor>(std::move(tensor));
  return at::from_blob(
      owner->bytes().data(), owner->shape(), [owner](void*) mutable { owner.reset(); },
      at::TensorOptions().dtype(type));
}

absl::StatusOr<HostTensor> ToHost(const at::Tensor& tensor) {
  LLMC_ASSIGN_OR_RETURN(const DType dtype, DTypeFrom(tensor.scalar_type()));
  const at::Tensor source = tensor.detach().to(at::kCPU).contiguous();
  HostTensor copy(dtype, source.sizes().vec());
  std::memcpy(copy.bytes().data(), source.const_data_ptr(), copy.num_bytes());
  return copy;
}

absl::StatusOr<TensorView> ViewOf(const at::Tensor& tensor) {
  if (!tensor.device().is_cpu() || !tensor.is_contiguous()) {
    return absl::InternalError("tensor: not in host memory in one piece");
  }
  LLMC_ASSIGN_OR_RETURN(const DType dtype, DTypeFrom(tensor.scalar_type()));
  const auto* bytes = static_cast<const std::byte*>(tensor.const_data_ptr());
  return TensorView{dtype, tensor.sizes().vec(), {bytes, tensor.nbytes()}};
}

absl::Status CatchTorch(absl::string_view where, const std::function<void()>& work) {
  try {
    work();
    return absl::OkStatus();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(absl::StrCat(where, ": out of memory"));
  } catch (const c10::Error& error) {
    return FromMessage(where, error.what_without_backtrace());
  } catch (const std::exception& error) {
    return FromMessage(where, error.what());
  }
}

// LibTorch keeps the number in a global and every thread adopts it at its first
// parallel operation, before any thread of its own would start.
void UseOneThreadPerOperation() { at::set_num_threads(1); }

}  // namespace llmc
