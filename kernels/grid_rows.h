// The rows of a weight on their way to a grid: the part of weight_grid.h that
// compress.h fuses with the quantisation itself.
#ifndef LLMC_KERNELS_GRID_ROWS_H_
#define LLMC_KERNELS_GRID_ROWS_H_

#include <atomic>
#include <cstdint>

#include "kernels/grid_layout.h"
#include "kernels/grid_point.h"
#include "kernels/weight_grid.h"
#include "llmc/status.h"
#include "llmc/tensor.h"

namespace llmc::kernels {

// The lowest row with a NaN or infinity that any thread has seen.
class FirstBadRow {
 public:
  void Report(int64_t row);
  // OK, or kInvalidArgument naming row and column of the first bad element.
  absl::Status Check(const TensorView& weight) const;

 private:
  std::atomic<int64_t> row_{-1};
};

// Grid with tensors of the right shapes, not filled in.
WeightGrid AllocateGrid(const GridLayout& layout, const GridRule& rule);

// Writes scale and zero point number `index`.
void StorePoint(const GridRule& rule, GridPoint point, int64_t index, WeightGrid& grid);

// Fills `grid` for the rows [first, last) by their extrema; first and last (but
// for the end of the weight) are multiples of row_span. Not for strategy
// tensor.
void FillGridRows(const TensorView& weight, const GridLayout& layout, const GridRule& rule,
                  int64_t first, int64_t last, WeightGrid& grid, FirstBadRow& bad);

// Extrema of every scale's elements in rows [first, last), a whole number of
// spans: min and max are [spans, scale_columns].
void SpanExtrema(const TensorView& weight, const GridLayout& layout, bool symmetric, int64_t first,
                 int64_t last, float* min, float* max);

// True when the observer of `args` takes the extrema as they are.
bool IsMinMaxObserver(const QuantizationArgs& args);

// Layout and rule after all checks on `weight`, `args` and the observer's name.
struct GridSetup {
  GridLayout layout;
  GridRule rule;
};
absl::StatusOr<GridSetup> SetUpGrid(const TensorView& weight, const QuantizationArgs& args);

// NVFP4: sets rule.global_scale from options or from the whole weight.
absl::Status SetGlobalScale(const TensorView& weight, const QuantizationArgs& args,
                            const WeightGridOptions& options, GridRule& rule);

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_GRID_ROWS_H_
