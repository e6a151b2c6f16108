// Files of a model directory, and datasets that lie in files.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "architecture/model_spec.h"
#include "architecture/module_spec.h"
#include "checkpoint/strict_json.h"
#include "dataset/chat_template.h"
#include "dataset/parquet_rows.h"
#include "formats/quantization_config.h"
#include "formats/stored_tensors.h"
#include "readers.h"

namespace llmc::fuzz {
namespace {

using dataset::Value;

Value Message(const char* role, const char* content) {
  return Value::MakeDict({{Value("role"), Value(role)}, {Value("content"), Value(content)}});
}

void ReadQuantizationConfig(const nlohmann::json& config) {
  const nlohmann::json* found = FindQuantizationConfig(config);
  if (found == nullptr) return;
  const auto parsed = QuantizationConfig::FromJson(*found);
  if (!parsed.ok()) return;
  for (const char* name : {"model.layers.0.self_attn.q_proj", "lm_head"}) {
    const auto group = parsed->GroupOf(name, "Linear");
    if (group.ok() && *group != nullptr)
      (void)StoredTensors((*group)->scheme, {256, 128}, DType::kBF16);
  }
}

}  // namespace

void ModelConfig(absl::string_view bytes) {
  const auto config = ParseStrictJson(bytes, "fuzz");
  if (!config.ok() || !config->is_object()) return;
  ReadQuantizationConfig(*config);
  const absl::StatusOr<ModelSpec> spec = ParseModelSpec(*config);
  if (!spec.ok()) return;
  // All modules of a model within the limits may be many: one layer stands for them.
  (void)LayerModules(*spec, spec->num_hidden_layers - 1);
  (void)SmoothMappings(*spec, 0);
  if (spec->num_hidden_layers <= 64) (void)CheckTensors(*spec, {});
}

void ChatTemplate(absl::string_view bytes) {
  const auto parsed = dataset::ChatTemplate::Parse(bytes, "fuzz");
  if (!parsed.ok()) return;
  const Value messages =
      Value::MakeList({Message("system", "Be brief."), Message("user", "H\xc3\xa9?"),
                       Message("assistant", "<s> 12 ")});
  dataset::TemplateLimits limits;
  limits.max_steps = 100'000;
  limits.max_bytes = int64_t{16} << 20;
  limits.max_output = int64_t{4} << 20;
  (void)(*parsed)->Render(messages, {.bos_token = "<s>", .eos_token = "</s>"}, limits);
}

void Parquet(absl::string_view bytes) {
  const auto all = [](const std::vector<std::string>& columns) {
    return absl::StatusOr<std::vector<std::string>>(columns);
  };
  auto reader = dataset::ParquetRows(MemoryFile(bytes), all);
  if (!reader.ok()) return;
  dataset::Row row;
  // Run-length encoding makes millions of rows of a few bytes.
  for (int i = 0; i < 4096; ++i) {
    const absl::StatusOr<bool> more = (*reader)->Next(&row);
    if (!more.ok() || !*more) return;
  }
}

}  // namespace llmc::fuzz
