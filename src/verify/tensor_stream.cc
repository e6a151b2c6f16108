#include "verify/tensor_stream.h"

#include <algorithm>
#include <functional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "checkpoint/content_hash.h"
#include "verify/module_check.h"

namespace llmc {
namespace {

// A multiple of every element size.
constexpr int64_t kPieceBytes = 4 << 20;

using Read = std::function<absl::Status(int64_t offset, std::span<std::byte> bytes)>;
using Use = std::function<bool(int64_t offset, std::span<const std::byte> bytes)>;

// Reads `total` bytes in pieces until `use` returns false.
absl::Status ForEachPiece(int64_t total, const Read& read, const Use& use) {
  std::vector<std::byte> buffer(static_cast<size_t>(std::min(total, kPieceBytes)));
  for (int64_t offset = 0; offset < total; offset += kPieceBytes) {
    const std::span<std::byte> piece(buffer.data(),
                                     static_cast<size_t>(std::min(kPieceBytes, total - offset)));
    LLMC_RETURN_IF_ERROR(read(offset, piece));
    if (!use(offset, piece)) break;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Hash(int64_t total, const Read& read) {
  ContentHasher hasher;
  LLMC_RETURN_IF_ERROR(ForEachPiece(total, read, [&](int64_t, std::span<const std::byte> piece) {
    hasher.Add(piece);
    return true;
  }));
  return hasher.Finish();
}

Read ReaderOf(const Checkpoint& checkpoint, const std::string& name) {
  return [&checkpoint, &name](int64_t offset, std::span<std::byte> bytes) {
    return checkpoint.ReadBytes(name, offset, bytes);
  };
}

}  // namespace

absl::StatusOr<std::string> HashTensor(const Checkpoint& checkpoint, const std::string& name) {
  return Hash(checkpoint.Find(name)->spec.num_bytes(), ReaderOf(checkpoint, name));
}

absl::StatusOr<std::string> HashFile(const PosixFile& file) {
  LLMC_ASSIGN_OR_RETURN(const int64_t total, file.Size());
  return Hash(total, [&file](int64_t offset, std::span<std::byte> bytes) {
    return file.ReadAt(offset, bytes);
  });
}

std::string FiniteTensorProblem(const Checkpoint& checkpoint, const TensorSpec& spec) {
  if (!IsDenseFloat(spec.dtype)) return "";
  std::string problem;
  const absl::Status status = ForEachPiece(
      spec.num_bytes(), ReaderOf(checkpoint, spec.name),
      [&](int64_t offset, std::span<const std::byte> piece) {
        const int64_t count = static_cast<int64_t>(piece.size()) / ElementSize(spec.dtype);
        if (IsFinite({spec.dtype, {count}, piece})) return true;
        problem = absl::StrCat("NaN or infinity after byte ", offset);
        return false;
      });
  return status.ok() ? problem : std::string(status.message());
}

std::string ScaleTensorProblem(const Checkpoint& checkpoint, const TensorSpec& spec) {
  const absl::StatusOr<HostTensor> scale = checkpoint.Read(spec.name);
  return scale.ok() ? ScaleProblem(scale->view()) : std::string(scale.status().message());
}

}  // namespace llmc
