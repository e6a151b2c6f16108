// From a weight and its grid to the tensors that a checkpoint stores, and back.
//
// Layouts and bits are those of compressed-tensors 0.19. Everything here is
// independent row by row, so a weight may be compressed in row ranges.
#ifndef LLMC_KERNELS_COMPRESS_H_
#define LLMC_KERNELS_COMPRESS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "kernels/weight_grid.h"
#include "llmc/scheme.h"
#include "llmc/status.h"
#include "llmc/tensor.h"

namespace llmc::kernels {

// A tensor of a compressed module: its name is "<module>.<suffix>".
struct StoredTensor {
  std::string suffix;  // "weight_packed", "weight_scale", ...
  HostTensor tensor;
};

// Row ranges of a weight must begin at a multiple of this (and of the block
// height), so that packed zero points begin at a word.
inline constexpr int64_t kRowAlignment = 32;

struct CompressOptions {
  QuotientRounding quotient = QuotientRounding::kModelDtype;
  // A zero point of 0 is added also in symmetric schemes (the reference's
  // `oneshot` flow): -0.0 becomes +0.0. False: the sign of -0.0 is kept in FP8
  // codes (its model-free flow).
  bool zero_added = true;
  // Rows of the whole weight when `weight` is a range of its rows; 0: `weight`
  // is whole. Only weight_shape depends on it.
  int64_t total_rows = 0;
};

// Quantises `weight` ([R, C], BF16, F16 or F32) on `grid` and lays it out as
// `format` (not kDense) says:
//   pack-quantized   weight_packed, weight_scale, weight_shape
//                    [, weight_zero_point packed along rows; I8 for tensor]
//   int-quantized, float-quantized, naive-quantized
//                    weight (I8 or F8_E4M3), weight_scale [, weight_zero_point]
//   nvfp4            weight_packed, weight_scale, weight_global_scale
//   mxfp4            weight_packed, weight_scale (E8M0)
//   mxfp8            weight, weight_scale (E8M0)
// Concatenating along rows what row ranges give is what the whole weight gives,
// except weight_shape, weight_global_scale and a tensor-strategy scale, which
// every range repeats.
// kInvalidArgument: shapes, dtypes, args and format that do not fit together.
absl::StatusOr<std::vector<StoredTensor>> CompressWeight(const TensorView& weight,
                                                         const WeightGrid& grid,
                                                         const QuantizationArgs& args,
                                                         Format format,
                                                         const CompressOptions& options = {});

// Round-to-nearest in one pass: ComputeWeightGrid and CompressWeight fused, row
// by row where the strategy allows it, the same bytes as the two calls.
absl::StatusOr<std::vector<StoredTensor>> CompressRoundToNearest(
    const TensorView& weight, const QuantizationArgs& args, Format format,
    const WeightGridOptions& grid_options = {}, const CompressOptions& options = {});

// The weight as the model will see it: quantised on `grid`, dequantised with
// every result rounded to the weight's dtype, in the weight's dtype and shape.
absl::StatusOr<HostTensor> FakeQuantWeight(const TensorView& weight, const WeightGrid& grid,
                                           const QuantizationArgs& args,
                                           const CompressOptions& options = {});

// The same for a weight on a device, to the same bytes. CompressWeight quantises and packs
// on the device and waits; FakeQuantWeight writes device memory, [R, C] in the weight's
// dtype, which may be the weight itself, and enqueues but for the upload of the grid.
absl::StatusOr<std::vector<StoredTensor>> CompressWeight(const DeviceWeight& weight,
                                                         const WeightGrid& grid,
                                                         const QuantizationArgs& args,
                                                         Format format,
                                                         const CompressOptions& options = {});
absl::Status FakeQuantWeight(const DeviceWeight& weight, const WeightGrid& grid,
                             const QuantizationArgs& args, const CompressOptions& options,
                             void* dense);

// The stored tensor "<module>.<suffix>", or null when there is none.
using TensorLookup = std::function<const TensorView*(absl::string_view suffix)>;

// What DecompressWeight reads.
struct CompressedModule {
  TensorLookup lookup;
  QuantizationArgs args;
  Format format = Format::kPackQuantized;
  Shape shape;  // [R, C].
};

struct DecompressOptions {
  // Implicit: the dtype is all that most callers have to say.
  DecompressOptions(DType result = DType::kBF16) : dtype(result) {}

  DType dtype;  // Of the result: BF16, F16 or F32.
  // The source was written by compressed-tensors before 0.18 (pack-quantized
  // with floor(32 / bits) values in a word). When false, the width tells; it
  // cannot for few columns (3 bits: below 160, 7 bits: below 32), where the
  // newer layout is taken.
  bool padded_packing = false;
};

// Dense weight [R, C] of a compressed module. `shape` is [R, C]. Reads what
// CompressWeight writes and also: pack-quantized of compressed-tensors < 0.18,
// weight_g_idx, and FP8 sources that name their scale weight_scale_inv. The
// product is rounded in the dtype that the reference uses (that of the scale;
// BF16 for nvfp4, mxfp4, mxfp8) and then converted to options.dtype.
// kInvalidArgument: args, format, shape or dtype that do not fit; kDataLoss: a
// tensor is missing or has another dtype, shape or number of bytes than these
// imply.
absl::StatusOr<HostTensor> DecompressWeight(const TensorLookup& lookup,
                                            const QuantizationArgs& args, Format format,
                                            const Shape& shape,
                                            const DecompressOptions& options = {});

// The same into device memory, `dense`, [R, C] in options.dtype, to the same bytes. What
// `lookup` gives is on the host and uploaded. Enqueues but for the uploads.
struct DenseOnDevice {
  void* elements = nullptr;
  DeviceQueue* queue = nullptr;
};
absl::Status DecompressWeight(const CompressedModule& module, const DecompressOptions& options,
                              const DenseOnDevice& dense);

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_COMPRESS_H_
