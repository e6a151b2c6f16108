// Which scale belongs to which element of a weight.
#ifndef LLMC_KERNELS_GRID_LAYOUT_H_
#define LLMC_KERNELS_GRID_LAYOUT_H_

#include <cstdint>

#include "llmc/scheme.h"
#include "llmc/status.h"
#include "llmc/tensor.h"

namespace llmc::kernels {

// Element (r, c) uses scale (r / row_span, c / column_span) of a row-major
// matrix of scale_rows x scale_columns.
struct GridLayout {
  int64_t rows = 0;  // Of the weight.
  int64_t columns = 0;
  int64_t row_span = 1;
  int64_t column_span = 1;
  int64_t scale_rows = 0;
  int64_t scale_columns = 0;
  Shape scale_shape;  // As stored: [1] for strategy tensor, else two dimensions.

  int64_t num_scales() const { return scale_rows * scale_columns; }
};

// Layout of the scales of a weight [rows, columns]. kInvalidArgument for
// activation strategies, sizes that are missing, and columns that group_size
// does not divide.
absl::StatusOr<GridLayout> LayoutOf(const QuantizationArgs& args, int64_t rows, int64_t columns);

// OK when a weight may have `args`: int of 1..8 bits, FP8, or symmetric FP4.
absl::Status CheckArgs(const QuantizationArgs& args);

// OK when `format` is a layout for weights of `args`, which passed CheckArgs.
absl::Status CheckFormat(const QuantizationArgs& args, Format format);

// OK for [R, C] of BF16, F16 or F32 with as many bytes as that takes.
absl::Status CheckDenseWeight(const TensorView& weight);

// FP4 or FP8 elements with power-of-two scales stored as E8M0 bytes.
bool IsMx(const QuantizationArgs& args);

// FP4 elements in groups under a global scale.
bool IsNvfp4(const QuantizationArgs& args);

// Rows that one parallel unit takes: about 256 KiB of weight, whole blocks
// where the strategy is block.
int64_t RowsPerUnit(const GridLayout& layout);

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_GRID_LAYOUT_H_
