// One method that quantises: turns a layer's dense weights, as the transforms of the
// recipe left them (modifiers/transform.h), into weights on a grid.
#ifndef LLMC_MODIFIERS_MODIFIER_H_
#define LLMC_MODIFIERS_MODIFIER_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "calibration/input_statistics.h"
#include "calibration/tensor_collective.h"
#include "collective/collective.h"
#include "kernels/compress.h"
#include "kernels/weight_grid.h"
#include "llmc/status.h"
#include "llmc/tensor.h"
#include "modifiers/weight_staging.h"
#include "plan/plan.h"

namespace llmc {

// A module whose codes are decided.
struct SolvedModule {
  const PlannedModule* planned = nullptr;
  // In the model's dtype, [out_features, in_features]. GPTQ: values on the grid.
  // Round to nearest: the dense weight, which the compressor rounds.
  HostTensor weight;
  kernels::WeightGrid grid;
  std::vector<kernels::StoredTensor> activation_parameters;  // input_scale, ...

  Method method = Method::kRoundToNearest;
  bool is_fallback = false;  // Not the method that the recipe asked for.
  std::string reason;        // Why it fell back.
  std::optional<double> dampening_frac;
  std::optional<int64_t> num_tokens;
  std::optional<double> output_error;  // tr(E H E^T) / tr(W H W^T).
};

// One layer on its way through a modifier. All ranks hold the same weights.
struct LayerSolve {
  std::vector<const PlannedModule*> modules;  // The layer's modules of this modifier.
  // Dense weights in the model's dtype, by module name. Solving may take them.
  std::map<std::string, HostTensor> weights;
  Statistics* statistics = nullptr;
  // No modifier comes after this one: statistics may be freed once they were used.
  bool is_last = false;
  Collective* collective = nullptr;
  RankPlace place;
  WeightStaging* staging = nullptr;  // Null on the host.
  // Called with what a device holds of `solved.weight`, where it holds all of it because
  // there is one rank, before the next one is solved. May be null.
  std::function<absl::Status(const SolvedModule& solved, const at::Tensor& weight)>
      solved_on_device;
  // NVFP4: the largest |w| of the serving family that `module` belongs to.
  std::function<absl::StatusOr<std::optional<float>>(const PlannedModule& module)> fused_absmax;
  std::vector<SolvedModule> solved;  // Out, in the order of `modules`.
};

class LayerModifier {
 public:
  virtual ~LayerModifier() = default;

  // Collective call: fills `layer.solved`, with equal bytes on every rank.
  virtual absl::Status Solve(LayerSolve& layer) const = 0;
};

// The modifier that carries out `modifier` of a recipe, which quantises.
std::unique_ptr<LayerModifier> MakeLayerModifier(const Modifier& modifier);

// What the imatrix observers weigh the errors of input channels with: the sums over
// tokens of x^2, [in_features]. Empty, so that all weigh the same: another observer,
// one scale for several rows, no token seen (kFailedPrecondition naming the module
// where observer_kwargs say strict).
absl::StatusOr<std::vector<float>> ImportanceOf(const PlannedModule& module,
                                                const Statistics& statistics);

// The grid of a module's weight by its scheme's observer. kInvalidArgument naming
// the weight for NaN and infinity.
absl::StatusOr<kernels::WeightGrid> GridOf(const PlannedModule& module, const TensorView& weight,
                                           std::optional<float> fused_absmax,
                                           std::span<const float> importance = {});

// The same of a weight on a device, computed there.
absl::StatusOr<kernels::WeightGrid> GridOf(const PlannedModule& module,
                                           const kernels::DeviceWeight& weight,
                                           std::optional<float> fused_absmax,
                                           std::span<const float> importance = {});

// |W - Q|^2 / |W|^2 of rounding `weight` to `grid`: the output error for H = I,
// reported where no Hessian was collected.
absl::StatusOr<double> WeightError(const PlannedModule& module, const TensorView& weight,
                                   const kernels::WeightGrid& grid);

}  // namespace llmc

#endif  // LLMC_MODIFIERS_MODIFIER_H_
