#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/bit_packing.h"
#include "kernels/compress.h"
#include "kernels/compress_rows.h"
#include "kernels/grid_rows.h"
#include "kernels/row_kernels.h"
#include "llmc/float_formats.h"
#include "llmc/parallel.h"

namespace llmc::kernels {
namespace {

absl::Status Mismatch(absl::string_view what, absl::string_view got, absl::string_view expected) {
  return absl::InvalidArgumentError(absl::StrCat(what, ": ", got, ", expected ", expected));
}

bool IsPacked(Format format) {
  return format == Format::kPackQuantized || format == Format::kNvfp4PackQuantized ||
         format == Format::kMxfp4PackQuantized;
}

// Calls visit(first, n, codes, scale, zero) for every tile of one quantised row.
template <typename Visit>
void QuantizeRow(const RowJob& job, int64_t row, GridRow& grid_row, const Visit& visit) {
  float scale[kTileColumns];
  float zero[kTileColumns];
  uint8_t codes[kTileColumns];
  const GridLayout& layout = job.layout;
  LoadGridRow(*job.grid, layout.scale_columns, row / layout.row_span, grid_row);
  const int64_t size = ElementSize(job.weight.dtype);
  const std::byte* weight = job.weight.bytes.data() + row * layout.columns * size;
  const bool zeros = job.rule.zero == ZeroPoint::kPerColumn;
  for (int64_t first = 0; first < layout.columns; first += kTileColumns) {
    const int64_t n = std::min(kTileColumns, layout.columns - first);
    ExpandSpan(grid_row.scale.data(), first, n, layout.column_span, scale);
    if (zeros) ExpandSpan(grid_row.zero.data(), first, n, layout.column_span, zero);
    QuantizeSpan(job.rule, weight + first * size, n, scale, zero, codes);
    visit(first, n, codes, scale, zero);
  }
}

void CompressRows(const RowJob& job, int64_t first_row, int64_t last_row) {
  GridRow grid_row;
  const int64_t used_bytes = (job.layout.columns * job.packed_bits + 7) / 8;
  for (int64_t row = first_row; row < last_row; ++row) {
    auto* out = reinterpret_cast<uint8_t*>(job.out) + row * job.row_bytes;
    QuantizeRow(job, row, grid_row,
                [&](int64_t first, int64_t n, const uint8_t* codes, const float*, const float*) {
                  PackBits(codes, n, job.packed_bits, out + first * job.packed_bits / 8);
                });
    std::memset(out + used_bytes, 0, job.row_bytes - used_bytes);
  }
}

HostTensor Copy(const HostTensor& tensor) {
  HostTensor copy(tensor.dtype(), tensor.shape());
  if (copy.num_bytes() > 0) {
    std::memcpy(copy.bytes().data(), tensor.bytes().data(), copy.num_bytes());
  }
  return copy;
}

HostTensor StoredScale(const WeightGrid& grid, Format format) {
  const bool nvfp4 = format == Format::kNvfp4PackQuantized;
  const bool mx = format == Format::kMxfp4PackQuantized || format == Format::kMxfp8Quantized;
  if (!nvfp4 && !mx) return Copy(grid.scale);
  HostTensor stored(nvfp4 ? DType::kF8E4M3 : DType::kU8, grid.scale.shape());
  const int64_t size = ElementSize(grid.scale.dtype());
  float numbers[kTileColumns];
  for (int64_t first = 0; first < stored.num_elements(); first += kTileColumns) {
    const int64_t n = std::min(kTileColumns, stored.num_elements() - first);
    WidenSpan(grid.scale.dtype(), grid.scale.bytes().data() + first * size, n, numbers);
    for (int64_t i = 0; i < n; ++i) {
      stored.as<uint8_t>()[first + i] = nvfp4 ? FloatToE4m3(numbers[i]) : E8m0Byte(numbers[i]);
    }
  }
  return stored;
}

// [rows, groups] of I8 as a bit stream down every column.
HostTensor PackDown(const HostTensor& zero_point, int num_bits) {
  const int64_t rows = zero_point.dim(0);
  const int64_t columns = zero_point.dim(1);
  const int64_t words = PackedWords(rows, num_bits);
  HostTensor packed(DType::kI32, {words, columns});
  std::vector<uint8_t> codes(static_cast<size_t>(rows));
  std::vector<uint32_t> stream(static_cast<size_t>(words));
  for (int64_t c = 0; c < columns; ++c) {
    for (int64_t r = 0; r < rows; ++r) {
      codes[r] =
          static_cast<uint8_t>(zero_point.as<int8_t>()[r * columns + c] + (1 << (num_bits - 1)));
    }
    std::fill(stream.begin(), stream.end(), 0);
    PackBits(codes.data(), rows, num_bits, reinterpret_cast<uint8_t*>(stream.data()));
    for (int64_t w = 0; w < words; ++w) packed.as<uint32_t>()[w * columns + c] = stream[w];
  }
  return packed;
}

void AppendGrid(const WeightGrid& grid, const QuantizationArgs& args, Format format,
                std::vector<StoredTensor>& stored) {
  stored.push_back({"weight_scale", StoredScale(grid, format)});
  if (format == Format::kNvfp4PackQuantized) {
    HostTensor global(DType::kF32, {1});
    *global.as<float>() = grid.global_scale;
    stored.push_back({"weight_global_scale", std::move(global)});
  }
  if (args.symmetric) return;
  const bool packed = format == Format::kPackQuantized && args.strategy != Strategy::kTensor;
  stored.push_back({"weight_zero_point",
                    packed ? PackDown(grid.zero_point, args.num_bits) : Copy(grid.zero_point)});
}

StoredTensor ShapeTensor(int64_t rows, int64_t columns) {
  HostTensor shape(DType::kI64, {2});
  shape.as<int64_t>()[0] = rows;
  shape.as<int64_t>()[1] = columns;
  return {"weight_shape", std::move(shape)};
}

// Calls run(first_row, last_row) for fixed ranges of rows on all threads.
template <typename Run>
void ForRowUnits(const GridLayout& layout, const Run& run) {
  const int64_t unit_rows = RowsPerUnit(layout);
  ParallelFor((layout.rows + unit_rows - 1) / unit_rows, [&](int64_t unit) {
    run(unit * unit_rows, std::min(layout.rows, (unit + 1) * unit_rows));
  });
}

int64_t TotalRows(const TensorView& weight, const CompressOptions& options) {
  return options.total_rows > 0 ? options.total_rows : weight.dim(0);
}

}  // namespace

absl::Status CheckGrid(const WeightGrid& grid, const QuantizationArgs& args,
                       const GridLayout& layout, DType dtype) {
  if (grid.scale.dtype() != dtype || grid.scale.shape() != layout.scale_shape) {
    return Mismatch(
        "scale",
        absl::StrCat(SafetensorsName(grid.scale.dtype()), " ", ShapeString(grid.scale.shape())),
        absl::StrCat(SafetensorsName(dtype), " ", ShapeString(layout.scale_shape)));
  }
  if (IsNvfp4(args) != (grid.global_scale > 0)) {
    return Mismatch("global_scale", absl::StrCat(grid.global_scale),
                    "a positive number for NVFP4 and 0 otherwise");
  }
  if (args.symmetric) return absl::OkStatus();
  const DType zero_dtype = args.type == NumberType::kInt ? DType::kI8 : DType::kF8E4M3;
  if (grid.zero_point.dtype() != zero_dtype || grid.zero_point.shape() != layout.scale_shape) {
    return Mismatch("zero_point",
                    absl::StrCat(SafetensorsName(grid.zero_point.dtype()), " ",
                                 ShapeString(grid.zero_point.shape())),
                    absl::StrCat(SafetensorsName(zero_dtype), " like the scale"));
  }
  return absl::OkStatus();
}

CodeRule CodeRuleOf(const QuantizationArgs& args, DType dtype, const CompressOptions& options) {
  const GridRule grid = RuleOf(args, dtype);
  CodeRule rule;
  rule.dtype = dtype;
  // NVFP4 divides by a float32 scale, so its quotient is float32 anyway.
  rule.round_quotient = options.quotient == QuotientRounding::kModelDtype && !IsNvfp4(args);
  rule.element = grid.element;
  rule.zero = options.zero_added ? ZeroPoint::kPositiveZero : ZeroPoint::kNone;
  if (!args.symmetric) rule.zero = ZeroPoint::kPerColumn;
  rule.q_min = grid.q_min;
  rule.q_max = grid.q_max;
  return rule;
}

void LoadGridRow(const WeightGrid& grid, int64_t columns, int64_t row, GridRow& loaded) {
  if (loaded.loaded == row) return;
  loaded.loaded = row;
  loaded.scale.resize(static_cast<size_t>(columns));
  const int64_t size = ElementSize(grid.scale.dtype());
  WidenSpan(grid.scale.dtype(), grid.scale.bytes().data() + row * columns * size, columns,
            loaded.scale.data());
  if (grid.global_scale != 0) {
    for (float& scale : loaded.scale) scale /= grid.global_scale;
  }
  if (grid.zero_point.num_bytes() == 0) return;
  loaded.zero.resize(static_cast<size_t>(columns));
  const uint8_t* codes = grid.zero_point.as<uint8_t>() + row * columns;
  const bool integer = grid.zero_point.dtype() == DType::kI8;
  for (int64_t i = 0; i < columns; ++i) {
    loaded.zero[i] =
        integer ? static_cast<float>(static_cast<int8_t>(codes[i])) : E4m3ToFloat(codes[i]);
  }
}

StoredTensor PrepareWeight(const QuantizationArgs& args, Format format, RowJob& job) {
  const int64_t rows = job.layout.rows;
  const int64_t columns = job.layout.columns;
  StoredTensor stored;
  stored.suffix = IsPacked(format) ? "weight_packed" : "weight";
  if (format == Format::kPackQuantized) {
    job.packed_bits = args.num_bits;
    job.rule.code_offset = 1 << (args.num_bits - 1);
    stored.tensor = HostTensor(DType::kI32, {rows, PackedWords(columns, args.num_bits)});
  } else if (IsPacked(format)) {
    job.packed_bits = 4;
    stored.tensor = HostTensor(DType::kU8, {rows, columns / 2});
  } else {
    const bool integer = args.type == NumberType::kInt;
    stored.tensor = HostTensor(integer ? DType::kI8 : DType::kF8E4M3, {rows, columns});
  }
  job.row_bytes = rows == 0 ? 0 : stored.tensor.num_bytes() / rows;
  job.out = stored.tensor.bytes().data();
  return stored;
}

absl::StatusOr<RowJob> PrepareJob(const TensorView& weight, const QuantizationArgs& args,
                                  Format format, const CompressOptions& options) {
  LLMC_RETURN_IF_ERROR(CheckDenseWeight(weight));
  LLMC_RETURN_IF_ERROR(CheckArgs(args));
  LLMC_RETURN_IF_ERROR(CheckFormat(args, format));
  RowJob job;
  job.weight = weight;
  LLMC_ASSIGN_OR_RETURN(job.layout, LayoutOf(args, weight.dim(0), weight.dim(1)));
  job.rule = CodeRuleOf(args, weight.dtype, options);
  return job;
}

std::vector<StoredTensor> Assemble(StoredTensor stored_weight, const WeightGrid& grid,
                                   const QuantizationArgs& args, Format format,
                                   const Shape& shape) {
  std::vector<StoredTensor> stored;
  stored.push_back(std::move(stored_weight));
  AppendGrid(grid, args, format, stored);
  if (format == Format::kPackQuantized) stored.push_back(ShapeTensor(shape[0], shape[1]));
  return stored;
}

absl::StatusOr<std::vector<StoredTensor>> CompressWeight(const TensorView& weight,
                                                         const WeightGrid& grid,
                                                         const QuantizationArgs& args,
                                                         Format format,
                                                         const CompressOptions& options) {
  LLMC_ASSIGN_OR_RETURN(RowJob job, PrepareJob(weight, args, format, options));
  LLMC_RETURN_IF_ERROR(CheckGrid(grid, args, job.layout, weight.dtype));
  job.grid = &grid;
  StoredTensor stored_weight = PrepareWeight(args, format, job);
  ForRowUnits(job.layout, [&](int64_t first, int64_t last) { CompressRows(job, first, last); });
  return Assemble(std::move(stored_weight), grid, args, format,
                  {TotalRows(weight, options), weight.dim(1)});
}

absl::StatusOr<std::vector<StoredTensor>> CompressRoundToNearest(
    const TensorView& weight, const QuantizationArgs& args, Format format,
    const WeightGridOptions& grid_options, const CompressOptions& options) {
  LLMC_ASSIGN_OR_RETURN(RowJob job, PrepareJob(weight, args, format, options));
  if (!IsMinMaxObserver(args) || args.strategy == Strategy::kTensor) {
    LLMC_ASSIGN_OR_RETURN(const WeightGrid grid, ComputeWeightGrid(weight, args, grid_options));
    return CompressWeight(weight, grid, args, format, options);
  }
  LLMC_ASSIGN_OR_RETURN(GridSetup setup, SetUpGrid(weight, args));
  LLMC_RETURN_IF_ERROR(SetGlobalScale(weight, args, grid_options, setup.rule));
  WeightGrid grid = AllocateGrid(setup.layout, setup.rule);
  job.grid = &grid;
  StoredTensor stored_weight = PrepareWeight(args, format, job);
  FirstBadRow bad;
  ForRowUnits(job.layout, [&](int64_t first, int64_t last) {
    FillGridRows(weight, setup.layout, setup.rule, first, last, grid, bad);
    CompressRows(job, first, last);
  });
  LLMC_RETURN_IF_ERROR(bad.Check(weight));
  return Assemble(std::move(stored_weight), grid, args, format,
                  {TotalRows(weight, options), weight.dim(1)});
}

absl::StatusOr<HostTensor> FakeQuantWeight(const TensorView& weight, const WeightGrid& grid,
                                           const QuantizationArgs& args,
                                           const CompressOptions& options) {
  LLMC_RETURN_IF_ERROR(CheckDenseWeight(weight));
  LLMC_RETURN_IF_ERROR(CheckArgs(args));
  RowJob job;
  job.weight = weight;
  LLMC_ASSIGN_OR_RETURN(job.layout, LayoutOf(args, weight.dim(0), weight.dim(1)));
  LLMC_RETURN_IF_ERROR(CheckGrid(grid, args, job.layout, weight.dtype));
  job.rule = CodeRuleOf(args, weight.dtype, options);
  job.grid = &grid;
  const DType product = IsNvfp4(args) ? DType::kF32 : weight.dtype;
  const NumberRule number{product, job.rule.element, 0};
  HostTensor dense(weight.dtype, weight.shape);
  const int64_t size = ElementSize(weight.dtype);
  ForRowUnits(job.layout, [&](int64_t first_row, int64_t last_row) {
    GridRow grid_row;
    float numbers[kTileColumns];
    for (int64_t row = first_row; row < last_row; ++row) {
      std::byte* out = dense.bytes().data() + row * job.layout.columns * size;
      QuantizeRow(job, row, grid_row,
                  [&](int64_t first, int64_t n, const uint8_t* codes, const float* scale,
                      const float* zero) {
                    DequantizeSpan(number, codes, n, scale, args.symmetric ? nullptr : zero,
                                   numbers);
                    NarrowSpan(weight.dtype, numbers, n, out + first * size);
                  });
    }
  });
  return dense;
}

}  // namespace llmc::kernels
