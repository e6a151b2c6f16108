#include "modifiers/activation_parameters.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/weight_grid.h"
#include "plan/statistics.h"

namespace llmc {
namespace {

constexpr float kDefaultAveragingConstant = 0.01f;

float AveragingConstant(const QuantizationArgs& args) {
  const auto it = args.observer_kwargs.find("averaging_constant");
  return it == args.observer_kwargs.end() ? kDefaultAveragingConstant
                                          : static_cast<float>(it->second);
}

std::vector<Extrema> Fold(const InputStatistics& statistics, const StaticActivation& activation) {
  const QuantizationArgs& args = *activation.args;
  const std::string observer = args.observer.value_or("static_minmax");
  const bool is_searched = activation.is_searched();
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
  for (const Extrema& e : Fold(statistics.at(activation.tap), activation)) {
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

absl::StatusOr<std::vector<kernels::StoredTensor>> ActivationParameters(
    const PlannedModule& module, const Statistics& statistics) {
  return AllParameters(StaticActivationsOf(module), module.source.dtype, statistics);
}

absl::StatusOr<std::vector<kernels::StoredTensor>> AttentionParameters(
    const PlannedAttention& attention, const Statistics& statistics) {
  return AllParameters(StaticActivationsOf(attention), attention.stored.front().dtype, statistics);
}

}  // namespace llmc
