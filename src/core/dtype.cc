#include "llmc/dtype.h"

#include <array>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace llmc {
namespace {

struct DTypeNames {
  DType dtype;
  int size_bytes;
  absl::string_view safetensors;
  absl::string_view torch;
};

constexpr std::array<DTypeNames, 15> kNames = {{
    {DType::kBool, 1, "BOOL", "torch.bool"},
    {DType::kU8, 1, "U8", "torch.uint8"},
    {DType::kI8, 1, "I8", "torch.int8"},
    {DType::kF8E4M3, 1, "F8_E4M3", "torch.float8_e4m3fn"},
    {DType::kF8E5M2, 1, "F8_E5M2", "torch.float8_e5m2"},
    {DType::kI16, 2, "I16", "torch.int16"},
    {DType::kU16, 2, "U16", "torch.uint16"},
    {DType::kF16, 2, "F16", "torch.float16"},
    {DType::kBF16, 2, "BF16", "torch.bfloat16"},
    {DType::kI32, 4, "I32", "torch.int32"},
    {DType::kU32, 4, "U32", "torch.uint32"},
    {DType::kF32, 4, "F32", "torch.float32"},
    {DType::kF64, 8, "F64", "torch.float64"},
    {DType::kI64, 8, "I64", "torch.int64"},
    {DType::kU64, 8, "U64", "torch.uint64"},
}};

const DTypeNames& NamesOf(DType dtype) { return kNames[static_cast<size_t>(dtype)]; }

}  // namespace

int64_t ElementSize(DType dtype) { return NamesOf(dtype).size_bytes; }
absl::string_view SafetensorsName(DType dtype) { return NamesOf(dtype).safetensors; }
absl::string_view TorchName(DType dtype) { return NamesOf(dtype).torch; }

absl::StatusOr<DType> DTypeFromSafetensors(absl::string_view name) {
  for (const DTypeNames& names : kNames) {
    if (names.safetensors == name) return names.dtype;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown dtype \"", name, "\", expected a safetensors tag such as BF16"));
}

absl::StatusOr<DType> DTypeFromTorch(absl::string_view name) {
  const absl::string_view bare = absl::StripPrefix(name, "torch.");
  for (const DTypeNames& names : kNames) {
    if (absl::StripPrefix(names.torch, "torch.") == bare) return names.dtype;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown dtype \"", name, "\", expected one such as bfloat16"));
}

bool IsDenseFloat(DType dtype) {
  return dtype == DType::kF64 || dtype == DType::kF32 || dtype == DType::kF16 ||
         dtype == DType::kBF16;
}

}  // namespace llmc
