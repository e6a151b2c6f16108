// From a weight to its quantisation grid: scale, zero point, global scale.
//
// Bit-identical to compressed-tensors 0.19 on CPU for BF16, F16 and F32
// weights; all arithmetic is float32 rounded to the weight's dtype after every
// operation. Deviation, on purpose: where an MX scale would overflow to
// infinity (group maximum >= 1.75 times the largest power of two of the dtype)
// the finite scale is kept.
#ifndef LLMC_KERNELS_WEIGHT_GRID_H_
#define LLMC_KERNELS_WEIGHT_GRID_H_

#include <cstdint>
#include <optional>
#include <span>

#include "kernels/device_queue.h"
#include "llmc/scheme.h"
#include "llmc/status.h"
#include "llmc/tensor.h"

namespace llmc::kernels {

// The grid of one weight [R, C], or of a range of its rows.
struct WeightGrid {
  // As in memory while a weight is solved, in the weight's dtype: tensor [1],
  // channel [R, 1], group [R, C / group_size], block [ceil(R / bh),
  // ceil(C / bw)]. MX: the power of two. NVFP4: the E4M3 value.
  HostTensor scale;
  // Same shape as scale; kI8 for integers, kF8E4M3 for FP8. No bytes when the
  // scheme is symmetric.
  HostTensor zero_point;
  // NVFP4: the divisor of every scale, 2688 / absmax. 0: the scheme has none.
  float global_scale = 0;
};

// Smallest and largest element.
struct Extrema {
  float min = 0;
  float max = 0;
};

struct WeightGridOptions {
  // Strategy tensor on a row slice: extrema of the whole weight (minmax only).
  std::optional<Extrema> tensor_extrema = std::nullopt;
  // NVFP4: largest |w| over all members of a fused family (q/k/v, gate/up, ...)
  // and over all rows; without it the absmax of `weight` is taken. For the
  // search observers: the largest searched range (SearchedAbsMax).
  std::optional<float> fused_absmax = std::nullopt;
  // NVFP4 with F16 weights: compressed-tensors computes 2688 / absmax in F16,
  // which overflows for absmax < 0.041 and ruins the scales. True computes it
  // in float32. No effect on BF16 and F32 weights.
  bool exact_f16_global_scale = false;
  // imatrix observers: mean of x^2 of every input channel, [C], not negative.
  // Empty: all channels count the same.
  std::span<const float> importance = {};
};

// Computes the grid of `weight` ([R, C], BF16, F16 or F32) by the observer that
// `args` names: memoryless_minmax (also null, "minmax", "static_minmax"),
// memoryless_mse (also "mse"), imatrix_mse, nvfp4_expanded_mse (also
// "fouroversix"), nvfp4_expanded_imatrix; the searches read observer_kwargs.
//
// `weight` may be a range of rows of a larger weight for strategies channel,
// group, tensor_group (with fused_absmax) and block (range beginning at a block
// boundary); a searching observer must see the whole weight, since its early
// stop looks at all groups.
//
// kInvalidArgument: NaN or infinity (names row and column, counted from
// `weight`'s first row), wrong dtype or rank, columns not divisible by
// group_size, unknown observer, FP4 asymmetric, observer_kwargs out of range.
absl::StatusOr<WeightGrid> ComputeWeightGrid(const TensorView& weight, const QuantizationArgs& args,
                                             const WeightGridOptions& options = {});

// Extrema of `weight` (any shape; BF16, F16, F32). {0, 0} when it is empty.
// kInvalidArgument for NaN or infinity, as above.
absl::StatusOr<Extrema> FindExtrema(const TensorView& weight);

// What a member of an NVFP4 family contributes to fused_absmax: the largest
// |range| that args' observer finds on `weight`; for minmax observers absmax.
// Errors as ComputeWeightGrid.
absl::StatusOr<float> SearchedAbsMax(const TensorView& weight, const QuantizationArgs& args,
                                     const WeightGridOptions& options = {});

// The range that args' search observer (mse, memoryless_mse) finds for a whole
// tensor of activations, whatever its strategy; any shape. kInvalidArgument: NaN
// or infinity, an observer that does not search or needs importance.
absl::StatusOr<Extrema> SearchActivationRange(const TensorView& x, const QuantizationArgs& args);

// A weight on a device, dense and row-major; borrowed.
struct DeviceWeight {
  const void* elements = nullptr;  // Device, [rows, columns].
  DType dtype = DType::kBF16;      // BF16, F16 or F32.
  int64_t rows = 0;
  int64_t columns = 0;
  DeviceQueue* queue = nullptr;  // In whose order it is read.
};

// The same for a weight on a device, with the same results, on the host; they wait. Only
// for F32 weights and importance, searched with a norm other than 2 and 3, may the last
// bit of an error differ from the CPU's, whose pow is another: the power is taken in
// double and rounded.
absl::StatusOr<WeightGrid> ComputeWeightGrid(const DeviceWeight& weight,
                                             const QuantizationArgs& args,
                                             const WeightGridOptions& options = {});
absl::StatusOr<Extrema> FindExtrema(const DeviceWeight& weight);
absl::StatusOr<float> SearchedAbsMax(const DeviceWeight& weight, const QuantizationArgs& args,
                                     const WeightGridOptions& options = {});

// Grid of rows [first_row, first_row + num_rows) of the weight that `grid`
// belongs to. Strategy block: first_row must be a multiple of the block height.
absl::StatusOr<WeightGrid> SliceGrid(const WeightGrid& grid, const QuantizationArgs& args,
                                     int64_t first_row, int64_t num_rows);

// Static activation or KV-cache parameters from extrema that are values of
// `dtype` (the module's weight dtype). Strategy tensor: one pair, shape [1];
// attn_head: one pair for each head, shape [heads, 1, 1]; tensor_group (NVFP4
// input): one pair, only global_scale is set. Zero points as in WeightGrid.
// kInvalidArgument: no or non-finite extrema, other strategies.
absl::StatusOr<WeightGrid> ActivationScale(std::span<const Extrema> extrema,
                                           const QuantizationArgs& args, DType dtype);

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_WEIGHT_GRID_H_
