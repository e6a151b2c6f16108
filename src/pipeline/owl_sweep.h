// OWL: a sparsity for every layer by its share of outliers.
//
// L. Yin et al., "Outlier Weighed Layerwise Sparsity (OWL): A Missing Secret Sauce for
// Pruning LLMs to High Sparsity", arXiv:2310.05175, section 3.
#ifndef LLMC_PIPELINE_OWL_SWEEP_H_
#define LLMC_PIPELINE_OWL_SWEEP_H_

#include <span>
#include <vector>

#include "model/decoder_layer.h"
#include "modifiers/transform.h"
#include "pipeline/layer_pass.h"
#include "pipeline/run_state.h"

namespace llmc {

// Collective: runs the samples through the dense layers, once before the walk, and
// for every modifier of the recipe with sparsity_profile owl finds a sparsity for
// every layer. The same on every rank, for any number of ranks. Does nothing when no
// modifier asks.
//
// With A_j the sum over samples of the norm of input feature j, and z = |W| A over all
// linears of a layer, a layer's outlier ratio is the share of z above owl_m times
// their mean.
absl::StatusOr<LayerSparsities> FindLayerSparsities(RunState& run, const Schedule& schedule,
                                                    const LayerPlacement& placement);

// From outlier ratios, one a layer, to sparsities: ratios are stretched to [0, 2
// lambda], and a layer's sparsity is `sparsity` less what it lies above their mean. All
// `sparsity` where the ratios are equal.
std::vector<double> OwlSparsities(std::span<const double> ratios, double sparsity, double lambda);

}  // namespace llmc

#endif  // LLMC_PIPELINE_OWL_SWEEP_H_
