// Part of kernels/compress: what the CPU's twin and the device's share, so that their
// bytes are equal.
#ifndef LLMC_KERNELS_COMPRESS_ROWS_H_
#define LLMC_KERNELS_COMPRESS_ROWS_H_

#include <vector>

#include "kernels/compress.h"
#include "kernels/grid_layout.h"
#include "kernels/row_kernels.h"

namespace llmc::kernels {

// Everything that quantising a row needs to know.
struct RowJob {
  TensorView weight;
  GridLayout layout;
  CodeRule rule;
  const WeightGrid* grid = nullptr;
  int packed_bits = 8;       // Bits a code takes in the output.
  int64_t row_bytes = 0;     // Of the output.
  std::byte* out = nullptr;  // [rows, row_bytes]
};

// The job after all checks but that of the grid; `grid` and `out` are not set. Only the
// size of the weight's bytes is looked at.
absl::StatusOr<RowJob> PrepareJob(const TensorView& weight, const QuantizationArgs& args,
                                  Format format, const CompressOptions& options);

// kInvalidArgument when `grid` is not one for `args` and this layout.
absl::Status CheckGrid(const WeightGrid& grid, const QuantizationArgs& args,
                       const GridLayout& layout, DType dtype);

CodeRule CodeRuleOf(const QuantizationArgs& args, DType dtype, const CompressOptions& options);

// The weight's tensor, its bytes not filled in; sets in the job how to fill them.
StoredTensor PrepareWeight(const QuantizationArgs& args, Format format, RowJob& job);

// All tensors of a module whose weight has `shape`.
std::vector<StoredTensor> Assemble(StoredTensor stored_weight, const WeightGrid& grid,
                                   const QuantizationArgs& args, Format format, const Shape& shape);

// The numbers of one row of the grid: effective scales and zero points.
struct GridRow {
  std::vector<float> scale;
  std::vector<float> zero;
  int64_t loaded = -1;  // Which row of the grid they are.
};
void LoadGridRow(const WeightGrid& grid, int64_t columns, int64_t row, GridRow& loaded);

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_COMPRESS_ROWS_H_
