#include "modifiers/pruning.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/prune_by_score.h"
#include "kernels/sparse_packing.h"
#include "kernels/weight_grid.h"
#include "modifiers/row_shares.h"
#include "modifiers/widen.h"

namespace llmc {
namespace {

// Largest fraction that OWL may ask for in a layer.
constexpr double kLargestSparsity = 0.999;

}  // namespace

double SparsityOf(const PruningFields& fields, const PlannedTransform& transform,
                  const LayerChange& change) {
  if (!fields.has_owl_profile || transform.layer < 0) return transform.sparsity;
  return std::clamp(change.layer_sparsities->at(transform.modifier).at(transform.layer), 0.0,
                    kLargestSparsity);
}

absl::StatusOr<HostTensor*> WeightToPrune(const PlannedTransform& transform, LayerChange& change) {
  LLMC_ASSIGN_OR_RETURN(HostTensor * weight, change.dense->Get(transform.tensors[0]));
  const absl::Status finite = kernels::FindExtrema(weight->view()).status();
  if (!finite.ok()) return At(transform.tensors[0], finite);
  return weight;
}

double FractionOfZeros(const HostTensor& weight) {
  const auto count = static_cast<double>(weight.num_elements());
  return 1 - static_cast<double>(kernels::CountNonZero(weight.view())) / count;
}

std::vector<float> ScorePruningTransform::Norms(const PlannedTransform& transform,
                                                const LayerChange& change) const {
  std::vector<float> norms;
  if (!std::holds_alternative<WandaPruningModifier>(modifier_)) return norms;
  const std::vector<double> squares =
      change.statistics->at(transform.needs.begin()->first).SquareSums();
  for (double sum : squares) norms.push_back(static_cast<float>(std::sqrt(sum)));
  return norms;
}

absl::Status ScorePruningTransform::Prune(const PlannedTransform& transform,
                                          LayerChange& change) const {
  const PruningFields& fields = *PruningFieldsOf(modifier_);
  LLMC_ASSIGN_OR_RETURN(HostTensor * weight, WeightToPrune(transform, change));
  PrunedModule pruned;
  pruned.transform = &transform;
  std::vector<float> norms = Norms(transform, change);
  if (!norms.empty() && std::all_of(norms.begin(), norms.end(), [](float n) { return n == 0; })) {
    norms.clear();
    pruned.fallback_reason = "its input is 0 everywhere, so magnitudes decide";
  }
  const int64_t columns = weight->dim(1);
  const RowRange mine = RowsOfRank(weight->dim(0), *change.collective);
  HostTensor rows = Widen(*weight, mine.begin * columns, mine.count() * columns);
  LLMC_RETURN_IF_ERROR(
      At(transform.module,
         kernels::PruneByScore({rows.as<float>(), mine.count(), columns, norms},
                               SparsityOf(fields, transform, change), fields.mask_structure)));
  Narrow(rows, mine.begin * columns, *weight);
  LLMC_RETURN_IF_ERROR(GatherRows(*change.collective, *weight));
  pruned.sparsity = FractionOfZeros(*weight);
  change.pruned.push_back(std::move(pruned));
  return absl::OkStatus();
}

absl::Status ScorePruningTransform::Apply(LayerChange& change) const {
  if (std::holds_alternative<ConstantPruningModifier>(modifier_)) return absl::OkStatus();
  for (const PlannedTransform* transform : change.transforms) {
    LLMC_RETURN_IF_ERROR(Prune(*transform, change));
  }
  return absl::OkStatus();
}

absl::Status PruneRowsByMagnitude(const PruningFields& fields, double sparsity, HostTensor& rows) {
  LLMC_RETURN_IF_ERROR(kernels::FindExtrema(rows.view()).status());
  HostTensor wide = Widen(rows, 0, rows.num_elements());
  LLMC_RETURN_IF_ERROR(kernels::PruneByScore({wide.as<float>(), rows.dim(0), rows.dim(1), {}},
                                             sparsity, fields.mask_structure));
  Narrow(wide, 0, rows);
  return absl::OkStatus();
}

}  // namespace llmc
