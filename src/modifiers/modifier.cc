#include "modifiers/modifier.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "llmc/float_formats.h"
#include "llmc/parallel.h"
#include "modifiers/gptq.h"
#include "modifiers/round_to_nearest.h"
#include "plan/statistics.h"

namespace llmc {
namespace {

float Element(const TensorView& view, int64_t i) {
  switch (view.dtype) {
    case DType::kBF16:
      return Bf16ToFloat(view.as<uint16_t>()[i]);
    case DType::kF16:
      return F16ToFloat(view.as<uint16_t>()[i]);
    default:
      return view.as<float>()[i];
  }
}

// `Weight`: TensorView or DeviceWeight.
template <typename Weight>
absl::StatusOr<kernels::WeightGrid> FindGrid(const PlannedModule& module, const Weight& weight,
                                             std::optional<float> fused_absmax,
                                             std::span<const float> importance) {
  kernels::WeightGridOptions options;
  options.fused_absmax = fused_absmax;
  options.importance = importance;
  absl::StatusOr<kernels::WeightGrid> grid =
      kernels::ComputeWeightGrid(weight, *module.scheme->weights, options);
  if (!grid.ok()) return At(module.source.name, grid.status());
  return grid;
}

}  // namespace

std::unique_ptr<LayerModifier> MakeLayerModifier(const Modifier& modifier) {
  if (const auto* gptq = std::get_if<GptqModifier>(&modifier)) {
    return std::make_unique<GptqLayerModifier>(*gptq);
  }
  return std::make_unique<RoundToNearestLayerModifier>();
}

absl::StatusOr<std::vector<float>> ImportanceOf(const PlannedModule& module,
                                                const Statistics& statistics) {
  std::vector<float> importance;
  if (!WeighsErrors(module)) return importance;
  const std::vector<double> squares = statistics.at(module.module.input_group).SquareSums();
  if (std::any_of(squares.begin(), squares.end(), [](double sum) { return sum > 0; })) {
    importance.assign(squares.begin(), squares.end());
    return importance;
  }
  const auto& kwargs = module.scheme->weights->observer_kwargs;
  const auto strict = kwargs.find("strict");
  if (strict == kwargs.end() || strict->second == 0) return importance;
  return absl::FailedPreconditionError(absl::StrCat(
      module.module.name, ": its input was zero or saw no calibration token, expected ",
      "activations for observer ", *module.scheme->weights->observer, " (strict)"));
}

absl::StatusOr<kernels::WeightGrid> GridOf(const PlannedModule& module, const TensorView& weight,
                                           std::optional<float> fused_absmax,
                                           std::span<const float> importance) {
  return FindGrid(module, weight, fused_absmax, importance);
}

absl::StatusOr<kernels::WeightGrid> GridOf(const PlannedModule& module,
                                           const kernels::DeviceWeight& weight,
                                           std::optional<float> fused_absmax,
                                           std::span<const float> importance) {
  return FindGrid(module, weight, fused_absmax, importance);
}

absl::StatusOr<double> WeightError(const PlannedModule& module, const TensorView& weight,
                                   const kernels::WeightGrid& grid) {
  LLMC_ASSIGN_OR_RETURN(const HostTensor rounded,
                        kernels::FakeQuantWeight(weight, grid, *module.scheme->weights));
  const int64_t rows = weight.dim(0);
  const int64_t columns = weight.dim(1);
  std::vector<double> errors(rows);
  std::vector<double> energies(rows);
  const TensorView rounded_view = rounded.view();
  ParallelFor(rows, [&](int64_t r) {
    for (int64_t i = r * columns; i < (r + 1) * columns; ++i) {
      const double w = Element(weight, i);
      const double e = w - Element(rounded_view, i);
      errors[r] += e * e;
      energies[r] += w * w;
    }
  });
  double error = 0;
  double energy = 0;
  for (int64_t r = 0; r < rows; ++r) {
    error += errors[r];
    energy += energies[r];
  }
  return energy > 0 ? error / energy : 0.0;
}

}  // namespace llmc
