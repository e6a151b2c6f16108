// Root mean square norm (Zhang and Sennrich 2019).
#ifndef LLMC_MODEL_RMS_NORM_H_
#define LLMC_MODEL_RMS_NORM_H_

#include "ATen/core/Tensor.h"

namespace llmc {

// weight * cast(x / sqrt(mean(x^2) + eps)) over the last dimension: statistics in
// float32, the product with `weight` in the dtype of `x`. Differentiable.
at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double eps);

}  // namespace llmc

#endif  // LLMC_MODEL_RMS_NORM_H_
