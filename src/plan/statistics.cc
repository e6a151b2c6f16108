#include "plan/statistics.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace llmc {
namespace {

bool Contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

void AddNeed(const StaticActivation& activation, Needs& needs) {
  StatisticsNeed& need = needs[activation.tap];
  need.num_channels = activation.num_channels;
  if (activation.is_searched()) {
    need.searched = *activation.args;
  } else {
    need.extrema = true;
  }
}

// Taps whose values the smoothings of a unit scale.
struct ScaledTaps {
  std::vector<std::string> inputs;
  std::vector<std::string> outputs;
};

ScaledTaps ScaledTapsOf(const Plan& plan, const WorkUnit& unit) {
  ScaledTaps scaled;
  for (int index : unit.transforms) {
    const PlannedTransform& transform = plan.transforms[index];
    if (!transform.smoothing) continue;
    for (const auto& [group, need] : transform.needs) scaled.inputs.push_back(group);
    const std::string& source = transform.smoothing->source;
    if (transform.smoothing->kind == SmoothMapping::Kind::kNorm) continue;
    scaled.outputs.push_back(OutputTap(source));
    if (transform.smoothing->kind == SmoothMapping::Kind::kValue) {
      scaled.outputs.push_back(AttentionTap(source.substr(0, source.rfind('.')), "v"));
    }
  }
  return scaled;
}

// Of quantisers and attention, without transforms.
Needs NeedsOfQuantizers(const Plan& plan, const WorkUnit& unit) {
  Needs needs;
  for (int index : unit.modules) {
    for (const auto& [tap, need] : NeedsOfModule(plan.modules[index])) needs[tap].Add(need);
  }
  for (int index : unit.attentions) {
    for (const StaticActivation& activation : StaticActivationsOf(plan.attentions[index])) {
      AddNeed(activation, needs);
    }
  }
  return needs;
}

void AddReader(const StatisticsNeed& need, const std::string& name,
               std::map<std::string, std::vector<std::string>>& readers) {
  const auto add = [&](bool needed, const char* statistic) {
    if (needed && !Contains(readers[statistic], name)) readers[statistic].push_back(name);
    if (readers[statistic].empty()) readers.erase(statistic);
  };
  add(need.hessian, "Hessian");
  add(need.extrema, "extrema");
  add(need.searched.has_value(), "searched range");
  add(need.channel_extrema, "channel extrema");
  add(need.mean_magnitude, "mean |x|");
  add(need.squares, "norms");
}

// Who shares one factor of the Hessian of `tap`: a SparseGPT that keeps it, a GPTQ that
// takes it.
void AddFactorReaders(const Plan& plan, const WorkUnit& unit, const std::string& tap,
                      std::map<std::string, std::vector<std::string>>& readers) {
  const auto name = [&](int modifier) {
    return std::string(ModifierClassName(plan.recipe.modifiers()[modifier]));
  };
  std::vector<std::string> names;
  for (int index : unit.transforms) {
    const PlannedTransform& transform = plan.transforms[index];
    if (!transform.keeps_factor || !transform.needs.contains(tap)) continue;
    if (!Contains(names, name(transform.modifier))) names.push_back(name(transform.modifier));
  }
  if (names.empty()) return;
  for (int index : unit.modules) {
    const PlannedModule& module = plan.modules[index];
    if (module.method != Method::kGptq || module.module.input_group != tap) continue;
    if (module.scheme->weights->actorder || Contains(names, name(module.modifier))) continue;
    names.push_back(name(module.modifier));
  }
  readers["its factor"] = names;
}

}  // namespace

std::string OutputTap(const std::string& linear) { return linear + ".output"; }

std::string AttentionTap(const std::string& attention, const std::string& state) {
  return absl::StrCat(attention, ".", state);
}

void StatisticsNeed::Add(const StatisticsNeed& other) {
  hessian |= other.hessian;
  extrema |= other.extrema;
  if (other.searched) searched = other.searched;
  num_channels = std::max(num_channels, other.num_channels);
  mean_magnitude |= other.mean_magnitude;
  channel_extrema |= other.channel_extrema;
  channel_extrema_by_sample |= other.channel_extrema_by_sample;
  squares |= other.squares;
  sample_norms |= other.sample_norms;
}

bool StaticActivation::is_searched() const {
  return absl::EndsWith(args->observer.value_or(""), "mse");
}

std::vector<StaticActivation> StaticActivationsOf(const PlannedModule& module) {
  std::vector<StaticActivation> all;
  const auto add = [&](const std::optional<QuantizationArgs>& args, const std::string& tap,
                       const std::string& prefix) {
    if (args && args->dynamic != Dynamic::kTrue) all.push_back({tap, prefix, &*args});
  };
  add(module.scheme->input_activations, module.module.input_group, "input");
  add(module.scheme->output_activations, OutputTap(module.module.name), "output");
  return all;
}

std::vector<StaticActivation> StaticActivationsOf(const PlannedAttention& attention) {
  const bool per_head = attention.args.strategy == Strategy::kAttnHead;
  const int64_t num_key_heads = per_head ? attention.num_key_value_heads : 1;
  std::vector<StaticActivation> all;
  for (const char* state : {"k", "v"}) {
    all.push_back({AttentionTap(attention.name, state), state, &attention.args, num_key_heads});
  }
  if (!attention.scheme) return all;
  const int64_t num_heads = per_head ? attention.num_attention_heads : 1;
  all.insert(all.begin(), {AttentionTap(attention.name, "q"), "q", &attention.args, num_heads});
  return all;
}

bool WeighsErrors(const PlannedModule& module) {
  if (!module.scheme || !module.scheme->weights || !module.module.is_linear()) return false;
  const QuantizationArgs& weights = *module.scheme->weights;
  return absl::StrContains(weights.observer.value_or(""), "imatrix") &&
         weights.strategy != Strategy::kTensor && weights.strategy != Strategy::kBlock;
}

Needs NeedsOfModule(const PlannedModule& module) {
  Needs needs;
  if (module.method == Method::kGptq) needs[module.module.input_group].hessian = true;
  if (WeighsErrors(module)) needs[module.module.input_group].squares = true;
  for (const StaticActivation& activation : StaticActivationsOf(module)) AddNeed(activation, needs);
  return needs;
}

Needs NeedsOfUnit(const Plan& plan, const WorkUnit& unit) {
  Needs needs = NeedsOfQuantizers(plan, unit);
  for (const std::string& tap : ScaledTapsOf(plan, unit).inputs) {
    const auto need = needs.find(tap);
    if (need == needs.end() || !need->second.extrema) continue;
    need->second.channel_extrema = true;
    need->second.channel_extrema_by_sample = true;
  }
  for (const auto& [tap, need] : NeedsAfterTransforms(plan, unit)) {
    StatisticsNeed& before = needs[tap];
    before.searched.reset();
    if (need.extrema) before.extrema = false;
    if (!before.hessian && !before.extrema) needs.erase(tap);
  }
  for (int index : unit.transforms) {
    for (const auto& [tap, need] : plan.transforms[index].needs) needs[tap].Add(need);
  }
  return needs;
}

Needs NeedsAfterTransforms(const Plan& plan, const WorkUnit& unit) {
  const ScaledTaps scaled = ScaledTapsOf(plan, unit);
  Needs after;
  for (const auto& [tap, need] : NeedsOfQuantizers(plan, unit)) {
    if (Contains(scaled.outputs, tap)) {
      after[tap] = need;
    } else if (Contains(scaled.inputs, tap) && need.searched) {
      after[tap].searched = need.searched;
      after[tap].num_channels = need.num_channels;
    }
  }
  return after;
}

std::map<std::string, std::vector<std::string>> StatisticsReaders(const Plan& plan,
                                                                  const WorkUnit& unit,
                                                                  const std::string& tap) {
  std::map<std::string, std::vector<std::string>> readers;
  const auto add = [&](const Needs& needs, int modifier) {
    const auto need = needs.find(tap);
    if (need == needs.end()) return;
    AddReader(need->second, std::string(ModifierClassName(plan.recipe.modifiers()[modifier])),
              readers);
  };
  for (int index : unit.transforms) {
    add(plan.transforms[index].needs, plan.transforms[index].modifier);
  }
  for (int index : unit.modules) {
    add(NeedsOfModule(plan.modules[index]), plan.modules[index].modifier);
  }
  for (int index : unit.attentions) {
    for (const StaticActivation& activation : StaticActivationsOf(plan.attentions[index])) {
      Needs needs;
      AddNeed(activation, needs);
      if (needs.contains(tap)) AddReader(needs.at(tap), "kv_cache_scheme", readers);
    }
  }
  AddFactorReaders(plan, unit, tap, readers);
  return readers;
}

bool ChangesOutput(const Plan& plan, const WorkUnit& unit) {
  return std::any_of(unit.modules.begin(), unit.modules.end(),
                     [&](int index) { return plan.modules[index].method == Method::kGptq; }) ||
         std::any_of(unit.transforms.begin(), unit.transforms.end(),
                     [&](int index) { return !plan.transforms[index].keeps_function; });
}

bool PropagatesStored(const Plan& plan, const WorkUnit& unit, const std::string& name) {
  for (int index : unit.modules) {
    const PlannedModule& module = plan.modules[index];
    if (module.source.name == name && module.method == Method::kGptq) return true;
  }
  return std::any_of(unit.transforms.begin(), unit.transforms.end(),
                     [&](int index) { return Contains(plan.transforms[index].tensors, name); });
}

}  // namespace llmc
