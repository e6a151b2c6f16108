#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/grid_rows.h"
#include "kernels/range_search.h"
#include "kernels/row_kernels.h"
#include "kernels/weight_grid.h"
#include "llmc/float_formats.h"
#include "llmc/parallel.h"

namespace llmc::kernels {
namespace {

// Units of rows whose results are merged in any order.
int64_t NumUnits(const GridLayout& layout) {
  const int64_t rows = RowsPerUnit(layout);
  return (layout.rows + rows - 1) / rows;
}

const std::byte* RowBytes(const TensorView& weight, int64_t row) {
  return weight.bytes.data() + row * weight.dim(1) * ElementSize(weight.dtype);
}

// Extrema of one row as one span. An infinity of either sign stands for NaN.
Extrema RowExtrema(const TensorView& weight, int64_t row) {
  Extrema e;
  GroupMinMax(weight.dtype, RowBytes(weight, row), weight.dim(1), weight.dim(1), &e.min, &e.max);
  return e;
}

// NaN when one of them is: a NaN must not be dropped.
float Smaller(float a, float b) { return b < a || std::isnan(b) ? b : a; }

// A vector as a matrix of rows short enough to share among threads; any shape
// can be read so when rows do not matter.
TensorView AsMatrix(const TensorView& weight) {
  TensorView matrix = weight;
  const int64_t rows = weight.shape.size() > 1 ? weight.shape[0] : 1;
  const int64_t count = NumElements(weight.shape);
  matrix.shape = {count == 0 ? 0 : rows, rows == 0 ? 0 : count / rows};
  return matrix;
}

absl::Status FillTensorGrid(const TensorView& weight, const WeightGridOptions& options,
                            const GridRule& rule, WeightGrid& grid) {
  Extrema extrema;
  if (options.tensor_extrema) {
    extrema = *options.tensor_extrema;
  } else {
    LLMC_ASSIGN_OR_RETURN(extrema, FindExtrema(weight));
  }
  StorePoint(rule, PointOf(rule, extrema), 0, grid);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Extrema>> Search(const TensorView& weight, const QuantizationArgs& args,
                                            const GridSetup& setup,
                                            const WeightGridOptions& options) {
  LLMC_ASSIGN_OR_RETURN(const SearchRule search, SearchRuleOf(args));
  return SearchRanges(weight, setup.layout, setup.rule, search, options.importance);
}

float LargestMagnitude(const std::vector<Extrema>& ranges) {
  float largest = 0;
  for (const Extrema& e : ranges) largest = std::max({largest, -e.min, e.max});
  return largest;
}

absl::StatusOr<WeightGrid> SearchedGrid(const TensorView& weight, const QuantizationArgs& args,
                                        GridSetup setup, const WeightGridOptions& options) {
  LLMC_ASSIGN_OR_RETURN(const std::vector<Extrema> ranges, Search(weight, args, setup, options));
  if (IsNvfp4(args)) {
    const float absmax = options.fused_absmax.value_or(LargestMagnitude(ranges));
    setup.rule.global_scale = GlobalScaleOf(absmax, weight.dtype, options.exact_f16_global_scale);
  }
  WeightGrid grid = AllocateGrid(setup.layout, setup.rule);
  for (size_t i = 0; i < ranges.size(); ++i) {
    StorePoint(setup.rule, PointOf(setup.rule, ranges[i]), static_cast<int64_t>(i), grid);
  }
  return grid;
}

absl::StatusOr<WeightGrid> MinMaxGrid(const TensorView& weight, const QuantizationArgs& args,
                                      GridSetup setup, const WeightGridOptions& options) {
  LLMC_RETURN_IF_ERROR(SetGlobalScale(weight, args, options, setup.rule));
  const GridLayout& layout = setup.layout;
  WeightGrid grid = AllocateGrid(layout, setup.rule);
  if (args.strategy == Strategy::kTensor) {
    LLMC_RETURN_IF_ERROR(FillTensorGrid(weight, options, setup.rule, grid));
    return grid;
  }
  FirstBadRow bad;
  const int64_t unit_rows = RowsPerUnit(layout);
  ParallelFor(NumUnits(layout), [&](int64_t unit) {
    const int64_t last = std::min(layout.rows, (unit + 1) * unit_rows);
    FillGridRows(weight, layout, setup.rule, unit * unit_rows, last, grid, bad);
  });
  LLMC_RETURN_IF_ERROR(bad.Check(weight));
  return grid;
}

HostTensor CopyRows(const HostTensor& tensor, int64_t first, int64_t rows) {
  if (tensor.shape().size() < 2) {
    HostTensor copy(tensor.dtype(), tensor.shape());
    std::memcpy(copy.bytes().data(), tensor.bytes().data(), tensor.num_bytes());
    return copy;
  }
  HostTensor copy(tensor.dtype(), {rows, tensor.dim(1)});
  const int64_t row_bytes = tensor.dim(1) * ElementSize(tensor.dtype());
  std::memcpy(copy.bytes().data(), tensor.bytes().data() + first * row_bytes, copy.num_bytes());
  return copy;
}

}  // namespace

void FirstBadRow::Report(int64_t row) {
  int64_t seen = row_.load();
  while ((seen < 0 || row < seen) && !row_.compare_exchange_weak(seen, row)) {
  }
}

absl::Status FirstBadRow::Check(const TensorView& weight) const {
  const int64_t row = row_.load();
  if (row < 0) return absl::OkStatus();
  std::vector<float> numbers(static_cast<size_t>(weight.dim(1)));
  WidenSpan(weight.dtype, RowBytes(weight, row), weight.dim(1), numbers.data());
  const auto bad = std::find_if_not(numbers.begin(), numbers.end(),
                                    [](float number) { return std::isfinite(number); });
  return absl::InvalidArgumentError(absl::StrCat(
      "weight: ", bad != numbers.end() && std::isnan(*bad) ? "NaN" : "infinity", " at row ", row,
      ", column ", bad - numbers.begin(), ", expected finite numbers (the checkpoint is damaged)"));
}

WeightGrid AllocateGrid(const GridLayout& layout, const GridRule& rule) {
  WeightGrid grid;
  grid.scale = HostTensor(rule.dtype, layout.scale_shape);
  grid.global_scale = rule.global_scale;
  if (!rule.symmetric) {
    const bool integer = rule.element == Element::kInt;
    grid.zero_point = HostTensor(integer ? DType::kI8 : DType::kF8E4M3, layout.scale_shape);
  }
  return grid;
}

void StorePoint(const GridRule& rule, GridPoint point, int64_t index, WeightGrid& grid) {
  if (rule.dtype == DType::kF32) {
    grid.scale.as<float>()[index] = point.scale;
  } else {
    grid.scale.as<uint16_t>()[index] =
        rule.dtype == DType::kBF16 ? Bf16Bits(point.scale) : F16Bits(point.scale);
  }
  if (rule.symmetric) return;
  grid.zero_point.as<uint8_t>()[index] = rule.element == Element::kInt
                                             ? static_cast<uint8_t>(RoundToInt(point.zero))
                                             : E4m3Bits(point.zero);
}

void SpanExtrema(const TensorView& weight, const GridLayout& layout, bool symmetric, int64_t first,
                 int64_t last, float* min, float* max) {
  const int64_t count = layout.scale_columns;
  std::vector<float> row_min(static_cast<size_t>(count));
  std::vector<float> row_max(static_cast<size_t>(count));
  for (int64_t row = first; row < last; ++row) {
    const std::byte* bytes = RowBytes(weight, row);
    if (symmetric) {
      GroupAbsMax(weight.dtype, bytes, layout.columns, layout.column_span, row_max.data());
      for (int64_t g = 0; g < count; ++g) row_min[g] = -row_max[g];
    } else {
      GroupMinMax(weight.dtype, bytes, layout.columns, layout.column_span, row_min.data(),
                  row_max.data());
    }
    const int64_t offset = (row - first) / layout.row_span * count;
    const bool fresh = (row - first) % layout.row_span == 0;
    for (int64_t g = 0; g < count; ++g) {
      min[offset + g] = fresh ? row_min[g] : Smaller(min[offset + g], row_min[g]);
      max[offset + g] = fresh ? row_max[g] : -Smaller(-max[offset + g], -row_max[g]);
    }
  }
}

void FillGridRows(const TensorView& weight, const GridLayout& layout, const GridRule& rule,
                  int64_t first, int64_t last, WeightGrid& grid, FirstBadRow& bad) {
  const int64_t count = layout.scale_columns;
  std::vector<float> min(static_cast<size_t>(count));
  std::vector<float> max(static_cast<size_t>(count));
  for (int64_t row = first; row < last; row += layout.row_span) {
    const int64_t end = std::min(last, row + layout.row_span);
    SpanExtrema(weight, layout, rule.symmetric, row, end, min.data(), max.data());
    const int64_t offset = row / layout.row_span * count;
    bool finite = true;
    for (int64_t g = 0; g < count; ++g) {
      finite = finite && std::isfinite(min[g]) && std::isfinite(max[g]);
      StorePoint(rule, PointOf(rule, {min[g], max[g]}), offset + g, grid);
    }
    for (int64_t r = row; !finite && r < end; ++r) {
      const Extrema e = RowExtrema(weight, r);
      if (std::isfinite(e.min) && std::isfinite(e.max)) continue;
      bad.Report(r);
      break;
    }
  }
}

bool IsMinMaxObserver(const QuantizationArgs& args) {
  if (!args.observer) return true;
  const std::string& name = *args.observer;
  return name == "memoryless_minmax" || name == "minmax" || name == "static_minmax";
}

absl::StatusOr<GridSetup> SetUpGrid(const TensorView& weight, const QuantizationArgs& args) {
  LLMC_RETURN_IF_ERROR(CheckDenseWeight(weight));
  LLMC_RETURN_IF_ERROR(CheckArgs(args));
  if (!IsMinMaxObserver(args)) LLMC_RETURN_IF_ERROR(SearchRuleOf(args).status());
  GridSetup setup;
  LLMC_ASSIGN_OR_RETURN(setup.layout, LayoutOf(args, weight.dim(0), weight.dim(1)));
  setup.rule = RuleOf(args, weight.dtype);
  return setup;
}

absl::Status SetGlobalScale(const TensorView& weight, const QuantizationArgs& args,
                            const WeightGridOptions& options, GridRule& rule) {
  if (!IsNvfp4(args)) return absl::OkStatus();
  float absmax = 0;
  if (options.fused_absmax) {
    absmax = *options.fused_absmax;
  } else {
    LLMC_ASSIGN_OR_RETURN(const Extrema extrema, FindExtrema(weight));
    absmax = std::max(-extrema.min, extrema.max);
  }
  if (!std::isfinite(absmax)) {
    return absl::InvalidArgumentError("fused_absmax: not finite, expected the absmax of weights");
  }
  rule.global_scale = GlobalScaleOf(absmax, weight.dtype, options.exact_f16_global_scale);
  return absl::OkStatus();
}

absl::StatusOr<WeightGrid> ComputeWeightGrid(const TensorView& weight, const QuantizationArgs& args,
                                             const WeightGridOptions& options) {
  LLMC_ASSIGN_OR_RETURN(const GridSetup setup, SetUpGrid(weight, args));
  if (IsMinMaxObserver(args)) return MinMaxGrid(weight, args, setup, options);
  return SearchedGrid(weight, args, setup, options);
}

absl::StatusOr<Extrema> FindExtrema(const TensorView& weight) {
  const TensorView matrix = AsMatrix(weight);
  LLMC_RETURN_IF_ERROR(CheckDenseWeight(matrix));
  if (matrix.bytes.empty()) return Extrema{};
  const GridLayout rows{matrix.dim(0), matrix.dim(1), 1, matrix.dim(1), matrix.dim(0), 1, {}};
  const int64_t unit_rows = RowsPerUnit(rows);
  std::vector<Extrema> parts(static_cast<size_t>(NumUnits(rows)));
  FirstBadRow bad;
  ParallelFor(static_cast<int64_t>(parts.size()), [&](int64_t unit) {
    Extrema part = RowExtrema(matrix, unit * unit_rows);
    const int64_t last = std::min(rows.rows, (unit + 1) * unit_rows);
    for (int64_t row = unit * unit_rows; row < last; ++row) {
      const Extrema e = RowExtrema(matrix, row);
      if (!std::isfinite(e.min) || !std::isfinite(e.max)) bad.Report(row);
      part = {std::min(part.min, e.min), std::max(part.max, e.max)};
    }
    parts[static_cast<size_t>(unit)] = part;
  });
  LLMC_RETURN_IF_ERROR(bad.Check(matrix));
  Extrema whole = parts[0];
  for (const Extrema& part : parts) {
    whole = {std::min(whole.min, part.min), std::max(whole.max, part.max)};
  }
  return whole;
}

absl::StatusOr<float> SearchedAbsMax(const TensorView& weight, const QuantizationArgs& args,
                                     const WeightGridOptions& options) {
  LLMC_ASSIGN_OR_RETURN(const GridSetup setup, SetUpGrid(weight, args));
  if (IsMinMaxObserver(args)) {
    LLMC_ASSIGN_OR_RETURN(const Extrema extrema, FindExtrema(weight));
    return std::max(-extrema.min, extrema.max);
  }
  LLMC_ASSIGN_OR_RETURN(const std::vector<Extrema> ranges, Search(weight, args, setup, options));
  return LargestMagnitude(ranges);
}

absl::StatusOr<Extrema> SearchActivationRange(const TensorView& x, const QuantizationArgs& args) {
  const TensorView matrix = AsMatrix(x);
  if (matrix.bytes.empty()) return Extrema{};
  QuantizationArgs whole = args;
  whole.strategy = Strategy::kTensor;
  LLMC_ASSIGN_OR_RETURN(const GridSetup setup, SetUpGrid(matrix, whole));
  LLMC_ASSIGN_OR_RETURN(const std::vector<Extrema> ranges, Search(matrix, whole, setup, {}));
  return ranges[0];
}

absl::StatusOr<WeightGrid> SliceGrid(const WeightGrid& grid, const QuantizationArgs& args,
                                     int64_t first_row, int64_t num_rows) {
  const int64_t span =
      args.strategy == Strategy::kBlock && args.block_structure ? (*args.block_structure)[0] : 1;
  if (first_row < 0 || num_rows < 0 || first_row % span != 0) {
    return absl::InvalidArgumentError(absl::StrCat("rows: a range from ", first_row, " of ",
                                                   num_rows, ", expected a start at a multiple of ",
                                                   span));
  }
  const int64_t first = first_row / span;
  const int64_t count = (num_rows + span - 1) / span;
  const Shape& shape = grid.scale.shape();
  if (shape.size() >= 2 && first + count > shape[0]) {
    return absl::InvalidArgumentError(absl::StrCat("rows: scales ", first, " to ", first + count,
                                                   ", expected at most ", shape[0]));
  }
  WeightGrid slice;
  slice.scale = CopyRows(grid.scale, first, count);
  slice.global_scale = grid.global_scale;
  if (grid.zero_point.num_bytes() > 0) slice.zero_point = CopyRows(grid.zero_point, first, count);
  return slice;
}

absl::StatusOr<WeightGrid> ActivationScale(std::span<const Extrema> extrema,
                                           const QuantizationArgs& args, DType dtype) {
  const bool one = args.strategy == Strategy::kTensor || args.strategy == Strategy::kTensorGroup;
  if (!one && args.strategy != Strategy::kAttnHead) {
    return absl::InvalidArgumentError(
        "activations: strategy without static scales, expected tensor, attn_head or tensor_group");
  }
  if (extrema.empty() || (one && extrema.size() != 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("activations: ", extrema.size(), " extrema, expected one for each scale"));
  }
  LLMC_RETURN_IF_ERROR(CheckArgs(args));
  LLMC_RETURN_IF_ERROR(CheckDenseWeight({dtype, {0, 0}, {}}));
  for (const Extrema& e : extrema) {
    if (std::isfinite(e.min) && std::isfinite(e.max)) continue;
    return absl::InvalidArgumentError("activations: an infinite or NaN extremum, expected finite");
  }
  GridRule rule = RuleOf(args, dtype);
  if (IsNvfp4(args)) {
    WeightGrid grid;
    grid.global_scale =
        GlobalScaleOf(std::max({-extrema[0].min, extrema[0].max, 0.0f}), dtype, false);
    return grid;
  }
  GridLayout layout;
  layout.scale_shape = {1};
  if (!one) layout.scale_shape = {static_cast<int64_t>(extrema.size()), 1, 1};
  WeightGrid grid = AllocateGrid(layout, rule);
  for (size_t i = 0; i < extrema.size(); ++i) {
    StorePoint(rule, PointOf(rule, extrema[i]), static_cast<int64_t>(i), grid);
  }
  return grid;
}

}  // namespace llmc::kernels
