#include "pipeline/owl_sweep.h"

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <utility>

#include "kernels/prune_by_score.h"
#include "modifiers/widen.h"
#include "pipeline/hidden_states.h"
#include "pipeline/layer_tensors.h"

namespace llmc {
namespace {

using OwlModifiers = std::map<int, const PruningFields*>;  // By index.

OwlModifiers OwlModifiersOf(const Recipe& recipe) {
  OwlModifiers found;
  for (size_t m = 0; m < recipe.modifiers().size(); ++m) {
    const PruningFields* fields = PruningFieldsOf(recipe.modifiers()[m]);
    if (fields != nullptr && fields->has_owl_profile) found[static_cast<int>(m)] = fields;
  }
  return found;
}

std::vector<const PlannedModule*> LinearsOf(const Plan& plan, int64_t layer) {
  std::vector<const PlannedModule*> linears;
  for (const PlannedModule& module : plan.modules) {
    if (module.module.layer == layer && module.module.is_linear()) linears.push_back(&module);
  }
  return linears;
}

std::vector<float> NormsOf(const ExactSums& sums) {
  std::vector<float> norms;
  for (int64_t i = 0; i < sums.size(); ++i) norms.push_back(static_cast<float>(sums.Get(i)));
  return norms;
}

// Calls visit(rows, ...) with the scores' parts of every linear of a layer.
template <typename Visit>
absl::Status ForEachLinear(const Plan& plan, int64_t layer, const Statistics& statistics,
                           const Visit& visit) {
  for (const PlannedModule* module : LinearsOf(plan, layer)) {
    LLMC_ASSIGN_OR_RETURN(const HostTensor weight, plan.source->Read(module->source.name));
    HostTensor wide = Widen(weight, 0, weight.num_elements());
    const std::vector<float> norms =
        NormsOf(*statistics.at(module->module.input_group).sample_norms);
    visit(kernels::ScoredRows{wide.as<float>(), weight.dim(0), weight.dim(1), norms});
  }
  return absl::OkStatus();
}

// Share of a layer's scores above owl_m times their mean, for every modifier.
absl::StatusOr<std::map<int, double>> RatiosOfLayer(const Plan& plan, int64_t layer,
                                                    const Statistics& statistics,
                                                    const OwlModifiers& modifiers) {
  double sum = 0;
  int64_t count = 0;
  LLMC_RETURN_IF_ERROR(ForEachLinear(plan, layer, statistics, [&](const kernels::ScoredRows& rows) {
    sum += kernels::SumOfScores(rows);
    count += rows.rows * rows.in_features;
  }));
  std::map<int, int64_t> above;
  LLMC_RETURN_IF_ERROR(ForEachLinear(plan, layer, statistics, [&](const kernels::ScoredRows& rows) {
    for (const auto& [m, fields] : modifiers) {
      above[m] +=
          kernels::CountScoresAbove(rows, *fields->owl_m * sum / static_cast<double>(count));
    }
  }));
  std::map<int, double> ratios;
  for (const auto& [m, outliers] : above) {
    ratios[m] = 100.0 * static_cast<double>(outliers) / static_cast<double>(count);
  }
  return ratios;
}

Needs NormsOfInputs(const Plan& plan, int64_t layer) {
  Needs needs;
  for (const PlannedModule* module : LinearsOf(plan, layer)) {
    needs[module->module.input_group].sample_norms = true;
  }
  return needs;
}

}  // namespace

std::vector<double> OwlSparsities(std::span<const double> ratios, double sparsity, double lambda) {
  const auto [min, max] = std::minmax_element(ratios.begin(), ratios.end());
  std::vector<double> stretched(ratios.size(), 0.0);
  for (size_t i = 0; i < ratios.size() && *max > *min; ++i) {
    stretched[i] = (ratios[i] - *min) / (*max - *min) * 2 * lambda;
  }
  const double mean = std::accumulate(stretched.begin(), stretched.end(), 0.0) /
                      static_cast<double>(stretched.size());
  std::vector<double> sparsities;
  for (double ratio : stretched) sparsities.push_back(1 - (ratio - mean + (1 - sparsity)));
  return sparsities;
}

absl::StatusOr<LayerSparsities> FindLayerSparsities(RunState& run, const Schedule& schedule,
                                                    const LayerPlacement& placement) {
  const OwlModifiers modifiers = OwlModifiersOf(run.plan.recipe);
  if (modifiers.empty()) return LayerSparsities();
  auto hidden = HiddenStates::Embed(run, schedule.MyChunks(), placement.dtype);
  LLMC_RETURN_IF_ERROR(run.collective.AgreeOnStatus(hidden.status()));
  std::map<int, std::vector<double>> ratios;
  for (int64_t layer = 0; layer < run.plan.model->num_hidden_layers; ++layer) {
    LayerPrefetch tensors(run, layer, nullptr);
    const auto reader = [&](const std::string& name) { return tensors.Take(name); };
    auto loaded = DecoderLayer::LoadTensors(*run.plan.model, layer, reader, placement);
    LLMC_RETURN_IF_ERROR(run.collective.AgreeOnStatus(loaded.status()));
    Statistics statistics;
    LLMC_RETURN_IF_ERROR(CaptureLayer(run, schedule, *loaded, NormsOfInputs(run.plan, layer), true,
                                      **hidden, statistics));
    auto of_layer = RatiosOfLayer(run.plan, layer, statistics, modifiers);
    LLMC_RETURN_IF_ERROR(run.collective.AgreeOnStatus(of_layer.status()));
    for (const auto& [m, ratio] : *of_layer) ratios[m].push_back(ratio);
  }
  LayerSparsities sparsities;
  for (const auto& [m, of_layers] : ratios) {
    const PruningFields& fields = *modifiers.at(m);
    sparsities[m] = OwlSparsities(of_layers, fields.sparsity[0], *fields.owl_lmbda);
  }
  return sparsities;
}

}  // namespace llmc
