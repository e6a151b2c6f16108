#include "checkpoint/output_layout.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "checkpoint/content_hash.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/strict_json.h"

namespace llmc {
namespace {

absl::Status CheckSpec(const TensorSpec& spec) {
  int64_t num_bytes = ElementSize(spec.dtype);
  for (int64_t dim : spec.shape) {
    if (dim < 0 || __builtin_mul_overflow(num_bytes, dim, &num_bytes)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "output tensor ", Quoted(spec.name), ": impossible shape ", ShapeString(spec.shape)));
    }
  }
  if (!spec.name.empty() && spec.name != "__metadata__") return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("output tensor ", Quoted(spec.name), ": not a possible tensor name"));
}

// huggingface_hub's split: the current shard stays open while a tensor above the
// limit gets its own.
std::vector<std::vector<size_t>> SplitIntoShards(const std::vector<PlacedTensor>& tensors,
                                                 int64_t max_shard_bytes) {
  std::vector<std::vector<size_t>> shards;
  std::vector<size_t> current;
  int64_t current_bytes = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const int64_t num_bytes = tensors[i].spec.num_bytes();
    if (num_bytes > max_shard_bytes) {
      shards.push_back({i});
      continue;
    }
    if (current_bytes + num_bytes > max_shard_bytes) {
      shards.push_back(std::exchange(current, {}));
      current_bytes = 0;
    }
    current.push_back(i);
    current_bytes += num_bytes;
  }
  if (!current.empty() || shards.empty()) shards.push_back(std::move(current));
  return shards;
}

bool AlignedOrder(const TensorSpec& a, const TensorSpec& b) {
  const int order_a = SafetensorsOrder(a.dtype);
  const int order_b = SafetensorsOrder(b.dtype);
  return order_a != order_b ? order_a > order_b : a.name < b.name;
}

}  // namespace

absl::StatusOr<OutputLayout> OutputLayout::Make(std::vector<TensorSpec> tensors,
                                                int64_t max_shard_bytes) {
  if (max_shard_bytes <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("max shard size ", max_shard_bytes, ", expected above 0"));
  }
  OutputLayout layout;
  for (TensorSpec& spec : tensors) {
    LLMC_RETURN_IF_ERROR(CheckSpec(spec));
    const int64_t num_bytes = spec.num_bytes();
    if (__builtin_add_overflow(layout.total_bytes_, num_bytes, &layout.total_bytes_))
      return absl::InvalidArgumentError("output tensors: more than 2^63 bytes");
    if (!layout.by_name_.emplace(spec.name, layout.tensors_.size()).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("output tensor ", Quoted(spec.name), ": given twice"));
    }
    layout.total_parameters_ += NumElements(spec.shape);
    layout.tensors_.push_back({std::move(spec), 0, 0});
  }
  for (std::vector<size_t>& members : SplitIntoShards(layout.tensors_, max_shard_bytes))
    layout.AddShard(std::move(members));
  layout.NameShards();
  return layout;
}

void OutputLayout::AddShard(std::vector<size_t> members) {
  std::sort(members.begin(), members.end(), [this](size_t a, size_t b) {
    return AlignedOrder(tensors_[a].spec, tensors_[b].spec);
  });
  std::vector<StoredTensor> stored;
  int64_t offset = 0;
  for (size_t i : members) {
    stored.push_back({tensors_[i].spec, offset});
    offset += tensors_[i].spec.num_bytes();
  }
  ShardLayout shard;
  shard.header = EncodeSafetensorsHeader(stored, {{"format", "pt"}});
  const auto header_bytes = static_cast<int64_t>(shard.header.size());
  shard.file_bytes = header_bytes + offset;
  for (size_t k = 0; k < members.size(); ++k) {
    tensors_[members[k]].shard = static_cast<int>(shards_.size());
    tensors_[members[k]].offset = header_bytes + stored[k].offset;
  }
  shards_.push_back(std::move(shard));
}

void OutputLayout::NameShards() {
  if (shards_.size() == 1) {
    shards_[0].file_name = "model.safetensors";
    return;
  }
  for (size_t i = 0; i < shards_.size(); ++i)
    shards_[i].file_name = absl::StrFormat("model-%05d-of-%05d.safetensors", i + 1, shards_.size());
}

const PlacedTensor* OutputLayout::Find(absl::string_view name) const {
  const auto it = by_name_.find(std::string(name));
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

int64_t OutputLayout::total_file_bytes() const {
  int64_t total = 0;
  for (const ShardLayout& shard : shards_) total += shard.file_bytes;
  return total;
}

std::string OutputLayout::IndexJson() const {
  if (shards_.size() == 1) return "";
  nlohmann::json weight_map = nlohmann::json::object();
  for (const PlacedTensor& tensor : tensors_)
    weight_map[tensor.spec.name] = shards_[tensor.shard].file_name;
  const nlohmann::json index = {
      {"metadata", {{"total_parameters", total_parameters_}, {"total_size", total_bytes_}}},
      {"weight_map", std::move(weight_map)}};
  return index.dump(2, ' ', /*ensure_ascii=*/true) + "\n";
}

std::string OutputLayout::Hash() const {
  ContentHasher hasher;
  for (const ShardLayout& shard : shards_) {
    const std::string line =
        absl::StrCat(shard.file_name, "\n", shard.file_bytes, "\n", shard.header);
    hasher.Add(std::as_bytes(std::span<const char>(line)));
  }
  return hasher.Finish();
}

}  // namespace llmc
