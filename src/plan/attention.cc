#include "plan/attention.h"

#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "formats/stored_tensors.h"

namespace llmc {
namespace {

// The numbers of an attention module; none when it stays as it is.
absl::StatusOr<std::optional<QuantizationArgs>> ArgsOf(const std::string& name,
                                                       const ModuleDecision& decision,
                                                       const Resolution& resolution) {
  if (!decision.scheme) return resolution.kv_cache_scheme;
  const Scheme& scheme = *decision.scheme;
  const bool fits = scheme.input_activations && !scheme.weights && !scheme.output_activations &&
                    scheme.input_activations->dynamic == Dynamic::kFalse;
  if (!fits) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": group ", decision.group_name,
                     " targets an attention module, expected static input_activations alone"));
  }
  if (resolution.kv_cache_scheme && *resolution.kv_cache_scheme != *scheme.input_activations) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": group ", decision.group_name,
                                                   " and kv_cache_scheme differ, expected one"));
  }
  return scheme.input_activations;
}

absl::Status AddStored(DType model_dtype, PlannedAttention& attention) {
  const AttentionShape shape{attention.num_attention_heads, attention.num_key_value_heads,
                             attention.scheme.has_value()};
  absl::StatusOr<std::vector<StoredTensorSpec>> stored =
      StoredKvCacheTensors(attention.args, shape, model_dtype);
  if (!stored.ok()) return At(attention.name, stored.status());
  for (const StoredTensorSpec& tensor : *stored) {
    attention.stored.push_back(
        {absl::StrCat(attention.name, ".", tensor.suffix), tensor.dtype, tensor.shape});
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<PlannedAttention>> PlanAttentions(const ModelSpec& model,
                                                             const std::vector<ModuleSpec>& modules,
                                                             const Resolution& resolution,
                                                             DType model_dtype) {
  std::vector<PlannedAttention> attentions;
  for (size_t i = 0; i < modules.size(); ++i) {
    const ModuleSpec& module = modules[i];
    if (module.layer < 0 || module.name != model.LayerName(module.layer) + ".self_attn") continue;
    const ModuleDecision& decision = resolution.modules[i];
    LLMC_ASSIGN_OR_RETURN(const std::optional<QuantizationArgs> args,
                          ArgsOf(module.name, decision, resolution));
    if (!args) continue;
    PlannedAttention attention;
    attention.name = module.name;
    attention.class_name = module.class_name;
    attention.layer = module.layer;
    attention.args = *args;
    attention.scheme = decision.scheme;
    attention.targets = decision.group_targets;
    attention.num_attention_heads = model.num_attention_heads;
    attention.num_key_value_heads = model.num_key_value_heads;
    attention.why =
        decision.scheme ? absl::StrCat("target ", decision.decided_by) : "kv_cache_scheme";
    LLMC_RETURN_IF_ERROR(AddStored(model_dtype, attention));
    attentions.push_back(std::move(attention));
  }
  return attentions;
}

}  // namespace llmc
