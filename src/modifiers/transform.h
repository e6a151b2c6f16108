// A method that rewrites a layer's dense weights before they are stored or quantised:
// smoothing, pruning.
#ifndef LLMC_MODIFIERS_TRANSFORM_H_
#define LLMC_MODIFIERS_TRANSFORM_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "calibration/input_statistics.h"
#include "calibration/tensor_collective.h"
#include "collective/collective.h"
#include "llmc/status.h"
#include "model/decoder_layer.h"
#include "modifiers/dense_tensors.h"
#include "plan/plan.h"

namespace llmc {

// The calibration samples as inputs of one layer.
class LayerSamples {
 public:
  virtual ~LayerSamples() = default;

  // Called with the number of a sample, the layer as the transforms before left it, and
  // the layer's input, [tokens, hidden_size] in the compute dtype.
  using Visit = std::function<absl::Status(int64_t sample, const DecoderLayer& layer,
                                           const at::Tensor& hidden)>;

  using Choice = std::function<bool(int64_t sample)>;

  // Local: calls `visit` for every sample of this rank that `choice` takes, in inference
  // mode: on the host each on one thread, several at a time, on a device one after the
  // other. Returns the first error; LibTorch's exceptions are errors.
  virtual absl::Status ForEach(const Choice& choice, const Visit& visit) = 0;
};

// A weight that a transform has pruned.
struct PrunedModule {
  const PlannedTransform* transform = nullptr;
  double sparsity = 0;          // Fraction that is 0 now.
  std::string fallback_reason;  // Why not by the method that was asked for; empty: by it.
  std::optional<double> dampening_frac;
  std::optional<int64_t> num_tokens;
  std::optional<double> output_error;  // tr(E H E^T) / tr(W H W^T).
};

// Sparsities that OWL has found, by modifier and layer.
using LayerSparsities = std::map<int, std::vector<double>>;

// One layer (or the tensors outside the layers) on its way through a transform. All
// ranks hold the same tensors before and after.
struct LayerChange {
  const Plan* plan = nullptr;
  std::vector<const PlannedTransform*> transforms;  // Of this modifier, in order.
  DenseTensors* dense = nullptr;
  Statistics* statistics = nullptr;
  Collective* collective = nullptr;
  RankPlace place;
  at::ScalarType compute_dtype = at::kFloat;  // Of the layer.
  LayerSamples* samples = nullptr;            // Only where a transform `reads_samples`.
  const LayerSparsities* layer_sparsities = nullptr;
  std::vector<PrunedModule> pruned;  // Out, for the report.
};

class LayerTransform {
 public:
  virtual ~LayerTransform() = default;

  // Collective call: rewrites exactly the tensors of `change.transforms` in
  // `change.dense`, with equal bytes on every rank, and brings the statistics
  // along where inputs are scaled.
  virtual absl::Status Apply(LayerChange& change) const = 0;
};

// The transform that carries out `modifier` of a recipe; null for a modifier that
// quantises.
std::unique_ptr<LayerTransform> MakeLayerTransform(const Modifier& modifier);

}  // namespace llmc

#endif  // LLMC_MODIFIERS_TRANSFORM_H_
