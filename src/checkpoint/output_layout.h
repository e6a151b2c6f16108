// Every byte of the output's weight files, known before the first is written.
#ifndef LLMC_CHECKPOINT_OUTPUT_LAYOUT_H_
#define LLMC_CHECKPOINT_OUTPUT_LAYOUT_H_

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/strings/string_view.h"
#include "llmc/status.h"
#include "llmc/tensor.h"

namespace llmc {

inline constexpr int64_t kDefaultMaxShardBytes = 5'000'000'000;

// One weight file.
struct ShardLayout {
  std::string file_name;   // "model.safetensors" or "model-0000i-of-0000n.safetensors".
  std::string header;      // The bytes before the data part; a multiple of 8.
  int64_t file_bytes = 0;  // Header and data.
};

// One tensor of the output.
struct PlacedTensor {
  TensorSpec spec;
  int shard = 0;       // Index into shards.
  int64_t offset = 0;  // First byte in that file.
};

// A pure function of the ordered tensors and the shard limit: the same on every
// rank and for any number of ranks.
class OutputLayout {
 public:
  // Fills shards greedily in the order of `tensors`, as huggingface_hub does; a
  // tensor above `max_shard_bytes` gets a file of its own. Inside a file tensors
  // lie widest dtype first, then by name, as the reference writer puts them.
  // kInvalidArgument for a name given twice or "__metadata__", a negative
  // dimension, a size that overflows, or a limit <= 0.
  static absl::StatusOr<OutputLayout> Make(std::vector<TensorSpec> tensors,
                                           int64_t max_shard_bytes = kDefaultMaxShardBytes);

  const std::vector<ShardLayout>& shards() const { return shards_; }
  const std::vector<PlacedTensor>& tensors() const { return tensors_; }  // In the given order.
  const PlacedTensor* Find(absl::string_view name) const;                // Null when absent.

  int64_t total_bytes() const { return total_bytes_; }            // Of tensors.
  int64_t total_parameters() const { return total_parameters_; }  // Stored elements.
  int64_t total_file_bytes() const;                               // Of weight files.

  // model.safetensors.index.json, "" when there is a single shard.
  std::string IndexJson() const;
  // A hash of file names, headers and sizes.
  std::string Hash() const;

 private:
  void AddShard(std::vector<size_t> members);
  void NameShards();

  std::vector<ShardLayout> shards_;
  std::vector<PlacedTensor> tensors_;
  std::unordered_map<std::string, size_t> by_name_;
  int64_t total_bytes_ = 0;
  int64_t total_parameters_ = 0;
};

}  // namespace llmc

#endif  // LLMC_CHECKPOINT_OUTPUT_LAYOUT_H_
