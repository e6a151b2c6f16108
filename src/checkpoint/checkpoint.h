// A model directory to read from: config.json and safetensors, dense or
// already quantised.
#ifndef LLMC_CHECKPOINT_CHECKPOINT_H_
#define LLMC_CHECKPOINT_CHECKPOINT_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/strings/string_view.h"
#include "checkpoint/posix_file.h"
#include "checkpoint/safetensors.h"
#include "llmc/status.h"
#include "llmc/tensor.h"
#include "nlohmann/json.hpp"

namespace llmc {

// A tensor of a checkpoint: what it is and which bytes of which file it has.
struct CheckpointTensor {
  TensorSpec spec;
  int file = 0;        // Index into Checkpoint::shards().
  int64_t offset = 0;  // First byte in that file.
};

struct CheckpointOptions {
  // Tell the kernel to forget pages behind a read of 1 MiB or more, so that a
  // model larger than memory does not push everything else out.
  bool drop_page_cache = false;
};

// Immutable after Open, safe from any number of threads. Bytes are read with
// pread, never mapped: a file cut short while it is read gives kDataLoss.
class Checkpoint {
 public:
  // Checks config.json, the index and every header, without reading any tensor.
  // kNotFound when `dir` or config.json is missing; kInvalidArgument naming
  // file and tensor for everything that is malformed or inconsistent (also a
  // directory that holds only .bin or .pt weights).
  static absl::StatusOr<std::shared_ptr<const Checkpoint>> Open(
      const std::filesystem::path& dir, const CheckpointOptions& options = {});

  const std::filesystem::path& dir() const { return dir_; }
  const nlohmann::json& config() const { return config_; }
  const std::string& config_text() const { return config_text_; }

  // File names within dir(), sorted.
  const std::vector<std::string>& shards() const { return shards_; }
  // By file, then offset, then name.
  const std::vector<CheckpointTensor>& tensors() const { return tensors_; }
  int64_t total_bytes() const { return total_bytes_; }

  // Null when there is no such tensor; else valid as long as this object.
  const CheckpointTensor* Find(absl::string_view name) const;
  bool Contains(absl::string_view name) const { return Find(name) != nullptr; }

  // The whole tensor. kNotFound when absent, kDataLoss when the file became
  // shorter, kResourceExhausted when there is no memory for it.
  absl::StatusOr<HostTensor> Read(absl::string_view name) const;
  // Into the caller's buffer of exactly the tensor's size.
  absl::Status ReadInto(absl::string_view name, std::span<std::byte> bytes) const;
  // Indices [first_row, first_row + num_rows) of dimension 0, shape
  // [num_rows, ...rest]. kInvalidArgument out of range or for a scalar.
  absl::StatusOr<HostTensor> ReadRows(absl::string_view name, int64_t first_row,
                                      int64_t num_rows) const;
  // Any byte range of the tensor.
  absl::Status ReadBytes(absl::string_view name, int64_t byte_offset,
                         std::span<std::byte> bytes) const;

  // Files beside the weights that an output needs too, relative to dir(),
  // sorted: tokenizer, chat template, generation_config.json, *.py, vocabulary,
  // licence, ... Not config.json, README.md, recipe.yaml, weights of any
  // framework, indices, hidden files.
  absl::StatusOr<std::vector<std::string>> SourceFiles() const;

 private:
  Checkpoint() = default;
  absl::Status OpenShards(const std::vector<std::string>& names);
  absl::Status AddShard(const std::string& name);
  absl::Status CheckIndex(const nlohmann::json& weight_map) const;
  absl::StatusOr<const CheckpointTensor*> Lookup(absl::string_view name) const;
  absl::Status ReadRange(const CheckpointTensor& tensor, int64_t byte_offset,
                         std::span<std::byte> bytes) const;

  std::filesystem::path dir_;
  CheckpointOptions options_;
  std::string config_text_;
  nlohmann::json config_;
  std::vector<std::string> shards_;
  std::vector<PosixFile> files_;
  std::vector<CheckpointTensor> tensors_;
  std::unordered_map<std::string, size_t> by_name_;
  int64_t total_bytes_ = 0;
};

// A tensor not yet filled. kResourceExhausted when there is no memory for it.
absl::StatusOr<HostTensor> MakeHostTensor(DType dtype, Shape shape);

}  // namespace llmc

#endif  // LLMC_CHECKPOINT_CHECKPOINT_H_
