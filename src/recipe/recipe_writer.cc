#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_cat.h"
#include "formats/names.h"
#include "formats/quantization_args.h"
#include "recipe/recipe.h"
#include "recipe/yaml_text.h"

namespace llmc {
namespace {

using OrderedJson = nlohmann::ordered_json;

// The reference's field order.
OrderedJson ArgsFields(const QuantizationArgs& args) {
  const nlohmann::json json = QuantizationArgsToJson(args);
  OrderedJson fields = OrderedJson::object();
  for (const std::string& key : QuantizationArgsKeys()) fields[key] = json[key];
  return fields;
}

OrderedJson ArgsOrNull(const std::optional<QuantizationArgs>& args) {
  return args ? ArgsFields(*args) : OrderedJson();
}

OrderedJson GroupFields(const SchemeGroup& group) {
  OrderedJson fields = OrderedJson::object();
  fields["targets"] = group.targets;
  fields["weights"] = ArgsOrNull(group.scheme.weights);
  fields["input_activations"] = ArgsOrNull(group.scheme.input_activations);
  fields["output_activations"] = ArgsOrNull(group.scheme.output_activations);
  fields["format"] =
      group.format_given ? OrderedJson(std::string(FormatName(group.scheme.format))) : nullptr;
  return fields;
}

void AddScheme(const QuantizationFields& from, OrderedJson& fields) {
  if (from.scheme) fields["scheme"] = *from.scheme;
  for (const auto& [preset, targets] : from.scheme_map) fields["scheme"][preset] = targets;
}

void AddObservers(const QuantizationFields& from, OrderedJson& fields) {
  if (from.weight_observer) fields["weight_observer"] = *from.weight_observer;
  if (from.input_observer) fields["input_observer"] = *from.input_observer;
  if (from.output_observer) fields["output_observer"] = *from.output_observer;
  for (const auto& [part, observer] : from.observer) fields["observer"][part] = observer;
}

OrderedJson QuantizationFieldsJson(const Modifier& modifier) {
  const QuantizationFields& from = FieldsOf(modifier);
  OrderedJson fields = OrderedJson::object();
  if (from.has_config_groups) {
    for (const SchemeGroup& group : from.groups) {
      fields["config_groups"][group.name] = GroupFields(group);
    }
  }
  fields["targets"] = from.targets;
  fields["ignore"] = from.ignore;
  AddScheme(from, fields);
  if (from.kv_cache_scheme) fields["kv_cache_scheme"] = ArgsFields(*from.kv_cache_scheme);
  AddObservers(from, fields);
  fields["bypass_divisibility_checks"] = from.bypass_divisibility_checks;
  fields["requires_calibration_data"] =
      from.requires_calibration_data || !CalibrationReason(modifier).empty();
  return fields;
}

// Groups that set another order than the default keep it only while the modifier
// itself stays silent, as the user had it.
bool MayNameActOrder(const GptqModifier& gptq) {
  if (gptq.actorder_given || !gptq.has_config_groups) return true;
  return std::all_of(gptq.groups.begin(), gptq.groups.end(), [&](const SchemeGroup& group) {
    return !group.scheme.weights || group.scheme.weights->actorder == gptq.actorder;
  });
}

void AddGptqFields(const GptqModifier& gptq, OrderedJson& fields) {
  fields["block_size"] = gptq.block_size;
  fields["dampening_frac"] = gptq.dampening_frac;
  if (MayNameActOrder(gptq)) {
    fields["actorder"] = gptq.actorder ? std::string(ActOrderName(*gptq.actorder)) : "none";
  }
  const int64_t batch = gptq.batched_quantization;
  fields["batched_quantization"] = batch < 0    ? OrderedJson("auto")
                                   : batch == 0 ? OrderedJson()
                                                : OrderedJson(batch);
  // The reference refuses fields that it does not know.
  if (gptq.on_singular == OnSingular::kFail) fields["on_singular"] = "fail";
}

OrderedJson MappingsJson(const std::optional<std::vector<SmoothMappingEntry>>& mappings,
                         bool as_pairs) {
  OrderedJson list = OrderedJson::array();
  for (const SmoothMappingEntry& entry : *mappings) {
    if (as_pairs) {
      list.push_back({entry.balance_layers, entry.smooth_layer});
    } else {
      OrderedJson fields = OrderedJson::object();
      fields["smooth_layer"] = entry.smooth_layer;
      fields["balance_layers"] = entry.balance_layers;
      list.push_back(std::move(fields));
    }
  }
  return list;
}

OrderedJson FieldsJson(const SmoothQuantModifier& smooth) {
  OrderedJson fields = OrderedJson::object();
  fields["smoothing_strength"] = smooth.smoothing_strength;
  if (smooth.mappings) fields["mappings"] = MappingsJson(smooth.mappings, true);
  fields["ignore"] = smooth.ignore;
  return fields;
}

OrderedJson FieldsJson(const AwqModifier& awq) {
  OrderedJson fields = OrderedJson::object();
  if (awq.mappings) fields["mappings"] = MappingsJson(awq.mappings, false);
  fields["duo_scaling"] = awq.duo_scaling == DuoScaling::kBoth
                              ? OrderedJson("both")
                              : OrderedJson(awq.duo_scaling == DuoScaling::kTrue);
  fields["n_grid"] = awq.n_grid;
  if (!awq.offload_device.empty()) fields["offload_device"] = awq.offload_device;
  return fields;
}

OrderedJson SparsityJson(const PruningFields& pruning) {
  if (pruning.sparsity_is_list) return pruning.sparsity;
  return pruning.sparsity.empty() ? OrderedJson() : OrderedJson(pruning.sparsity[0]);
}

std::string MaskText(const PruningFields& pruning) {
  return absl::StrCat(pruning.mask_structure.prune_count, ":", pruning.mask_structure.group_size);
}

// owl_m is a whole number in the reference.
OrderedJson NumberJson(double number) {
  const auto whole = static_cast<int64_t>(number);
  return static_cast<double>(whole) == number ? OrderedJson(whole) : OrderedJson(number);
}

OrderedJson PruningJson(const PruningFields& pruning) {
  OrderedJson fields = OrderedJson::object();
  fields["requires_calibration_data"] = true;
  fields["sparsity"] = SparsityJson(pruning);
  if (pruning.has_owl_profile) fields["sparsity_profile"] = "owl";
  fields["mask_structure"] = MaskText(pruning);
  if (pruning.owl_m) fields["owl_m"] = NumberJson(*pruning.owl_m);
  if (pruning.owl_lmbda) fields["owl_lmbda"] = *pruning.owl_lmbda;
  fields["sequential_update"] = false;
  fields["targets"] = pruning.targets;
  fields["ignore"] = pruning.ignore;
  return fields;
}

OrderedJson FieldsJson(const SparseGptModifier& sparse_gpt) {
  OrderedJson fields = PruningJson(sparse_gpt);
  fields["block_size"] = sparse_gpt.block_size;
  fields["dampening_frac"] = sparse_gpt.dampening_frac;
  fields["preserve_sparsity_mask"] = sparse_gpt.preserve_sparsity_mask;
  fields["offload_hessians"] = sparse_gpt.offload_hessians;
  return fields;
}

OrderedJson FieldsJson(const WandaPruningModifier& wanda) { return PruningJson(wanda); }

// The fields of the other two as the reference has them; `ignore` is llmc's own.
OrderedJson TargetsJson(const PruningFields& pruning) {
  OrderedJson fields = OrderedJson::object();
  fields["requires_calibration_data"] = false;
  fields["targets"] = pruning.targets;
  if (!pruning.ignore.empty()) fields["ignore"] = pruning.ignore;
  return fields;
}

OrderedJson FieldsJson(const MagnitudePruningModifier& magnitude) {
  OrderedJson fields = TargetsJson(magnitude);
  fields["init_sparsity"] = magnitude.init_sparsity;
  fields["final_sparsity"] = SparsityJson(magnitude);
  fields["update_scheduler"] = "cubic";
  fields["scheduler_args"] = OrderedJson::object();
  fields["mask_structure"] =
      magnitude.mask_structure.is_grouped() ? MaskText(magnitude) : "unstructured";
  fields["leave_enabled"] = false;
  fields["apply_globally"] = false;
  return fields;
}

OrderedJson FieldsJson(const ConstantPruningModifier& constant) { return TargetsJson(constant); }

OrderedJson FieldsJson(const QuantizationModifier& modifier) {
  return QuantizationFieldsJson(modifier);
}

OrderedJson FieldsJson(const GptqModifier& gptq) {
  OrderedJson fields = QuantizationFieldsJson(gptq);
  AddGptqFields(gptq, fields);
  return fields;
}

nlohmann::json Sorted(std::vector<std::string> strings) {
  const std::set<std::string> distinct(strings.begin(), strings.end());
  return distinct;
}

nlohmann::json SchemeJson(const Scheme& scheme) {
  const auto part = [](const std::optional<QuantizationArgs>& args) {
    return args ? QuantizationArgsToJson(*args) : nlohmann::json();
  };
  return {{"weights", part(scheme.weights)},
          {"input_activations", part(scheme.input_activations)},
          {"output_activations", part(scheme.output_activations)},
          {"format", std::string(FormatName(scheme.format))}};
}

nlohmann::json CanonicalQuantizer(const Modifier& modifier) {
  const QuantizationFields& fields = FieldsOf(modifier);
  std::set<nlohmann::json> groups;
  for (const SchemeGroup& group : fields.groups) {
    groups.insert({{"targets", Sorted(group.targets)}, {"scheme", SchemeJson(group.scheme)}});
  }
  nlohmann::json json = {{"modifier", std::string(ModifierClassName(modifier))},
                         {"groups", groups},
                         {"ignore", Sorted(fields.ignore)}};
  if (fields.kv_cache_scheme) {
    json["kv_cache_scheme"] = QuantizationArgsToJson(*fields.kv_cache_scheme);
  }
  if (const auto* gptq = std::get_if<GptqModifier>(&modifier)) {
    json["block_size"] = gptq->block_size;
    json["dampening_frac"] = gptq->dampening_frac;
    json["on_singular"] = gptq->on_singular == OnSingular::kFail ? "fail" : "round_to_nearest";
  }
  return json;
}

// What a transform writes into recipe.yaml is all that it means, but for fields
// without effect.
nlohmann::json CanonicalModifier(const Modifier& modifier) {
  if (QuantizationFieldsOf(modifier) != nullptr) return CanonicalQuantizer(modifier);
  const OrderedJson fields = std::visit([](const auto& m) { return FieldsJson(m); }, modifier);
  nlohmann::json json = nlohmann::json::parse(fields.dump());
  for (const char* unused : {"offload_device", "offload_hessians", "init_sparsity"}) {
    json.erase(unused);
  }
  json["modifier"] = std::string(ModifierClassName(modifier));
  return json;
}

}  // namespace

std::string ResolvedRecipeYaml(const Recipe& recipe) {
  OrderedJson stage = OrderedJson::object();
  for (const Modifier& modifier : recipe.modifiers()) {
    OrderedJson fields = std::visit([](const auto& m) { return FieldsJson(m); }, modifier);
    const std::string class_name(ModifierClassName(modifier));
    // A class can be once in a group, and the order of modifiers must stay.
    std::string group = "default_modifiers";
    if (!stage.empty()) {
      group = std::prev(stage.end()).key();
      if (stage[group].contains(class_name)) {
        group = absl::StrCat("default_", stage.size(), "_modifiers");
      }
    }
    stage[group][class_name] = std::move(fields);
  }
  OrderedJson tree = OrderedJson::object();
  if (recipe.sparse_format().value_or(SparseFormat::kDense) != SparseFormat::kDense) {
    tree["sparse_format"] = std::string(SparseFormatName(*recipe.sparse_format()));
  }
  tree["default_stage"] = std::move(stage);
  return YamlText(tree);
}

std::string CanonicalText(const Recipe& recipe) {
  nlohmann::json modifiers = nlohmann::json::array();
  for (const Modifier& modifier : recipe.modifiers()) {
    modifiers.push_back(CanonicalModifier(modifier));
  }
  return modifiers.dump();
}

}  // namespace llmc
