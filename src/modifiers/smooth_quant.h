// SmoothQuant: G. Xiao, J. Lin, M. Seznec, H. Wu, J. Demouth, S. Han, "SmoothQuant:
// Accurate and Efficient Post-Training Quantization for Large Language Models",
// arXiv:2211.10438, equation 4; and Logarithmic Equalization, arXiv:2308.15987.
#ifndef LLMC_MODIFIERS_SMOOTH_QUANT_H_
#define LLMC_MODIFIERS_SMOOTH_QUANT_H_

#include <span>
#include <utility>
#include <vector>

#include "modifiers/transform.h"

namespace llmc {

// The factor of one channel, as the reference computes it: from `range`, the largest
// minus the smallest activation, and `weight_absmax`, the largest |w| of the channel
// in all consumers. At least 1e-5.
float SmoothQuantFactor(const SmoothQuantModifier& fields, float range, float weight_absmax);

// Smooths each mapping of a layer, in order.
class SmoothQuantTransform : public LayerTransform {
 public:
  explicit SmoothQuantTransform(SmoothQuantModifier fields) : fields_(std::move(fields)) {}

  absl::Status Apply(LayerChange& change) const override;

 private:
  // [source channels]; empty when the input saw no token.
  absl::StatusOr<std::vector<float>> Factors(const PlannedTransform& transform,
                                             LayerChange& change) const;

  SmoothQuantModifier fields_;
};

}  // namespace llmc

#endif  // LLMC_MODIFIERS_SMOOTH_QUANT_H_
