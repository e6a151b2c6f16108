// Which tensors a quantised module stores, and in which format.
#ifndef LLMC_FORMATS_STORED_TENSORS_H_
#define LLMC_FORMATS_STORED_TENSORS_H_

#include <string>
#include <vector>

#include "llmc/dtype.h"
#include "llmc/scheme.h"
#include "llmc/status.h"
#include "llmc/tensor.h"

namespace llmc {

// The on-disk format that follows from a scheme's numbers, first hit wins:
// fp4 group 32, fp8 group 32 with exponent scales, fp4 group 16, int weights with
// activations (int-quantized), int weights alone (pack-quantized), fp8 with
// activations (float-quantized), other weights (naive-quantized), none (dense).
// On purpose unlike the reference: int weights of fewer than 8 bits with float
// activations (W4AFP8) are pack-quantized, because the serving kernel loads that.
Format InferFormat(const Scheme& scheme);

// One stored tensor: `suffix` follows "<module>." in the checkpoint.
struct StoredTensorSpec {
  std::string suffix;
  DType dtype = DType::kF32;
  Shape shape;

  bool operator==(const StoredTensorSpec&) const = default;
};

// Shape of the weight's scales (and zero points) for a weight [R, C]: tensor [1],
// channel [R, 1], group and tensor_group [R, C / group_size], block
// [ceil(R / h), ceil(C / w)]. kInvalidArgument when the group size does not
// divide C or the strategy is none of these.
absl::StatusOr<Shape> WeightScaleShape(const QuantizationArgs& weights, const Shape& weight_shape);

// Everything that a Linear or Embedding of weight [R, C] and `model_dtype` stores
// under `scheme` in `scheme.format`, weight tensors first, then the parameters of
// static activations (input_scale, input_zero_point, input_global_scale,
// output_scale, output_zero_point). The bias is not listed: it stays as it is.
// Scales have the dtype of the dense weight (F16 when that is no dense float);
// zero points exist only for asymmetric schemes.
// kInvalidArgument: not 2-D, or shape and scheme do not fit. kUnimplemented: a
// format that cannot hold the scheme.
absl::StatusOr<std::vector<StoredTensorSpec>> StoredTensors(const Scheme& scheme,
                                                            const Shape& weight_shape,
                                                            DType model_dtype);

// Sizes of an attention module that the shapes of its scales need.
struct AttentionShape {
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  bool has_query = false;  // Queries are quantised too.
};

// What an attention module stores for a quantised KV cache: k_scale and v_scale,
// [1] per tensor or [num_key_value_heads, 1, 1] per head, model dtype; asymmetric
// adds k_zero_point and v_zero_point (I8). With has_query also q_scale, [1] or
// [num_attention_heads, 1, 1].
absl::StatusOr<std::vector<StoredTensorSpec>> StoredKvCacheTensors(const QuantizationArgs& args,
                                                                   const AttentionShape& attention,
                                                                   DType model_dtype);

}  // namespace llmc

#endif  // LLMC_FORMATS_STORED_TENSORS_H_
