#include "modifiers/round_to_nearest.h"

#include <utility>

#include "modifiers/activation_parameters.h"

namespace llmc {

absl::StatusOr<SolvedModule> RoundToNearest(const PlannedModule& module, HostTensor weight,
                                            std::optional<float> fused_absmax,
                                            const Statistics& statistics, WeightStaging* staging) {
  SolvedModule solved;
  solved.planned = &module;
  solved.method = module.method == Method::kActivations ? module.method : Method::kRoundToNearest;
  LLMC_ASSIGN_OR_RETURN(solved.activation_parameters, ActivationParameters(module, statistics));
  if (module.scheme->weights) {
    LLMC_ASSIGN_OR_RETURN(const std::vector<float> importance, ImportanceOf(module, statistics));
    if (staging != nullptr) {
      LLMC_ASSIGN_OR_RETURN(const at::Tensor there, staging->Upload(weight.view()));
      LLMC_ASSIGN_OR_RETURN(solved.grid,
                            GridOf(module, staging->Of(there), fused_absmax, importance));
    } else {
      LLMC_ASSIGN_OR_RETURN(solved.grid, GridOf(module, weight.view(), fused_absmax, importance));
    }
    LLMC_ASSIGN_OR_RETURN(solved.output_error, WeightError(module, weight.view(), solved.grid));
  }
  solved.weight = std::move(weight);
  return solved;
}

absl::Status RoundToNearestLayerModifier::Solve(LayerSolve& layer) const {
  for (const PlannedModule* module : layer.modules) {
    LLMC_ASSIGN_OR_RETURN(const std::optional<float> absmax, layer.fused_absmax(*module));
    LLMC_ASSIGN_OR_RETURN(SolvedModule solved,
                          RoundToNearest(*module, std::move(layer.weights.at(module->module.name)),
                                         absmax, *layer.statistics, layer.staging));
    layer.solved.push_back(std::move(solved));
  }
  return absl::OkStatus();
}

}  // namespace llmc
