#include "checkpoint/checkpoint.h"

#include <fcntl.h>

#include <algorithm>
#include <new>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "checkpoint/model_files.h"
#include "checkpoint/strict_json.h"
#include "llmc/counters.h"

namespace llmc {
namespace {

// Reads of this size and above are worth a hint about the page cache.
constexpr size_t kHintBytes = size_t{1} << 20;

constexpr JsonLimits kConfigLimits{16 << 20, 64};
constexpr JsonLimits kIndexLimits{256 << 20, 8};

constexpr absl::string_view kIndexName = "model.safetensors.index.json";
constexpr absl::string_view kSingleName = "model.safetensors";

absl::Status IndexError(const std::filesystem::path& dir, absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat((dir / std::string(kIndexName)).string(), ": ", what));
}

// A shard is a file of this very directory.
bool IsPlainShardName(const std::string& name) {
  return absl::EndsWith(name, ".safetensors") && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos && name[0] != '.';
}

absl::StatusOr<std::vector<std::string>> ShardsOfIndex(const std::filesystem::path& dir,
                                                       const nlohmann::json& index) {
  const auto map = index.is_object() ? index.find("weight_map") : index.end();
  if (!index.is_object() || map == index.end() || !map->is_object())
    return IndexError(dir, "expected an object with \"weight_map\"");
  std::set<std::string> names;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string())
      return IndexError(dir, absl::StrCat("tensor ", Quoted(tensor), ": expected a file name"));
    const auto& name = file.get_ref<const std::string&>();
    if (!IsPlainShardName(name)) {
      return IndexError(dir, absl::StrCat("tensor ", Quoted(tensor), ": file ", Quoted(name),
                                          ", expected the name of a .safetensors file in the "
                                          "same directory"));
    }
    std::error_code broken;
    if (names.insert(name).second && !std::filesystem::exists(dir / name, broken)) {
      return IndexError(dir, absl::StrCat("tensor ", Quoted(tensor), ": its file ", Quoted(name),
                                          ": ", broken ? broken.message() : "does not exist"));
    }
  }
  if (names.empty()) return IndexError(dir, "weight_map is empty");
  return std::vector<std::string>(names.begin(), names.end());
}

absl::Status NoWeights(const std::filesystem::path& dir) {
  std::string found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(dir, error)) {
    const std::string name = entry.path().filename().string();
    if (IsWeightFile(name)) absl::StrAppend(&found, found.empty() ? "" : ", ", Quoted(name));
    if (found.size() > 300) break;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      dir.string(), ": no weights, expected model.safetensors or model.safetensors.index.json",
      found.empty() ? ""
                    : absl::StrCat("; found ", found,
                                   " (llmc reads only safetensors: convert other formats first)")));
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Checkpoint>> Checkpoint::Open(
    const std::filesystem::path& dir, const CheckpointOptions& options) {
  std::error_code error;
  if (!std::filesystem::is_directory(dir, error))
    return absl::NotFoundError(absl::StrCat(dir.string(), ": expected a model directory"));
  std::shared_ptr<Checkpoint> checkpoint(new Checkpoint);
  checkpoint->dir_ = dir;
  checkpoint->options_ = options;
  LLMC_ASSIGN_OR_RETURN(const PosixFile config, PosixFile::OpenForReading(dir / "config.json"));
  LLMC_ASSIGN_OR_RETURN(checkpoint->config_text_, config.ReadAll(kConfigLimits.max_bytes));
  LLMC_ASSIGN_OR_RETURN(
      checkpoint->config_,
      ParseStrictJson(checkpoint->config_text_, config.path().string(), kConfigLimits));
  if (!checkpoint->config_.is_object())
    return absl::InvalidArgumentError(
        absl::StrCat(config.path().string(), ": expected a JSON object"));
  const bool has_single = std::filesystem::exists(dir / std::string(kSingleName), error);
  if (!std::filesystem::exists(dir / std::string(kIndexName), error)) {
    if (!has_single) return NoWeights(dir);
    LLMC_RETURN_IF_ERROR(checkpoint->OpenShards({std::string(kSingleName)}));
    return checkpoint;
  }
  LLMC_ASSIGN_OR_RETURN(const nlohmann::json index,
                        ReadStrictJson(dir / std::string(kIndexName), kIndexLimits));
  LLMC_ASSIGN_OR_RETURN(const std::vector<std::string> names, ShardsOfIndex(dir, index));
  if (has_single && !std::binary_search(names.begin(), names.end(), kSingleName))
    return IndexError(dir, "does not name model.safetensors, which exists too: which one counts?");
  LLMC_RETURN_IF_ERROR(checkpoint->OpenShards(names));
  LLMC_RETURN_IF_ERROR(checkpoint->CheckIndex(index.at("weight_map")));
  return checkpoint;
}

absl::Status Checkpoint::OpenShards(const std::vector<std::string>& names) {
  for (const std::string& name : names) LLMC_RETURN_IF_ERROR(AddShard(name));
  return absl::OkStatus();
}

absl::Status Checkpoint::AddShard(const std::string& name) {
  LLMC_ASSIGN_OR_RETURN(PosixFile file, PosixFile::OpenForReading(dir_ / name));
  LLMC_ASSIGN_OR_RETURN(SafetensorsHeader header, ReadSafetensorsHeader(file));
  const int file_number = static_cast<int>(shards_.size());
  for (StoredTensor& tensor : header.tensors) {
    const auto [it, inserted] = by_name_.emplace(tensor.spec.name, tensors_.size());
    if (!inserted) {
      return absl::InvalidArgumentError(
          absl::StrCat(file.path().string(), ": tensor ", Quoted(tensor.spec.name),
                       " is stored in ", Quoted(shards_[tensors_[it->second].file]), " too"));
    }
    total_bytes_ += tensor.spec.num_bytes();
    tensors_.push_back({std::move(tensor.spec), file_number, tensor.offset});
  }
  shards_.push_back(name);
  files_.push_back(std::move(file));
  return absl::OkStatus();
}

// Every tensor is where the index says, and the index says it of every tensor.
absl::Status Checkpoint::CheckIndex(const nlohmann::json& weight_map) const {
  for (const auto& [name, file] : weight_map.items()) {
    const auto& expected = file.get_ref<const std::string&>();
    const CheckpointTensor* tensor = Find(name);
    if (tensor == nullptr) {
      return IndexError(dir_, absl::StrCat("tensor ", Quoted(name), " is not in its file ",
                                           Quoted(expected), " nor in any other"));
    }
    if (shards_[tensor->file] != expected) {
      return IndexError(
          dir_, absl::StrCat("tensor ", Quoted(name), " is in ", Quoted(shards_[tensor->file]),
                             ", but the index says ", Quoted(expected)));
    }
  }
  for (const CheckpointTensor& tensor : tensors_) {
    if (!weight_map.contains(tensor.spec.name)) {
      return IndexError(dir_, absl::StrCat("does not name tensor ", Quoted(tensor.spec.name),
                                           " of file ", Quoted(shards_[tensor.file])));
    }
  }
  return absl::OkStatus();
}

const CheckpointTensor* Checkpoint::Find(absl::string_view name) const {
  const auto it = by_name_.find(std::string(name));
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

absl::StatusOr<const CheckpointTensor*> Checkpoint::Lookup(absl::string_view name) const {
  const CheckpointTensor* tensor = Find(name);
  if (tensor != nullptr) return tensor;
  return absl::NotFoundError(absl::StrCat(dir_.string(), ": no tensor ", Quoted(name)));
}

absl::StatusOr<HostTensor> Checkpoint::Read(absl::string_view name) const {
  LLMC_ASSIGN_OR_RETURN(const CheckpointTensor* tensor, Lookup(name));
  LLMC_ASSIGN_OR_RETURN(HostTensor host, MakeHostTensor(tensor->spec.dtype, tensor->spec.shape));
  LLMC_RETURN_IF_ERROR(ReadRange(*tensor, 0, host.bytes()));
  return host;
}

absl::Status Checkpoint::ReadInto(absl::string_view name, std::span<std::byte> bytes) const {
  LLMC_ASSIGN_OR_RETURN(const CheckpointTensor* tensor, Lookup(name));
  if (static_cast<int64_t>(bytes.size()) != tensor->spec.num_bytes()) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(name), ": a buffer of ",
                                                   bytes.size(), " bytes, expected ",
                                                   tensor->spec.num_bytes()));
  }
  return ReadRange(*tensor, 0, bytes);
}

absl::StatusOr<HostTensor> Checkpoint::ReadRows(absl::string_view name, int64_t first_row,
                                                int64_t num_rows) const {
  LLMC_ASSIGN_OR_RETURN(const CheckpointTensor* tensor, Lookup(name));
  Shape shape = tensor->spec.shape;
  if (shape.empty() || first_row < 0 || num_rows < 0 || first_row > shape[0] ||
      num_rows > shape[0] - first_row) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(name), " of shape ",
                                                   ShapeString(shape), ": no rows ", first_row,
                                                   " to ", first_row, " + ", num_rows));
  }
  shape[0] = 1;
  const int64_t row_bytes = NumElements(shape) * ElementSize(tensor->spec.dtype);
  shape[0] = num_rows;
  LLMC_ASSIGN_OR_RETURN(HostTensor host, MakeHostTensor(tensor->spec.dtype, std::move(shape)));
  LLMC_RETURN_IF_ERROR(ReadRange(*tensor, first_row * row_bytes, host.bytes()));
  return host;
}

absl::Status Checkpoint::ReadBytes(absl::string_view name, int64_t byte_offset,
                                   std::span<std::byte> bytes) const {
  LLMC_ASSIGN_OR_RETURN(const CheckpointTensor* tensor, Lookup(name));
  const int64_t total = tensor->spec.num_bytes();
  if (byte_offset < 0 || byte_offset > total ||
      static_cast<int64_t>(bytes.size()) > total - byte_offset) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(name), " of ", total,
                                                   " bytes: no bytes ", byte_offset, " to ",
                                                   byte_offset, " + ", bytes.size()));
  }
  return ReadRange(*tensor, byte_offset, bytes);
}

absl::Status Checkpoint::ReadRange(const CheckpointTensor& tensor, int64_t byte_offset,
                                   std::span<std::byte> bytes) const {
  const PosixFile& file = files_[tensor.file];
  const int64_t offset = tensor.offset + byte_offset;
  const auto length = static_cast<off_t>(bytes.size());
  const absl::Status status = file.ReadAt(offset, bytes);
  Count(Counter::kModelReadBytes, std::ssize(bytes));
  if (!status.ok()) return At(absl::StrCat("tensor ", Quoted(tensor.spec.name)), status);
  if (options_.drop_page_cache && bytes.size() >= kHintBytes)
    (void)::posix_fadvise(file.descriptor(), offset, length, POSIX_FADV_DONTNEED);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> Checkpoint::SourceFiles() const {
  return ListSourceFiles(dir_);
}

absl::StatusOr<HostTensor> MakeHostTensor(DType dtype, Shape shape) {
  try {
    return HostTensor(dtype, shape);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for a tensor of shape ", ShapeString(shape)));
  }
}

}  // namespace llmc
