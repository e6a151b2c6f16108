#include "modifiers/sparse_gpt.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/sparsegpt_solve.h"
#include "model/torch_tensor.h"
#include "modifiers/output_error.h"
#include "modifiers/pruning.h"
#include "modifiers/row_shares.h"
#include "modifiers/row_sums.h"
#include "modifiers/widen.h"

namespace llmc {
namespace {

// U = I: scores are squared magnitudes, and no column hears of another's loss.
absl::StatusOr<at::Tensor> Identity(const ComputeDevice& device, int64_t n) {
  LLMC_ASSIGN_OR_RETURN(const at::Tensor identity, device.Zeros(at::kFloat, {n, n}));
  LLMC_RETURN_IF_ERROR(CatchTorch("SparseGPT", [&] { identity.fill_diagonal_(1); }));
  return identity;
}

// SparseGptSolve wherever the problem's arrays lie.
absl::StatusOr<kernels::SparseGptResult> Solve(const ComputeDevice& device,
                                               const kernels::SparseGptProblem& problem,
                                               const kernels::SparseGptOptions& options) {
  if (device.is_host()) return kernels::SparseGptSolve(problem, options);
  LLMC_ASSIGN_OR_RETURN(const RowSums sums, RowSums::New(device, problem.rows));
  LLMC_RETURN_IF_ERROR(kernels::SparseGptSolve(problem, options, sums.loss(), sums.change(),
                                               *device.queue()));
  LLMC_ASSIGN_OR_RETURN(const RowSums::Totals totals, sums.Add(device));
  return kernels::SparseGptResult{totals.loss, totals.change};
}

}  // namespace

std::vector<SparseGptTransform::InputGroup> SparseGptTransform::GroupsOf(
    const LayerChange& change) const {
  std::map<std::string, InputGroup> groups;
  for (const PlannedTransform* transform : change.transforms) {
    const std::string& name = transform->needs.begin()->first;
    InputGroup& group = groups[name];
    group.name = name;
    group.factor.statistics = &change.statistics->at(name);
    group.transforms.push_back(transform);
    group.factor.energies.push_back(0);
  }
  std::vector<InputGroup> ordered;
  for (auto& [name, group] : groups) ordered.push_back(std::move(group));
  return ordered;
}

absl::Status SparseGptTransform::FactorGroups(std::span<InputGroup> groups,
                                              LayerChange& change) const {
  for (InputGroup& group : groups) {
    if (group.factor.statistics->owner != change.collective->rank()) continue;
    LLMC_ASSIGN_OR_RETURN(const at::Tensor hessian, group.factor.statistics->Hessian());
    for (size_t i = 0; i < group.transforms.size(); ++i) {
      LLMC_ASSIGN_OR_RETURN(const HostTensor* weight,
                            change.dense->Get(group.transforms[i]->tensors[0]));
      LLMC_ASSIGN_OR_RETURN(group.factor.energies[i],
                            OutputEnergy(*change.place.device, *weight, hessian));
    }
    LLMC_RETURN_IF_ERROR(
        At(group.name, FactorOwned({*change.place.device, false, fields_.dampening_frac},
                                   group.factor)));
  }
  return absl::OkStatus();
}

absl::Status SparseGptTransform::CheckPreserved(const PlannedTransform& transform,
                                                const HostTensor& weight, double sparsity) const {
  if (!fields_.preserve_sparsity_mask) return absl::OkStatus();
  const double zeros = FractionOfZeros(weight);
  if (zeros <= sparsity) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat(
      "%s: %.4g of it is 0 already, more than sparsity %g; expected a higher sparsity or "
      "preserve_sparsity_mask: false",
      transform.module, zeros, sparsity));
}

absl::Status SparseGptTransform::PruneModule(const PlannedTransform& transform,
                                             const SharedFactor& factor, double energy,
                                             LayerChange& change) const {
  LLMC_ASSIGN_OR_RETURN(HostTensor * weight, WeightToPrune(transform, change));
  kernels::SparseGptOptions options;
  options.sparsity = SparsityOf(fields_, transform, change);
  options.structure = fields_.mask_structure;
  options.block_size = fields_.block_size;
  options.preserve_sparsity_mask = fields_.preserve_sparsity_mask;
  options.sum_over_slices = [&](std::span<int64_t> counts) {
    return change.collective->AllReduceSum(counts);
  };
  LLMC_RETURN_IF_ERROR(CheckPreserved(transform, *weight, options.sparsity));
  const int64_t columns = weight->dim(1);
  const RowRange mine = RowsOfRank(weight->dim(0), *change.collective);
  const auto rows = WidenRows(*change.place.device, *weight, mine.begin, mine.count());
  LLMC_RETURN_IF_ERROR(change.collective->AgreeOnStatus(At(transform.module, rows.status())));
  kernels::SparseGptProblem problem;
  problem.rows = mine.count();
  problem.total_rows = weight->dim(0);
  problem.in_features = columns;
  problem.weight = static_cast<float*>(rows->data_ptr());
  problem.inverse_factor = static_cast<const float*>(factor.upper.const_data_ptr());
  const auto result = Solve(*change.place.device, problem, options);
  absl::Status local = At(transform.module, result.status());
  if (local.ok()) local = NarrowRows(*change.place.device, *rows, mine.begin, *weight);
  LLMC_RETURN_IF_ERROR(change.collective->AgreeOnStatus(local));
  LLMC_RETURN_IF_ERROR(GatherRows(*change.collective, *weight));
  LLMC_ASSIGN_OR_RETURN(
      const double error,
      SumOverRanks(*change.collective, 2 * result->loss - factor.lambda * result->change));
  PrunedModule pruned;
  pruned.transform = &transform;
  pruned.sparsity = FractionOfZeros(*weight);
  pruned.fallback_reason = factor.failure;
  if (factor.failure.empty()) {
    pruned.dampening_frac = factor.dampening_frac;
    pruned.num_tokens = factor.statistics->hessian_sum.tokens;
    pruned.output_error = energy > 0 ? std::max(0.0, error) / energy : 0.0;
  }
  change.pruned.push_back(std::move(pruned));
  return absl::OkStatus();
}

absl::Status SparseGptTransform::PruneGroup(InputGroup& group, LayerChange& change) const {
  SharedFactor& factor = group.factor;
  LLMC_RETURN_IF_ERROR(
      ShareFactor(*change.collective, change.place, factor.statistics->owner, factor));
  if (!factor.failure.empty()) {
    LLMC_ASSIGN_OR_RETURN(const HostTensor* weight,
                          change.dense->Get(group.transforms[0]->tensors[0]));
    LLMC_ASSIGN_OR_RETURN(factor.upper, Identity(*change.place.device, weight->dim(1)));
    factor.failure = absl::StrCat("pruned by magnitude: ", factor.failure);
  }
  for (size_t i = 0; i < group.transforms.size(); ++i) {
    LLMC_RETURN_IF_ERROR(PruneModule(*group.transforms[i], factor, factor.energies[i], change));
  }
  const bool is_owner = factor.statistics->owner == change.collective->rank();
  if (group.transforms[0]->keeps_factor && is_owner && factor.failure.empty()) {
    KeepFactor(std::exchange(factor, SharedFactor()));
  }
  factor = SharedFactor();
  return absl::OkStatus();
}

// As many groups at a time as there are ranks: their owners factor side by side, and
// no more factors than that are in memory.
absl::Status SparseGptTransform::Apply(LayerChange& change) const {
  std::vector<InputGroup> groups = GroupsOf(change);
  const size_t width = static_cast<size_t>(change.collective->world_size());
  for (size_t first = 0; first < groups.size(); first += width) {
    const std::span<InputGroup> round =
        std::span(groups).subspan(first, std::min(width, groups.size() - first));
    LLMC_RETURN_IF_ERROR(change.collective->AgreeOnStatus(FactorGroups(round, change)));
    for (InputGroup& group : round) LLMC_RETURN_IF_ERROR(PruneGroup(group, change));
  }
  return absl::OkStatus();
}

}  // namespace llmc
