#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/bit_packing.h"
#include "kernels/compress.h"
#include "kernels/compressed_source.h"
#include "kernels/grid_layout.h"
#include "kernels/grid_point.h"
#include "kernels/row_kernels.h"
#include "llmc/float_formats.h"
#include "llmc/parallel.h"

namespace llmc::kernels {
namespace {

bool IsFp4Packed(Format format) {
  return format == Format::kNvfp4PackQuantized || format == Format::kMxfp4PackQuantized;
}

bool IsMxFormat(Format format) {
  return format == Format::kMxfp4PackQuantized || format == Format::kMxfp8Quantized;
}

absl::Status Damaged(absl::string_view suffix, absl::string_view got, absl::string_view expected) {
  return absl::DataLossError(absl::StrCat(suffix, ": ", got, ", expected ", expected));
}

// The tensor, when it has one of the shapes and exactly the bytes of it.
absl::StatusOr<const TensorView*> Find(const TensorLookup& lookup, absl::string_view suffix,
                                       const std::vector<DType>& dtypes,
                                       const std::vector<Shape>& shapes) {
  const TensorView* view = lookup(suffix);
  if (view == nullptr) return Damaged(suffix, "missing", "a stored tensor");
  if (std::find(dtypes.begin(), dtypes.end(), view->dtype) == dtypes.end()) {
    return Damaged(suffix, SafetensorsName(view->dtype), SafetensorsName(dtypes[0]));
  }
  if (std::find(shapes.begin(), shapes.end(), view->shape) == shapes.end()) {
    return Damaged(suffix, ShapeString(view->shape), ShapeString(shapes[0]));
  }
  const int64_t bytes = NumElements(view->shape) * ElementSize(view->dtype);
  if (static_cast<int64_t>(view->bytes.size()) != bytes) {
    return Damaged(suffix, absl::StrCat(view->bytes.size(), " bytes"), absl::StrCat(bytes));
  }
  return view;
}

// Shapes that hold the scales: as written, and as other tools write vectors.
std::vector<Shape> ScaleShapes(const QuantizationArgs& args, const GridLayout& layout) {
  std::vector<Shape> shapes = {layout.scale_shape};
  if (args.strategy == Strategy::kTensor) shapes.insert(shapes.end(), {{}, {1, 1}});
  if (args.strategy == Strategy::kChannel) shapes.push_back({layout.rows});
  return shapes;
}

absl::Status CheckRequest(const QuantizationArgs& args, Format format, const Shape& shape,
                          DType dtype) {
  LLMC_RETURN_IF_ERROR(CheckArgs(args));
  if (shape.size() != 2 || shape[0] < 0 || shape[1] < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("weight: shape ", ShapeString(shape), ", expected two dimensions"));
  }
  if (dtype != DType::kBF16 && dtype != DType::kF16 && dtype != DType::kF32) {
    return absl::InvalidArgumentError(
        absl::StrCat("dtype: ", SafetensorsName(dtype), ", expected BF16, F16 or F32"));
  }
  return CheckFormat(args, format);
}

absl::Status ReadPackedInts(const TensorLookup& lookup, const QuantizationArgs& args,
                            CompressedSource& source) {
  const int64_t rows = source.layout.rows;
  const int64_t dense = PackedWords(source.layout.columns, args.num_bits);
  const int64_t padded = PaddedWords(source.layout.columns, args.num_bits);
  const std::vector<Shape> shapes = source.padded
                                        ? std::vector<Shape>{{rows, padded}}
                                        : std::vector<Shape>{{rows, dense}, {rows, padded}};
  LLMC_ASSIGN_OR_RETURN(source.weight, Find(lookup, "weight_packed", {DType::kI32}, shapes));
  source.padded = source.padded || source.weight->dim(1) != dense;
  source.packed_bits = args.num_bits;
  source.rule.code_offset = 1 << (args.num_bits - 1);
  source.row_bytes = source.weight->dim(1) * 4;
  if (lookup("weight_shape") == nullptr) return absl::OkStatus();
  LLMC_ASSIGN_OR_RETURN(const TensorView* shape,
                        Find(lookup, "weight_shape", {DType::kI64, DType::kI32}, {{2}, {2, 1}}));
  const bool wide = shape->dtype == DType::kI64;
  for (int i = 0; i < 2; ++i) {
    const int64_t stored = wide ? shape->as<int64_t>()[i] : shape->as<int32_t>()[i];
    const int64_t expected = i == 0 ? rows : source.layout.columns;
    if (stored != expected) {
      return Damaged("weight_shape", absl::StrCat(stored), absl::StrCat(expected));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadCodes(const TensorLookup& lookup, const QuantizationArgs& args, Format format,
                       CompressedSource& source) {
  const int64_t rows = source.layout.rows;
  const int64_t columns = source.layout.columns;
  if (format == Format::kPackQuantized) return ReadPackedInts(lookup, args, source);
  if (IsFp4Packed(format)) {
    if (columns % 2 != 0) return Damaged("weight_packed", "an odd number of columns", "even");
    LLMC_ASSIGN_OR_RETURN(source.weight,
                          Find(lookup, "weight_packed", {DType::kU8}, {{rows, columns / 2}}));
    source.packed_bits = 4;
    source.row_bytes = columns / 2;
    return absl::OkStatus();
  }
  const DType dtype = args.type == NumberType::kInt ? DType::kI8 : DType::kF8E4M3;
  LLMC_ASSIGN_OR_RETURN(source.weight, Find(lookup, "weight", {dtype}, {{rows, columns}}));
  source.row_bytes = columns;
  return absl::OkStatus();
}

absl::Status ReadNvfp4Scales(const TensorLookup& lookup, CompressedSource& source) {
  LLMC_ASSIGN_OR_RETURN(const TensorView* scale, Find(lookup, "weight_scale", {DType::kF8E4M3},
                                                      {source.layout.scale_shape}));
  LLMC_ASSIGN_OR_RETURN(const TensorView* global,
                        Find(lookup, "weight_global_scale", {DType::kF32}, {{1}, {}}));
  const float divisor = *global->as<float>();
  if (!std::isfinite(divisor) || divisor <= 0) {
    return Damaged("weight_global_scale", absl::StrCat(divisor), "a finite number above 0");
  }
  for (size_t i = 0; i < source.scale.size(); ++i) {
    source.scale[i] = E4m3ToFloat(scale->as<uint8_t>()[i]) / divisor;
  }
  source.rule.product = DType::kBF16;
  return absl::OkStatus();
}

absl::Status ReadMxScales(const TensorLookup& lookup, CompressedSource& source) {
  LLMC_ASSIGN_OR_RETURN(const TensorView* scale,
                        Find(lookup, "weight_scale", {DType::kU8}, {source.layout.scale_shape}));
  for (size_t i = 0; i < source.scale.size(); ++i) {
    source.scale[i] = FromE8m0Byte(scale->as<uint8_t>()[i]);
  }
  source.rule.product = DType::kBF16;
  return absl::OkStatus();
}

absl::Status ReadScales(const TensorLookup& lookup, const QuantizationArgs& args, Format format,
                        CompressedSource& source) {
  source.scale.resize(static_cast<size_t>(source.layout.num_scales()));
  if (format == Format::kNvfp4PackQuantized) return ReadNvfp4Scales(lookup, source);
  if (IsMxFormat(format)) return ReadMxScales(lookup, source);
  const bool inverse = lookup("weight_scale") == nullptr && lookup("weight_scale_inv") != nullptr;
  LLMC_ASSIGN_OR_RETURN(
      const TensorView* scale,
      Find(lookup, inverse ? "weight_scale_inv" : "weight_scale",
           {DType::kBF16, DType::kF16, DType::kF32}, ScaleShapes(args, source.layout)));
  WidenSpan(scale->dtype, scale->bytes.data(), source.layout.num_scales(), source.scale.data());
  source.rule.product = scale->dtype;
  return absl::OkStatus();
}

// Zero points that are packed down every column.
absl::Status ReadPackedZeros(const TensorLookup& lookup, const QuantizationArgs& args,
                             CompressedSource& source) {
  const int64_t rows = source.layout.scale_rows;
  const int64_t columns = source.layout.scale_columns;
  const int64_t words =
      source.padded ? PaddedWords(rows, args.num_bits) : PackedWords(rows, args.num_bits);
  LLMC_ASSIGN_OR_RETURN(const TensorView* packed,
                        Find(lookup, "weight_zero_point", {DType::kI32}, {{words, columns}}));
  std::vector<uint32_t> stream(static_cast<size_t>(words));
  std::vector<uint8_t> codes(static_cast<size_t>(rows));
  for (int64_t c = 0; c < columns; ++c) {
    for (int64_t w = 0; w < words; ++w) stream[w] = packed->as<uint32_t>()[w * columns + c];
    if (source.padded) {
      UnpackPadded(stream.data(), 0, rows, args.num_bits, codes.data());
    } else {
      UnpackBits(reinterpret_cast<const uint8_t*>(stream.data()), words * 4, 0, rows, args.num_bits,
                 codes.data());
    }
    for (int64_t r = 0; r < rows; ++r) {
      source.zero[r * columns + c] = static_cast<float>(codes[r] - (1 << (args.num_bits - 1)));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadZeros(const TensorLookup& lookup, const QuantizationArgs& args, Format format,
                       CompressedSource& source) {
  if (args.symmetric) return absl::OkStatus();
  source.zero.resize(source.scale.size());
  if (format == Format::kPackQuantized && args.strategy != Strategy::kTensor) {
    return ReadPackedZeros(lookup, args, source);
  }
  const bool integer = args.type == NumberType::kInt;
  LLMC_ASSIGN_OR_RETURN(const TensorView* zero,
                        Find(lookup, "weight_zero_point", {integer ? DType::kI8 : DType::kF8E4M3},
                             ScaleShapes(args, source.layout)));
  for (size_t i = 0; i < source.zero.size(); ++i) {
    source.zero[i] =
        integer ? static_cast<float>(zero->as<int8_t>()[i]) : E4m3ToFloat(zero->as<uint8_t>()[i]);
  }
  return absl::OkStatus();
}

absl::Status ReadColumnOrder(const TensorLookup& lookup, CompressedSource& source) {
  if (lookup("weight_g_idx") == nullptr) return absl::OkStatus();
  LLMC_ASSIGN_OR_RETURN(source.group_of_column,
                        Find(lookup, "weight_g_idx", {DType::kI32}, {{source.layout.columns}}));
  const int32_t* groups = source.group_of_column->as<int32_t>();
  for (int64_t c = 0; c < source.layout.columns; ++c) {
    if (groups[c] < 0 || groups[c] >= source.layout.scale_columns) {
      return Damaged("weight_g_idx", absl::StrCat(groups[c], " at column ", c),
                     absl::StrCat("0 to ", source.layout.scale_columns - 1));
    }
  }
  return absl::OkStatus();
}

void ExpandColumns(const CompressedSource& source, const std::vector<float>& numbers,
                   int64_t grid_row, int64_t first, int64_t n, float* per_column) {
  const float* row = numbers.data() + grid_row * source.layout.scale_columns;
  if (source.group_of_column == nullptr) {
    ExpandSpan(row, first, n, source.layout.column_span, per_column);
    return;
  }
  const int32_t* groups = source.group_of_column->as<int32_t>() + first;
  for (int64_t i = 0; i < n; ++i) per_column[i] = row[groups[i]];
}

// Codes [first, first + n) of a row; a pointer into the source where they are
// bytes already.
const uint8_t* UnpackCodes(const CompressedSource& source, int64_t row, int64_t first, int64_t n,
                           uint8_t* scratch) {
  const auto* bytes =
      reinterpret_cast<const uint8_t*>(source.weight->bytes.data()) + row * source.row_bytes;
  if (source.padded) {
    const int64_t per_word = 32 / source.packed_bits;
    std::vector<uint32_t> words(static_cast<size_t>(n / per_word + 2));
    const int64_t begin = first / per_word;
    const int64_t end = (first + n + per_word - 1) / per_word;
    std::memcpy(words.data(), bytes + begin * 4, (end - begin) * 4);
    UnpackPadded(words.data(), first - begin * per_word, n, source.packed_bits, scratch);
    return scratch;
  }
  if (source.packed_bits == 8) return bytes + first;
  UnpackBits(bytes, source.row_bytes, first, n, source.packed_bits, scratch);
  return scratch;
}

void DecompressRow(const CompressedSource& source, int64_t row, DType dtype, std::byte* out) {
  float scale[kTileColumns];
  float zero[kTileColumns];
  float numbers[kTileColumns];
  uint8_t scratch[kTileColumns];
  const GridLayout& layout = source.layout;
  const int64_t grid_row = row / layout.row_span;
  for (int64_t first = 0; first < layout.columns; first += kTileColumns) {
    const int64_t n = std::min(kTileColumns, layout.columns - first);
    ExpandColumns(source, source.scale, grid_row, first, n, scale);
    if (!source.zero.empty()) ExpandColumns(source, source.zero, grid_row, first, n, zero);
    const uint8_t* codes = UnpackCodes(source, row, first, n, scratch);
    DequantizeSpan(source.rule, codes, n, scale, source.zero.empty() ? nullptr : zero, numbers);
    NarrowSpan(dtype, numbers, n, out + first * ElementSize(dtype));
  }
}

}  // namespace

absl::StatusOr<CompressedSource> ReadSource(const TensorLookup& lookup,
                                            const QuantizationArgs& args, Format format,
                                            const Shape& shape, const DecompressOptions& options) {
  LLMC_RETURN_IF_ERROR(CheckRequest(args, format, shape, options.dtype));
  CompressedSource source;
  source.padded = options.padded_packing && 32 % args.num_bits != 0;
  LLMC_ASSIGN_OR_RETURN(source.layout, LayoutOf(args, shape[0], shape[1]));
  source.rule.element = ElementOf(args);
  LLMC_RETURN_IF_ERROR(ReadCodes(lookup, args, format, source));
  LLMC_RETURN_IF_ERROR(ReadScales(lookup, args, format, source));
  LLMC_RETURN_IF_ERROR(ReadZeros(lookup, args, format, source));
  LLMC_RETURN_IF_ERROR(ReadColumnOrder(lookup, source));
  return source;
}

absl::StatusOr<HostTensor> DecompressWeight(const TensorLookup& lookup,
                                            const QuantizationArgs& args, Format format,
                                            const Shape& shape, const DecompressOptions& options) {
  LLMC_ASSIGN_OR_RETURN(const CompressedSource source,
                        ReadSource(lookup, args, format, shape, options));
  const DType dtype = options.dtype;
  HostTensor dense(dtype, shape);
  const int64_t row_bytes = shape[1] * ElementSize(dtype);
  const int64_t unit_rows = RowsPerUnit(source.layout);
  ParallelFor((shape[0] + unit_rows - 1) / unit_rows, [&](int64_t unit) {
    const int64_t last = std::min(shape[0], (unit + 1) * unit_rows);
    for (int64_t row = unit * unit_rows; row < last; ++row) {
      DecompressRow(source, row, dtype, dense.bytes().data() + row * row_bytes);
    }
  });
  return dense;
}

}  // namespace llmc::kernels
