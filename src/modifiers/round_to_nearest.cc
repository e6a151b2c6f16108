#include "modifiers/round_to_nearest.h"

#include <utility>

namespace llmc {

StatisticsNeed RoundToNearestLayerModifier::Needs(const PlannedModule& module) const {
  const auto& inputs = module.scheme->input_activations;
  return {.hessian = false, .extrema = inputs && inputs->dynamic != Dynamic::kTrue};
}

absl::StatusOr<SolvedModule> RoundToNearest(const PlannedModule& module, HostTensor weight,
                                            std::optional<float> fused_absmax,
                                            const InputStatistics* statistics) {
  SolvedModule solved;
  solved.planned = &module;
  LLMC_ASSIGN_OR_RETURN(solved.grid, GridOf(module, weight.view(), fused_absmax));
  if (statistics != nullptr && statistics->extrema != nullptr) {
    LLMC_ASSIGN_OR_RETURN(solved.activation_parameters, ActivationParameters(module, *statistics));
  }
  LLMC_ASSIGN_OR_RETURN(solved.output_error, WeightError(module, weight.view(), solved.grid));
  solved.weight = std::move(weight);
  return solved;
}

absl::Status RoundToNearestLayerModifier::Solve(LayerSolve& layer) const {
  for (const PlannedModule* module : layer.modules) {
    auto statistics = layer.statistics->find(module->module.input_group);
    LLMC_ASSIGN_OR_RETURN(const std::optional<float> absmax, layer.fused_absmax(*module));
    LLMC_ASSIGN_OR_RETURN(
        SolvedModule solved,
        RoundToNearest(*module, std::move(layer.weights.at(module->module.name)), absmax,
                       statistics == layer.statistics->end() ? nullptr : &statistics->second));
    layer.solved.push_back(std::move(solved));
  }
  return absl::OkStatus();
}

}  // namespace llmc
