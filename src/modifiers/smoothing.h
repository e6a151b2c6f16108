// Moving range between a layer's activations and weights without changing what the
// layer computes: what SmoothQuant and AWQ do once they have their factors.
#ifndef LLMC_MODIFIERS_SMOOTHING_H_
#define LLMC_MODIFIERS_SMOOTHING_H_

#include <span>
#include <vector>

#include "architecture/model_spec.h"
#include "architecture/module_spec.h"
#include "llmc/status.h"
#include "modifiers/transform.h"

namespace llmc {

// The factor of every input channel of a mapping's consumers from that of every
// output channel of its source: the same for a norm and up_proj; for v_proj every
// query head reads the channels of its key-value head.
std::vector<float> ConsumerFactors(const SmoothMapping& mapping, const ModelSpec& spec,
                                   std::span<const float> source_factors);

// The other way: the largest of `values`, [consumer channels], over the channels that
// read one channel of the source, [source channels].
std::vector<float> LargestOfSource(const SmoothMapping& mapping, const ModelSpec& spec,
                                   std::span<const float> values);

// Raises `absmax`, [columns], to the largest |w| of every column of `weight`, [rows,
// columns].
void MaxMagnitudes(const HostTensor& weight, std::span<float> absmax);

// Local: divides the source's weight (a norm's channels or a linear's rows) and bias by
// `source_factors`, [source channels], > 0, multiplies the consumers' columns, each
// result rounded once to the tensor's dtype, and brings the statistics of the
// consumers' input along. A factor 1 changes no bit.
absl::Status ApplySmoothing(const PlannedTransform& transform,
                            std::span<const float> source_factors, LayerChange& change);

}  // namespace llmc

#endif  // LLMC_MODIFIERS_SMOOTHING_H_
