#include "modifiers/activation_parameters.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/weight_grid.h"

namespace llmc {
namespace {

constexpr float kDefaultAveragingConstant = 0.01f;

// One activation of a module that is stored with static scales.
struct StaticActivation {
  std::string tap;
  std::string prefix;  // Of the stored tensors: "input", "output", "k", ...
  const QuantizationArgs* args = nullptr;
  int64_t num_channels = 1;
};

bool IsSearched(const QuantizationArgs& args) {
  return absl::EndsWith(args.observer.value_or(""), "mse");
}

float AveragingConstant(const QuantizationArgs& args) {
  const auto it = args.observer_kwargs.find("averaging_constant");
  return it == args.observer_kwargs.end() ? kDefaultAveragingConstant
                                          : static_cast<float>(it->second);
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

void AddNeed(const StaticActivation& activation, Needs& needs) {
  StatisticsNeed& need = needs[activation.tap];
  need.num_channels = activation.num_channels;
  if (IsSearched(*activation.args)) {
    need.searched = *activation.args;
  } else {
    need.extrema = true;
  }
}

std::vector<Extrema> Fold(const InputStatistics& statistics, const QuantizationArgs& args) {
  const std::string observer = args.observer.value_or("static_minmax");
  const bool is_searched = IsSearched(args);
  const ExtremaStatistic& extrema = is_searched ? *statistics.searched : *statistics.extrema;
  if (absl::StartsWith(observer, "memoryless")) return extrema.Last();
  if (is_searched || observer == "minmax") return extrema.MovingAverage(AveragingConstant(args));
  return extrema.Static();
}

absl::StatusOr<std::vector<kernels::StoredTensor>> Parameters(const StaticActivation& activation,
                                                              DType dtype,
                                                              const Statistics& statistics) {
  const QuantizationArgs& args = *activation.args;
  std::vector<kernels::Extrema> extrema;
  for (const Extrema& e : Fold(statistics.at(activation.tap), args)) {
    extrema.push_back({e.min, e.max});
  }
  absl::StatusOr<kernels::WeightGrid> grid = kernels::ActivationScale(extrema, args, dtype);
  if (!grid.ok()) return At(activation.tap, grid.status());
  std::vector<kernels::StoredTensor> stored;
  if (args.strategy == Strategy::kTensorGroup) {
    HostTensor global(DType::kF32, {1});
    *global.as<float>() = grid->global_scale;
    stored.push_back({activation.prefix + "_global_scale", std::move(global)});
    return stored;
  }
  stored.push_back({activation.prefix + "_scale", std::move(grid->scale)});
  if (!args.symmetric) {
    stored.push_back({activation.prefix + "_zero_point", std::move(grid->zero_point)});
  }
  return stored;
}

absl::StatusOr<std::vector<kernels::StoredTensor>> AllParameters(
    const std::vector<StaticActivation>& activations, DType dtype, const Statistics& statistics) {
  std::vector<kernels::StoredTensor> all;
  for (const StaticActivation& activation : activations) {
    LLMC_ASSIGN_OR_RETURN(std::vector<kernels::StoredTensor> stored,
                          Parameters(activation, dtype, statistics));
    for (kernels::StoredTensor& tensor : stored) all.push_back(std::move(tensor));
  }
  return all;
}

}  // namespace

void AddActivationNeeds(const PlannedModule& module, Needs& needs) {
  for (const StaticActivation& activation : StaticActivationsOf(module)) AddNeed(activation, needs);
}

void AddAttentionNeeds(const PlannedAttention& attention, Needs& needs) {
  for (const StaticActivation& activation : StaticActivationsOf(attention)) {
    AddNeed(activation, needs);
  }
}

absl::StatusOr<std::vector<kernels::StoredTensor>> ActivationParameters(
    const PlannedModule& module, const Statistics& statistics) {
  return AllParameters(StaticActivationsOf(module), module.source.dtype, statistics);
}

absl::StatusOr<std::vector<kernels::StoredTensor>> AttentionParameters(
    const PlannedAttention& attention, const Statistics& statistics) {
  return AllParameters(StaticActivationsOf(attention), attention.stored.front().dtype, statistics);
}

}  // namespace llmc
