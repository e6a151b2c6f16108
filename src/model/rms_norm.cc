#include "model/rms_norm.h"

#include "ATen/TensorOperators.h"

namespace llmc {

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor mean_square = wide.pow(2).mean(-1, /*keepdim=*/true);
  const at::Tensor normed = wide * (mean_square + eps).rsqrt();
  return weight * normed.to(x.scalar_type());
}

}  // namespace llmc
