// Element types of stored tensors, named as safetensors names them.
#ifndef LLMC_DTYPE_H_
#define LLMC_DTYPE_H_

#include <cstdint>

#include "absl/strings/string_view.h"
#include "llmc/status.h"

namespace llmc {

enum class DType : uint8_t {
  kBool,
  kU8,
  kI8,
  kF8E4M3,
  kF8E5M2,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kF64,
  kI64,
  kU64,
};

// Bytes of one element.
int64_t ElementSize(DType dtype);

// "BF16", "F8_E4M3", ...: the tag in a safetensors header.
absl::string_view SafetensorsName(DType dtype);

// "torch.bfloat16", "torch.float8_e4m3fn", ...: the name in config files.
absl::string_view TorchName(DType dtype);

// kInvalidArgument when `name` is not a safetensors dtype tag that llmc reads.
absl::StatusOr<DType> DTypeFromSafetensors(absl::string_view name);

// Accepts "torch.bfloat16" and "bfloat16". kInvalidArgument when unknown.
absl::StatusOr<DType> DTypeFromTorch(absl::string_view name);

// True for the types a dense weight may have: F64, F32, F16, BF16.
bool IsDenseFloat(DType dtype);

}  // namespace llmc

#endif  // LLMC_DTYPE_H_
