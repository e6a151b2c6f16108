#include "checkpoint/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "checkpoint/safetensors_sax.h"
#include "checkpoint/strict_json.h"

namespace llmc {
namespace {

// In the order of the reference's enumeration.
constexpr std::array<DType, 15> kFileOrder = {
    DType::kBool, DType::kU8,  DType::kI8,  DType::kF8E5M2, DType::kF8E4M3,
    DType::kI16,  DType::kU16, DType::kF16, DType::kBF16,   DType::kI32,
    DType::kU32,  DType::kF32, DType::kF64, DType::kI64,    DType::kU64};

absl::Status TensorError(const std::string& name, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(name), ": ", what));
}

// Bytes of a tensor by checked multiplication.
absl::StatusOr<int64_t> CheckedBytes(const RawTensor& raw, DType dtype) {
  int64_t count = ElementSize(dtype);
  for (uint64_t dim : raw.shape) {
    if (dim > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) ||
        __builtin_mul_overflow(count, static_cast<int64_t>(dim), &count))
      return TensorError(raw.name, "shape overflows");
  }
  return count;
}

absl::StatusOr<StoredTensor> CheckTensor(RawTensor raw, int64_t num_data_bytes) {
  const absl::StatusOr<DType> dtype = DTypeFromSafetensors(raw.dtype);
  if (!dtype.ok())
    return TensorError(raw.name,
                       absl::StrCat("dtype ", Quoted(raw.dtype), " is not one that llmc reads"));
  LLMC_ASSIGN_OR_RETURN(const int64_t num_bytes, CheckedBytes(raw, *dtype));
  const auto limit = static_cast<uint64_t>(num_data_bytes);
  if (raw.begin > raw.end || raw.end > limit) {
    return TensorError(
        raw.name, absl::StrCat("data_offsets [", raw.begin, ", ", raw.end, "] lie outside the ",
                               num_data_bytes, " data bytes of the file"));
  }
  if (raw.end - raw.begin != static_cast<uint64_t>(num_bytes)) {
    return TensorError(raw.name,
                       absl::StrCat("data_offsets span ", raw.end - raw.begin, " bytes, expected ",
                                    num_bytes, " for its dtype and shape"));
  }
  StoredTensor tensor;
  tensor.spec.name = std::move(raw.name);
  tensor.spec.dtype = *dtype;
  tensor.spec.shape.assign(raw.shape.begin(), raw.shape.end());
  tensor.offset = static_cast<int64_t>(raw.begin);
  return tensor;
}

// Sorted tensors must follow each other and end with the data.
absl::Status CheckContiguous(const std::vector<StoredTensor>& tensors, int64_t num_data_bytes) {
  int64_t position = 0;
  for (const StoredTensor& tensor : tensors) {
    if (tensor.offset != position) {
      return TensorError(tensor.spec.name,
                         absl::StrCat("begins at data byte ", tensor.offset, ", expected ",
                                      position, " (no holes, no overlap)"));
    }
    position += tensor.spec.num_bytes();
  }
  if (position == num_data_bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "tensors end at data byte ", position, ", but the file has ", num_data_bytes, " data bytes"));
}

absl::Status CheckUnique(const std::vector<StoredTensor>& tensors) {
  std::unordered_set<std::string_view> names;  // Views of the names in `tensors`.
  names.reserve(tensors.size());
  for (const StoredTensor& tensor : tensors) {
    if (!names.insert(tensor.spec.name).second)
      return TensorError(tensor.spec.name, "named twice in the header");
  }
  return absl::OkStatus();
}

// Offset, then size (an empty tensor comes before the one that begins there),
// then name.
bool FileOrder(const StoredTensor& a, const StoredTensor& b) {
  if (a.offset != b.offset) return a.offset < b.offset;
  if (a.spec.num_bytes() != b.spec.num_bytes()) return a.spec.num_bytes() < b.spec.num_bytes();
  return a.spec.name < b.spec.name;
}

absl::StatusOr<int64_t> HeaderLength(const PosixFile& file, int64_t file_bytes) {
  if (file_bytes < 8) {
    return absl::InvalidArgumentError(
        absl::StrCat(file_bytes, " bytes, expected a safetensors file (8 bytes or more)"));
  }
  std::array<std::byte, 8> raw{};
  LLMC_RETURN_IF_ERROR(file.ReadAt(0, raw));
  static_assert(std::endian::native == std::endian::little);
  uint64_t length = 0;
  std::memcpy(&length, raw.data(), sizeof(length));
  if (length > static_cast<uint64_t>(kMaxSafetensorsHeaderBytes) ||
      length > static_cast<uint64_t>(file_bytes - 8)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "header length ", length, ", expected at most ",
        std::min(kMaxSafetensorsHeaderBytes, file_bytes - 8), " (not a safetensors file, or cut)"));
  }
  return static_cast<int64_t>(length);
}

absl::StatusOr<SafetensorsHeader> ReadHeader(const PosixFile& file) {
  LLMC_ASSIGN_OR_RETURN(const int64_t file_bytes, file.Size());
  LLMC_ASSIGN_OR_RETURN(const int64_t length, HeaderLength(file, file_bytes));
  std::string json(static_cast<size_t>(length), '\0');
  LLMC_RETURN_IF_ERROR(file.ReadAt(8, std::as_writable_bytes(std::span<char>(json))));
  LLMC_ASSIGN_OR_RETURN(SafetensorsHeader header,
                        ParseSafetensorsHeader(json, file_bytes - 8 - length));
  for (StoredTensor& tensor : header.tensors) tensor.offset += 8 + length;
  return header;
}

}  // namespace

int SafetensorsOrder(DType dtype) {
  return static_cast<int>(std::find(kFileOrder.begin(), kFileOrder.end(), dtype) -
                          kFileOrder.begin());
}

absl::StatusOr<SafetensorsHeader> ReadSafetensorsHeader(const PosixFile& file) {
  absl::StatusOr<SafetensorsHeader> header = ReadHeader(file);
  if (header.ok()) return header;
  const std::string path = file.path().string();
  // System errors name the file already.
  if (absl::StartsWith(header.status().message(), path)) return header.status();
  return At(path, header.status());
}

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view json,
                                                         int64_t num_data_bytes) {
  LLMC_ASSIGN_OR_RETURN(RawHeader raw, ParseRawHeader(json));
  SafetensorsHeader header;
  header.metadata = std::move(raw.metadata);
  header.tensors.reserve(raw.tensors.size());
  for (RawTensor& tensor : raw.tensors) {
    LLMC_ASSIGN_OR_RETURN(StoredTensor checked, CheckTensor(std::move(tensor), num_data_bytes));
    header.tensors.push_back(std::move(checked));
  }
  std::sort(header.tensors.begin(), header.tensors.end(), FileOrder);
  LLMC_RETURN_IF_ERROR(CheckContiguous(header.tensors, num_data_bytes));
  LLMC_RETURN_IF_ERROR(CheckUnique(header.tensors));
  return header;
}

std::string EncodeSafetensorsHeader(const std::vector<StoredTensor>& tensors,
                                    const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  if (!metadata.empty()) json["__metadata__"] = metadata;
  std::string text = json.dump();
  text.pop_back();
  for (const StoredTensor& tensor : tensors) {
    nlohmann::ordered_json entry;
    entry["dtype"] = std::string(SafetensorsName(tensor.spec.dtype));
    entry["shape"] = tensor.spec.shape;
    entry["data_offsets"] = {tensor.offset, tensor.offset + tensor.spec.num_bytes()};
    absl::StrAppend(&text, text.size() > 1 ? "," : "", nlohmann::json(tensor.spec.name).dump(), ":",
                    entry.dump());
  }
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + text;
}

}  // namespace llmc
