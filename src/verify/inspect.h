// What a checkpoint holds: for `llmc inspect`.
#ifndef LLMC_VERIFY_INSPECT_H_
#define LLMC_VERIFY_INSPECT_H_

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "llmc/status.h"
#include "llmc/tensor.h"
#include "nlohmann/json.hpp"

namespace llmc {

// Tensors of one kind of module, layer numbers taken out:
// "model.layers.*.mlp.down_proj".
struct ModuleGroup {
  std::string pattern;
  std::string format;  // "pack-quantized int4 group 128", "dense BF16".
  int64_t num_modules = 0;
  int64_t num_parameters = 0;  // Weights as the model sees them, not stored elements.
  int64_t num_bytes = 0;
  double bits_per_weight = 0;  // 8 * num_bytes / num_parameters.
};

struct Inspection {
  std::string model_type;
  std::string format;  // Of quantization_config; "dense" without one.
  std::vector<std::string> shards;
  std::vector<TensorSpec> tensors;  // In file order.
  std::vector<ModuleGroup> groups;  // In order of first appearance.
  int64_t num_parameters = 0;
  int64_t num_bytes = 0;
  double bits_per_weight = 0;
};

// Reads headers only. Errors as Checkpoint::Open.
absl::StatusOr<Inspection> InspectCheckpoint(const std::filesystem::path& dir);

// A table of module groups and totals; with `every_tensor` also each tensor.
std::string ToTable(const Inspection& inspection, bool every_tensor);
nlohmann::json ToJson(const Inspection& inspection);

}  // namespace llmc

#endif  // LLMC_VERIFY_INSPECT_H_
