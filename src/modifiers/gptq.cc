#include "modifiers/gptq.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "ATen/TensorOperators.h"
#include "ATen/ops/tensor.h"
#include "absl/strings/str_cat.h"
#include "kernels/gptq_solve.h"
#include "model/torch_tensor.h"
#include "modifiers/activation_parameters.h"
#include "modifiers/output_error.h"
#include "modifiers/round_to_nearest.h"
#include "modifiers/row_shares.h"
#include "modifiers/row_sums.h"
#include "modifiers/widen.h"

namespace llmc {
namespace {

const float* Floats(const at::Tensor& tensor) {
  return static_cast<const float*>(tensor.const_data_ptr());
}

bool IsOrdered(const PlannedModule& module) { return module.scheme->weights->actorder.has_value(); }

// The grid as the solver takes it, with the arrays it points to, where it solves.
struct SolverGrid {
  at::Tensor scale;
  at::Tensor zero_point;
  kernels::SolveGrid view;
};

absl::StatusOr<SolverGrid> MakeSolverGrid(const ComputeDevice& device,
                                          const kernels::WeightGrid& grid,
                                          const QuantizationArgs& args, const Shape& shape) {
  SolverGrid solver;
  HostTensor scale = Widen(grid.scale, 0, grid.scale.num_elements());
  for (float& value : std::span(scale.as<float>(), scale.num_elements())) {
    if (grid.global_scale != 0) value /= grid.global_scale;
    if (std::isfinite(value) && value != 0) continue;
    return absl::FailedPreconditionError(
        absl::StrCat("a scale is ", value, ", expected a finite one that is not 0"));
  }
  LLMC_ASSIGN_OR_RETURN(solver.scale, device.Upload(scale.view()));
  kernels::SolveGrid& view = solver.view;
  view.type = args.type;
  view.num_bits = args.num_bits;
  view.scale = Floats(solver.scale);
  if (grid.zero_point.num_bytes() > 0) {
    const HostTensor zero_point = Widen(grid.zero_point, 0, grid.zero_point.num_elements());
    LLMC_ASSIGN_OR_RETURN(solver.zero_point, device.Upload(zero_point.view()));
    view.zero_point = Floats(solver.zero_point);
  }
  const bool per_tensor = args.strategy == Strategy::kTensor;
  view.num_groups = per_tensor ? 1 : grid.scale.dim(1);
  view.rows_per_scale = per_tensor ? shape[0] : 1;
  view.group_size = args.group_size.value_or(shape[1]);
  if (args.block_structure) {
    view.rows_per_scale = (*args.block_structure)[0];
    view.group_size = (*args.block_structure)[1];
  }
  view.scale_dtype = args.scale_dtype ? DType::kF32 : grid.scale.dtype();
  return solver;
}

// What the solver's loss holds of dead columns, for which the factor put the mean
// of the diagonal in place of 0: they add nothing to the layer's output.
absl::StatusOr<double> DeadError(const ComputeDevice& device, const SharedFactor& factor,
                                 const at::Tensor& dense, const at::Tensor& rounded) {
  at::Tensor squares;
  LLMC_RETURN_IF_ERROR(CatchTorch("GPTQ", [&] {
    const at::Tensor dead = at::tensor(factor.dead, at::kInt).to(dense.device());
    const auto columns = [&](const at::Tensor& rows) {
      return rows.index_select(1, dead).to(at::kDouble);
    };
    squares = (columns(dense) - columns(rounded)).square().sum();
  }));
  LLMC_ASSIGN_OR_RETURN(const HostTensor sum, device.Download(squares));
  return factor.lambda / factor.dampening_frac * *sum.as<double>();
}

// GptqSolve wherever the problem's arrays lie.
absl::StatusOr<kernels::GptqResult> RunSolver(const ComputeDevice& device,
                                              kernels::GptqProblem problem,
                                              const kernels::GptqSolveOptions& options) {
  if (device.is_host()) return kernels::GptqSolve(problem, options);
  LLMC_ASSIGN_OR_RETURN(const RowSums sums, RowSums::New(device, problem.rows));
  problem.row_loss = sums.loss();
  problem.row_change = sums.change();
  LLMC_RETURN_IF_ERROR(kernels::GptqSolve(problem, options, *device.queue()));
  LLMC_ASSIGN_OR_RETURN(const RowSums::Totals totals, sums.Add(device));
  return kernels::GptqResult{totals.loss, totals.change};
}

// What SolveRows is asked.
struct RowSolve {
  const ComputeDevice& device;
  WeightStaging* staging;  // Null on the host.
  RowRange mine;
  const SharedFactor& factor;
  int64_t block_size;
  at::Tensor stored;  // The whole weight, on a device; undefined on the host.

  // The rows as float32, a copy.
  absl::StatusOr<at::Tensor> Rows(const HostTensor& weight) const {
    if (device.is_host()) return WidenRows(device, weight, mine.begin, mine.count());
    at::Tensor rows;
    LLMC_RETURN_IF_ERROR(CatchTorch("GPTQ", [&] {
      rows = stored.narrow(0, mine.begin, mine.count())
                 .to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
    }));
    return rows;
  }
};

struct SolvedRows {
  double error = 0;   // tr(E H E^T).
  at::Tensor stored;  // On a device: the rows in the weight's dtype.
};

// Puts `rows` into `weight` as its rows from first_row on.
absl::StatusOr<at::Tensor> StoreRows(const RowSolve& solve, const at::Tensor& rows,
                                     HostTensor& weight) {
  at::Tensor stored;
  if (solve.device.is_host()) {
    LLMC_RETURN_IF_ERROR(NarrowRows(solve.device, rows, solve.mine.begin, weight));
    return stored;
  }
  LLMC_RETURN_IF_ERROR(CatchTorch("GPTQ", [&] { stored = rows.to(TorchType(weight.dtype())); }));
  const int64_t first = solve.mine.begin * weight.dim(1) * ElementSize(weight.dtype());
  LLMC_RETURN_IF_ERROR(
      solve.staging->Download(stored, weight.bytes().subspan(first, stored.nbytes())));
  return stored;
}

// Solves rows [mine.begin, mine.end) of `solved.weight` in place; their error is what the
// solver's two sums hold: 2 loss - lambda change.
absl::StatusOr<SolvedRows> SolveRows(const RowSolve& solve, SolvedModule& solved) {
  SolvedRows result;
  if (solve.mine.count() == 0) return result;
  const ComputeDevice& device = solve.device;
  const SharedFactor& factor = solve.factor;
  HostTensor& weight = solved.weight;
  LLMC_ASSIGN_OR_RETURN(
      const SolverGrid grid,
      MakeSolverGrid(device, solved.grid, *solved.planned->scheme->weights, weight.shape()));
  LLMC_ASSIGN_OR_RETURN(const at::Tensor rows, solve.Rows(weight));
  at::Tensor order;
  if (!factor.order.empty()) {
    const std::span<const int32_t> columns(factor.order);
    LLMC_ASSIGN_OR_RETURN(order,
                          device.Upload({DType::kI32, {weight.dim(1)}, std::as_bytes(columns)}));
  }
  kernels::GptqProblem problem;
  problem.rows = solve.mine.count();
  problem.first_row = solve.mine.begin;
  problem.in_features = weight.dim(1);
  problem.weight = static_cast<float*>(rows.data_ptr());
  problem.inverse_factor = Floats(factor.upper);
  problem.order = order.defined() ? static_cast<const int32_t*>(order.const_data_ptr()) : nullptr;
  problem.grid = grid.view;
  LLMC_ASSIGN_OR_RETURN(
      const kernels::GptqResult sums,
      RunSolver(device, problem,
                {.block_size = solve.block_size, .keep_zeros = solved.planned->keeps_zeros}));
  result.error = 2 * sums.loss - factor.lambda * sums.change;
  if (!factor.dead.empty()) {
    LLMC_ASSIGN_OR_RETURN(const at::Tensor dense, solve.Rows(weight));
    LLMC_ASSIGN_OR_RETURN(const double dead, DeadError(device, factor, dense, rows));
    result.error -= dead;
  }
  result.error = std::max(0.0, result.error);
  LLMC_ASSIGN_OR_RETURN(result.stored, StoreRows(solve, rows, weight));
  return result;
}

}  // namespace

absl::StatusOr<SolvedModule> GptqLayerModifier::RoundModule(const PlannedModule& module,
                                                            LayerSolve& layer) const {
  LLMC_ASSIGN_OR_RETURN(const std::optional<float> absmax, layer.fused_absmax(module));
  return RoundToNearest(module, std::move(layer.weights.at(module.module.name)), absmax,
                        *layer.statistics, layer.staging);
}

absl::StatusOr<SolvedModule> GptqLayerModifier::FallBack(const PlannedModule& module,
                                                         const std::string& reason,
                                                         LayerSolve& layer) const {
  if (fields_.on_singular == OnSingular::kFail) {
    return absl::FailedPreconditionError(
        absl::StrCat(module.module.name, ": GPTQ: ", reason, " (on_singular: fail)"));
  }
  LLMC_ASSIGN_OR_RETURN(SolvedModule solved, RoundModule(module, layer));
  solved.is_fallback = true;
  solved.reason = reason;
  return solved;
}

absl::StatusOr<SolvedModule> GptqLayerModifier::SolveModule(const PlannedModule& module,
                                                            const SharedFactor& factor,
                                                            double energy,
                                                            LayerSolve& layer) const {
  SolvedModule solved;
  solved.planned = &module;
  solved.method = Method::kGptq;
  solved.dampening_frac = factor.dampening_frac;
  solved.num_tokens = factor.statistics->hessian_sum.tokens;
  solved.weight = std::move(layer.weights.at(module.module.name));
  LLMC_ASSIGN_OR_RETURN(const std::optional<float> absmax, layer.fused_absmax(module));
  LLMC_ASSIGN_OR_RETURN(const std::vector<float> importance,
                        ImportanceOf(module, *layer.statistics));
  at::Tensor stored;
  if (layer.staging != nullptr) {
    LLMC_ASSIGN_OR_RETURN(stored, layer.staging->Upload(solved.weight.view()));
    LLMC_ASSIGN_OR_RETURN(solved.grid,
                          GridOf(module, layer.staging->Of(stored), absmax, importance));
  } else {
    LLMC_ASSIGN_OR_RETURN(solved.grid, GridOf(module, solved.weight.view(), absmax, importance));
  }
  LLMC_ASSIGN_OR_RETURN(solved.activation_parameters,
                        ActivationParameters(module, *layer.statistics));

  Collective& collective = *layer.collective;
  const RowRange mine = RowsOfRank(solved.weight.dim(0), collective);
  const absl::StatusOr<SolvedRows> rows = SolveRows(
      {*layer.place.device, layer.staging, mine, factor, fields_.block_size, stored}, solved);
  LLMC_RETURN_IF_ERROR(collective.AgreeOnStatus(At(module.module.name, rows.status())));
  LLMC_RETURN_IF_ERROR(GatherRows(collective, solved.weight));
  LLMC_ASSIGN_OR_RETURN(const double total, SumOverRanks(collective, rows->error));
  if (rows->stored.defined() && collective.world_size() == 1 && layer.solved_on_device) {
    LLMC_RETURN_IF_ERROR(layer.solved_on_device(solved, rows->stored));
  }
  solved.output_error = energy > 0 ? total / energy : 0.0;
  return solved;
}

absl::Status GptqLayerModifier::FactorGroups(std::span<InputGroup> groups,
                                             LayerSolve& layer) const {
  for (InputGroup& group : groups) {
    if (group.statistics->owner != layer.collective->rank()) continue;
    LLMC_ASSIGN_OR_RETURN(const at::Tensor hessian, group.statistics->Hessian());
    for (auto& [ordered, set] : group.sets) {
      for (size_t i = 0; i < set.modules.size(); ++i) {
        const HostTensor& weight = layer.weights.at(set.modules[i]->module.name);
        LLMC_ASSIGN_OR_RETURN(set.factor.energies[i],
                              OutputEnergy(*layer.place.device, weight, hessian));
      }
      LLMC_RETURN_IF_ERROR(
          At(group.name,
             FactorOwned({*layer.place.device, ordered, fields_.dampening_frac}, set.factor)));
    }
    if (layer.is_last) group.statistics->ForgetHessian();
  }
  return absl::OkStatus();
}

absl::Status GptqLayerModifier::SolveGroup(InputGroup& group, LayerSolve& layer,
                                           std::map<std::string, SolvedModule>& solved) const {
  for (auto& [ordered, set] : group.sets) {
    LLMC_RETURN_IF_ERROR(
        ShareFactor(*layer.collective, layer.place, group.statistics->owner, set.factor));
    for (size_t i = 0; i < set.modules.size(); ++i) {
      const PlannedModule& module = *set.modules[i];
      absl::StatusOr<SolvedModule> result =
          set.factor.failure.empty()
              ? SolveModule(module, set.factor, set.factor.energies[i], layer)
              : FallBack(module, set.factor.failure, layer);
      if (!result.ok()) return result.status();
      solved[module.module.name] = *std::move(result);
    }
    set.factor = SharedFactor();
  }
  return absl::OkStatus();
}

std::vector<GptqLayerModifier::InputGroup> GptqLayerModifier::GroupsOf(
    const LayerSolve& layer) const {
  std::map<std::string, InputGroup> groups;
  for (const PlannedModule* module : layer.modules) {
    if (module->method != Method::kGptq) continue;
    InputGroup& group = groups[module->module.input_group];
    group.name = module->module.input_group;
    group.statistics = &layer.statistics->at(group.name);
    SolveSet& set = group.sets[IsOrdered(*module)];
    set.factor.statistics = group.statistics;
    set.modules.push_back(module);
    set.factor.energies.push_back(0);
  }
  std::vector<InputGroup> ordered;
  for (auto& [name, group] : groups) ordered.push_back(std::move(group));
  return ordered;
}

absl::Status GptqLayerModifier::Solve(LayerSolve& layer) const {
  Collective& collective = *layer.collective;
  std::map<std::string, SolvedModule> solved;
  for (const PlannedModule* module : layer.modules) {
    if (module->method == Method::kGptq) continue;
    LLMC_ASSIGN_OR_RETURN(solved[module->module.name], RoundModule(*module, layer));
  }
  // As many groups at a time as there are ranks: their owners factor side by side,
  // and no more factors than that are in memory.
  std::vector<InputGroup> groups = GroupsOf(layer);
  const size_t width = static_cast<size_t>(collective.world_size());
  for (size_t first = 0; first < groups.size(); first += width) {
    const std::span<InputGroup> round =
        std::span(groups).subspan(first, std::min(width, groups.size() - first));
    LLMC_RETURN_IF_ERROR(collective.AgreeOnStatus(FactorGroups(round, layer)));
    for (InputGroup& group : round) LLMC_RETURN_IF_ERROR(SolveGroup(group, layer, solved));
  }
  for (const PlannedModule* module : layer.modules) {
    layer.solved.push_back(std::move(solved.at(module->module.name)));
  }
  return absl::OkStatus();
}

}  // namespace llmc
