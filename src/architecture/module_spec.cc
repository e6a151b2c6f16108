#include "architecture/module_spec.h"

#include <algorithm>
#include <unordered_map>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "architecture/family.h"

namespace llmc {
namespace {

int64_t WidthOf(const ModelSpec& spec, Width width) {
  switch (width) {
    case Width::kNone:
      return 0;
    case Width::kHidden:
      return spec.hidden_size;
    case Width::kQuery:
      return spec.num_attention_heads * spec.head_dim;
    case Width::kKeyValue:
      return spec.num_key_value_heads * spec.head_dim;
    case Width::kIntermediate:
      return spec.intermediate_size;
    case Width::kHeadDim:
      return spec.head_dim;
    case Width::kVocab:
      return spec.vocab_size;
  }
  return 0;
}

bool HasBias(const ModelSpec& spec, BiasOf bias) {
  switch (bias) {
    case BiasOf::kNone:
      return false;
    case BiasOf::kQkv:
      return spec.qkv_bias;
    case BiasOf::kAttentionOutput:
      return spec.o_bias;
    case BiasOf::kMlp:
      return spec.mlp_bias;
  }
  return false;
}

std::string Join(const std::string& parent, absl::string_view path) {
  return path.empty() ? parent : absl::StrCat(parent, ".", path);
}

ModuleSpec LayerModule(const ModelSpec& spec, int64_t layer, const BlockModule& row) {
  const std::string parent = spec.LayerName(layer);
  ModuleSpec module;
  module.name = Join(parent, row.path);
  module.class_name =
      absl::StrReplaceAll(row.class_name, {{"*", spec.class_prefix}, {"@", spec.activation_class}});
  if (row.rows != Width::kNone) module.weight_shape.push_back(WidthOf(spec, row.rows));
  if (row.columns != Width::kNone) module.weight_shape.push_back(WidthOf(spec, row.columns));
  module.has_bias = HasBias(spec, row.bias);
  module.role = row.role;
  module.layer = layer;
  if (!row.input_group.empty()) module.input_group = Join(parent, row.input_group);
  return module;
}

ModuleSpec OuterModule(const std::string& name, const std::string& class_name) {
  ModuleSpec module;
  module.name = name;
  module.class_name = class_name;
  return module;
}

ModuleSpec OuterModule(const std::string& name, const std::string& class_name, Role role,
                       Shape shape) {
  ModuleSpec module = OuterModule(name, class_name);
  module.role = role;
  module.weight_shape = std::move(shape);
  if (module.is_linear()) module.input_group = name;
  return module;
}

}  // namespace

std::vector<ModuleSpec> LayerModules(const ModelSpec& spec, int64_t layer) {
  std::vector<ModuleSpec> modules;
  const Family* family = FindFamily(spec.model_type);
  if (family == nullptr) return modules;
  for (const BlockModule& row : family->block) {
    if (row.only_with_qk_norm && !spec.qk_norm) continue;
    modules.push_back(LayerModule(spec, layer, row));
  }
  return modules;
}

std::vector<ModuleSpec> Modules(const ModelSpec& spec) {
  const std::string& prefix = spec.class_prefix;
  std::vector<ModuleSpec> modules;
  modules.push_back(OuterModule("", prefix + "ForCausalLM"));
  modules.push_back(OuterModule("model", prefix + "Model"));
  modules.push_back(OuterModule(spec.embedding_name, "Embedding", Role::kEmbedding,
                                {spec.vocab_size, spec.hidden_size}));
  modules.push_back(OuterModule(spec.layers_name, "ModuleList"));
  for (int64_t layer = 0; layer < spec.num_hidden_layers; ++layer) {
    for (ModuleSpec& module : LayerModules(spec, layer)) modules.push_back(std::move(module));
  }
  modules.push_back(
      OuterModule(spec.final_norm_name, prefix + "RMSNorm", Role::kFinalNorm, {spec.hidden_size}));
  modules.push_back(OuterModule("model.rotary_emb", prefix + "RotaryEmbedding"));
  modules.push_back(
      OuterModule(spec.head_name, "Linear", Role::kHead, {spec.vocab_size, spec.hidden_size}));
  return modules;
}

std::vector<RequiredTensor> RequiredTensors(const ModelSpec& spec) {
  std::vector<RequiredTensor> tensors;
  for (const ModuleSpec& module : Modules(spec)) {
    if (module.weight_shape.empty()) continue;
    if (module.role == Role::kHead && spec.tie_word_embeddings) continue;
    tensors.push_back({module.weight_name(), module.weight_shape});
    if (module.has_bias) tensors.push_back({module.bias_name(), {module.weight_shape[0]}});
  }
  return tensors;
}

absl::Status CheckTensors(const ModelSpec& spec, std::span<const TensorSpec> tensors) {
  std::unordered_map<std::string, const TensorSpec*> by_name;
  for (const TensorSpec& tensor : tensors) by_name.emplace(tensor.name, &tensor);
  constexpr size_t kShown = 5;
  std::vector<std::string> wrong;
  size_t count = 0;
  for (const RequiredTensor& required : RequiredTensors(spec)) {
    const auto it = by_name.find(required.name);
    if (it != by_name.end() && it->second->shape == required.shape) continue;
    if (++count > kShown) continue;
    wrong.push_back(
        absl::StrCat(required.name, it == by_name.end() ? " is missing" : " has shape ",
                     it == by_name.end() ? std::string() : ShapeString(it->second->shape),
                     ", expected ", ShapeString(required.shape)));
  }
  if (count == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "checkpoint: ", count, " tensors do not fit config.json: ", absl::StrJoin(wrong, "; "),
      count > kShown ? "; ..." : ""));
}

std::vector<SmoothMapping> SmoothMappings(const ModelSpec& spec, int64_t layer) {
  std::unordered_map<int, std::string> names;
  for (const ModuleSpec& module : LayerModules(spec, layer)) {
    names[static_cast<int>(module.role)] = module.name;
  }
  const auto name = [&](Role role) { return names[static_cast<int>(role)]; };
  using Kind = SmoothMapping::Kind;
  return {
      {Kind::kNorm,
       name(Role::kInputNorm),
       {name(Role::kQuery), name(Role::kKey), name(Role::kValue)}},
      {Kind::kValue, name(Role::kValue), {name(Role::kAttentionOutput)}},
      {Kind::kNorm, name(Role::kMlpNorm), {name(Role::kGate), name(Role::kUp)}},
      {Kind::kUp, name(Role::kUp), {name(Role::kDown)}},
  };
}

}  // namespace llmc
