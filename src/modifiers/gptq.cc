#include "modifiers/gptq.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/gptq_solve.h"
#include "llmc/float_formats.h"
#include "llmc/parallel.h"
#include "modifiers/round_to_nearest.h"

namespace llmc {
namespace {

bool IsOrdered(const PlannedModule& module) { return module.scheme->weights->actorder.has_value(); }

float ToFloat(DType dtype, const std::byte* bytes, int64_t i) {
  switch (dtype) {
    case DType::kBF16:
      return Bf16ToFloat(reinterpret_cast<const uint16_t*>(bytes)[i]);
    case DType::kF16:
      return F16ToFloat(reinterpret_cast<const uint16_t*>(bytes)[i]);
    case DType::kI8:
      return static_cast<float>(reinterpret_cast<const int8_t*>(bytes)[i]);
    case DType::kF8E4M3:
      return E4m3ToFloat(reinterpret_cast<const uint8_t*>(bytes)[i]);
    default:
      return reinterpret_cast<const float*>(bytes)[i];
  }
}

void StoreFloat(DType dtype, float value, std::byte* bytes, int64_t i) {
  switch (dtype) {
    case DType::kBF16:
      reinterpret_cast<uint16_t*>(bytes)[i] = FloatToBf16(value);
      break;
    case DType::kF16:
      reinterpret_cast<uint16_t*>(bytes)[i] = FloatToF16(value);
      break;
    default:
      reinterpret_cast<float*>(bytes)[i] = value;
  }
}

HostTensor Widen(const HostTensor& tensor, int64_t first, int64_t count) {
  HostTensor wide(DType::kF32, {count});
  constexpr int64_t kUnit = 1 << 16;
  ParallelFor((count + kUnit - 1) / kUnit, [&](int64_t unit) {
    for (int64_t i = unit * kUnit; i < std::min(count, (unit + 1) * kUnit); ++i) {
      wide.as<float>()[i] = ToFloat(tensor.dtype(), tensor.bytes().data(), first + i);
    }
  });
  return wide;
}

// Rounds `from`, F32, into the elements of `tensor` from `first` on.
void Narrow(const HostTensor& from, int64_t first, HostTensor& tensor) {
  constexpr int64_t kUnit = 1 << 16;
  const int64_t count = from.num_elements();
  ParallelFor((count + kUnit - 1) / kUnit, [&](int64_t unit) {
    for (int64_t i = unit * kUnit; i < std::min(count, (unit + 1) * kUnit); ++i) {
      StoreFloat(tensor.dtype(), from.as<float>()[i], tensor.bytes().data(), first + i);
    }
  });
}

HostTensor Copy(const HostTensor& tensor) {
  HostTensor copy(tensor.dtype(), tensor.shape());
  std::memcpy(copy.bytes().data(), tensor.bytes().data(), tensor.bytes().size());
  return copy;
}

// Rows that the solver keeps together.
constexpr int64_t kRowUnit = 64;

// The rows of a matrix that a rank solves: equal shares of whole row units.
struct RowRange {
  int64_t begin = 0;
  int64_t end = 0;
};
RowRange RowsOfRank(int64_t rows, int rank, int world_size) {
  const int64_t units = (rows + kRowUnit - 1) / kRowUnit;
  const auto edge = [&](int64_t r) { return std::min(rows, units * r / world_size * kRowUnit); };
  return {edge(rank), edge(rank + 1)};
}

// The grid as the solver takes it, with the arrays it points to.
struct SolverGrid {
  HostTensor scale;
  HostTensor zero_point;
  kernels::SolveGrid view;
};

SolverGrid MakeSolverGrid(const kernels::WeightGrid& grid, const QuantizationArgs& args,
                          const Shape& shape) {
  SolverGrid solver;
  solver.scale = Widen(grid.scale, 0, grid.scale.num_elements());
  if (grid.global_scale != 0) {
    for (int64_t i = 0; i < solver.scale.num_elements(); ++i) {
      solver.scale.as<float>()[i] /= grid.global_scale;
    }
  }
  kernels::SolveGrid& view = solver.view;
  view.type = args.type;
  view.num_bits = args.num_bits;
  view.scale = solver.scale.as<float>();
  if (grid.zero_point.num_bytes() > 0) {
    solver.zero_point = Widen(grid.zero_point, 0, grid.zero_point.num_elements());
    view.zero_point = solver.zero_point.as<float>();
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

// tr(E H E^T) and tr(W H W^T) over some rows.
struct OutputErrors {
  double error = 0;
  double energy = 0;
};

// Solves rows [mine.begin, mine.end) of `solved.weight` in place.
absl::Status SolveRows(const RowRange& mine, const SharedFactor& factor, int64_t block_size,
                       SolvedModule& solved, OutputErrors& errors) {
  const int64_t num_rows = mine.end - mine.begin;
  if (num_rows == 0) return absl::OkStatus();
  HostTensor& weight = solved.weight;
  const int64_t columns = weight.dim(1);
  const int64_t first = mine.begin * columns;
  const SolverGrid grid =
      MakeSolverGrid(solved.grid, *solved.planned->scheme->weights, weight.shape());
  HostTensor dense = Widen(weight, first, num_rows * columns);
  HostTensor rounded = Widen(weight, first, num_rows * columns);
  kernels::GptqProblem problem;
  problem.rows = num_rows;
  problem.first_row = mine.begin;
  problem.in_features = columns;
  problem.weight = rounded.as<float>();
  problem.inverse_factor = factor.upper.as<float>();
  problem.order = factor.order.empty() ? nullptr : factor.order.data();
  problem.grid = grid.view;
  LLMC_RETURN_IF_ERROR(At(solved.planned->module.name,
                          kernels::GptqSolve(problem, {.block_size = block_size}).status()));
  const float* hessian = factor.hessian.as<float>();
  errors.error =
      kernels::OutputError(dense.as<float>(), rounded.as<float>(), num_rows, columns, hessian);
  Narrow(rounded, first, weight);
  std::memset(rounded.as<float>(), 0, rounded.num_bytes());
  errors.energy =
      kernels::OutputError(dense.as<float>(), rounded.as<float>(), num_rows, columns, hessian);
  return absl::OkStatus();
}

// Every rank's rows to every rank.
absl::Status GatherRows(Collective& collective, HostTensor& weight) {
  const int64_t row_bytes = weight.dim(1) * ElementSize(weight.dtype());
  std::vector<int64_t> offsets;
  for (int r = 0; r < collective.world_size(); ++r) {
    offsets.push_back(RowsOfRank(weight.dim(0), r, collective.world_size()).begin * row_bytes);
  }
  offsets.push_back(weight.num_bytes());
  const int rank = collective.rank();
  const std::span<const std::byte> mine =
      weight.bytes().subspan(offsets[rank], offsets[rank + 1] - offsets[rank]);
  return collective.AllGather(mine, offsets, weight.bytes());
}

absl::StatusOr<double> SumErrors(Collective& collective, const OutputErrors& mine) {
  const absl::string_view bytes(reinterpret_cast<const char*>(&mine), sizeof(mine));
  LLMC_ASSIGN_OR_RETURN(const std::vector<std::string> all, collective.AllGatherStrings(bytes));
  OutputErrors total;
  for (const std::string& text : all) {
    OutputErrors part;
    std::memcpy(&part, text.data(), sizeof(part));
    total.error += part.error;
    total.energy += part.energy;
  }
  return total.energy > 0 ? total.error / total.energy : 0.0;
}

}  // namespace

StatisticsNeed GptqLayerModifier::Needs(const PlannedModule& module) const {
  const auto& inputs = module.scheme->input_activations;
  return {.hessian = module.method == Method::kGptq,
          .extrema = inputs && inputs->dynamic != Dynamic::kTrue};
}

absl::StatusOr<SolvedModule> GptqLayerModifier::RoundModule(const PlannedModule& module,
                                                            LayerSolve& layer) const {
  auto statistics = layer.statistics->find(module.module.input_group);
  LLMC_ASSIGN_OR_RETURN(const std::optional<float> absmax, layer.fused_absmax(module));
  return RoundToNearest(module, std::move(layer.weights.at(module.module.name)), absmax,
                        statistics == layer.statistics->end() ? nullptr : &statistics->second);
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
                                                            LayerSolve& layer) const {
  SolvedModule solved;
  solved.planned = &module;
  solved.method = Method::kGptq;
  solved.dampening_frac = factor.dampening_frac;
  solved.num_tokens = factor.statistics->hessian_sum.tokens;
  solved.weight = std::move(layer.weights.at(module.module.name));
  LLMC_ASSIGN_OR_RETURN(const std::optional<float> absmax, layer.fused_absmax(module));
  LLMC_ASSIGN_OR_RETURN(solved.grid, GridOf(module, solved.weight.view(), absmax));
  LLMC_ASSIGN_OR_RETURN(solved.activation_parameters,
                        ActivationParameters(module, *factor.statistics));

  Collective& collective = *layer.collective;
  const RowRange mine =
      RowsOfRank(solved.weight.dim(0), collective.rank(), collective.world_size());
  OutputErrors errors;
  const absl::Status local = SolveRows(mine, factor, fields_.block_size, solved, errors);
  LLMC_RETURN_IF_ERROR(collective.AgreeOnStatus(local));
  LLMC_RETURN_IF_ERROR(GatherRows(collective, solved.weight));
  LLMC_ASSIGN_OR_RETURN(solved.output_error, SumErrors(collective, errors));
  return solved;
}

absl::Status GptqLayerModifier::FactorGroups(std::span<InputGroup> groups,
                                             LayerSolve& layer) const {
  for (InputGroup& group : groups) {
    if (group.statistics->owner != layer.collective->rank()) continue;
    HostTensor hessian = group.statistics->hessian->Finish();
    for (auto& [ordered, set] : group.sets) {
      const bool is_last = ordered == group.sets.rbegin()->first;
      set.factor.hessian = is_last ? std::move(hessian) : Copy(hessian);
      LLMC_RETURN_IF_ERROR(
          At(group.name, FactorOwned(ordered, fields_.dampening_frac, set.factor)));
    }
  }
  return absl::OkStatus();
}

absl::Status GptqLayerModifier::SolveGroup(InputGroup& group, LayerSolve& layer,
                                           std::map<std::string, SolvedModule>& solved) const {
  for (auto& [ordered, set] : group.sets) {
    LLMC_RETURN_IF_ERROR(ShareFactor(*layer.collective, group.statistics->owner, set.factor));
    for (const PlannedModule* module : set.modules) {
      absl::StatusOr<SolvedModule> result = set.factor.failure.empty()
                                                ? SolveModule(*module, set.factor, layer)
                                                : FallBack(*module, set.factor.failure, layer);
      if (!result.ok()) return result.status();
      solved[module->module.name] = *std::move(result);
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
