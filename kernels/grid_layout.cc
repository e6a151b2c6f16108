#include "kernels/grid_layout.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace llmc::kernels {
namespace {

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

absl::Status SetGroups(const QuantizationArgs& args, GridLayout& layout) {
  const int64_t size = args.group_size.value_or(0);
  if (size <= 0) return absl::InvalidArgumentError("group_size: missing, expected a size above 0");
  if (layout.columns % size != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("group_size ", size, ": does not divide ", layout.columns,
                     " columns, expected a divisor or an ignored module"));
  }
  layout.column_span = size;
  layout.scale_columns = layout.columns / size;
  return absl::OkStatus();
}

absl::Status SetBlocks(const QuantizationArgs& args, GridLayout& layout) {
  const auto sound = [&](int i) {
    return (*args.block_structure)[i] >= 1 && (*args.block_structure)[i] <= 16384;
  };
  if (!args.block_structure || !sound(0) || !sound(1)) {
    return absl::InvalidArgumentError(
        "block_structure: missing, expected two sizes from 1 to 16384");
  }
  layout.row_span = (*args.block_structure)[0];
  layout.column_span = (*args.block_structure)[1];
  layout.scale_rows = CeilDiv(layout.rows, layout.row_span);
  layout.scale_columns = CeilDiv(layout.columns, layout.column_span);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<GridLayout> LayoutOf(const QuantizationArgs& args, int64_t rows, int64_t columns) {
  GridLayout layout{rows, columns, 1, std::max<int64_t>(columns, 1), rows, 1, {}};
  switch (args.strategy) {
    case Strategy::kTensor:
      layout.row_span = std::max<int64_t>(rows, 1);
      layout.scale_rows = 1;
      layout.scale_shape = {1};
      return layout;
    case Strategy::kChannel:
      break;
    case Strategy::kGroup:
    case Strategy::kTensorGroup:
      LLMC_RETURN_IF_ERROR(SetGroups(args, layout));
      break;
    case Strategy::kBlock:
      LLMC_RETURN_IF_ERROR(SetBlocks(args, layout));
      break;
    default:
      return absl::InvalidArgumentError(
          "strategy: token or attn_head, expected tensor, channel, group, tensor_group or block "
          "for "
          "a weight");
  }
  layout.scale_shape = {layout.scale_rows, layout.scale_columns};
  return layout;
}

absl::Status CheckArgs(const QuantizationArgs& args) {
  const bool integer = args.type == NumberType::kInt;
  if (integer && (args.num_bits < 1 || args.num_bits > 8)) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_bits: ", args.num_bits, ", expected 1 to 8 for int"));
  }
  if (!integer && args.num_bits != 4 && args.num_bits != 8) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_bits: ", args.num_bits, ", expected 4 or 8 for float"));
  }
  if (!integer && args.num_bits == 4 && !args.symmetric) {
    return absl::InvalidArgumentError("symmetric: false with FP4, expected true");
  }
  if (IsMx(args) && (!args.symmetric || args.group_size != 32)) {
    return absl::InvalidArgumentError(
        "weights: E8M0 scales (scale_dtype uint8), expected symmetric true and group_size 32");
  }
  if (args.strategy == Strategy::kTensorGroup && !IsNvfp4(args)) {
    return absl::InvalidArgumentError("strategy: tensor_group, expected float of 4 bits with it");
  }
  return absl::OkStatus();
}

absl::Status CheckDenseWeight(const TensorView& weight) {
  const DType dtype = weight.dtype;
  if (dtype != DType::kBF16 && dtype != DType::kF16 && dtype != DType::kF32) {
    return absl::InvalidArgumentError(
        absl::StrCat("weight: dtype ", SafetensorsName(dtype), ", expected BF16, F16 or F32"));
  }
  if (weight.shape.size() != 2 || weight.shape[0] < 0 || weight.shape[1] < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("weight: shape ", ShapeString(weight.shape), ", expected two dimensions"));
  }
  const int64_t expected = NumElements(weight.shape) * ElementSize(dtype);
  if (static_cast<int64_t>(weight.bytes.size()) != expected) {
    return absl::InvalidArgumentError(absl::StrCat("weight: ", weight.bytes.size(),
                                                   " bytes, expected ", expected, " for shape ",
                                                   ShapeString(weight.shape)));
  }
  return absl::OkStatus();
}

absl::Status CheckFormat(const QuantizationArgs& args, Format format) {
  const bool integer = args.type == NumberType::kInt;
  bool fits = false;
  switch (format) {
    case Format::kPackQuantized:
    case Format::kIntQuantized:
      fits = integer;
      break;
    case Format::kFloatQuantized:
      fits = !integer && args.num_bits == 8 && !IsMx(args);
      break;
    case Format::kNaiveQuantized:
      fits = (integer || args.num_bits == 8) && !IsMx(args);
      break;
    case Format::kNvfp4PackQuantized:
      fits = IsNvfp4(args) && args.group_size == 16;
      break;
    case Format::kMxfp4PackQuantized:
      fits = IsMx(args) && args.num_bits == 4;
      break;
    case Format::kMxfp8Quantized:
      fits = IsMx(args) && args.num_bits == 8;
      break;
    case Format::kDense:
      break;
  }
  if (fits) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "format: does not hold these weights, expected a format that fits type, num_bits and "
      "strategy");
}

bool IsMx(const QuantizationArgs& args) {
  if (args.type != NumberType::kFloat || args.strategy != Strategy::kGroup) return false;
  // Configs of compressed-tensors before 0.13 do not name the scale's dtype.
  const bool old_mxfp4 = args.num_bits == 4 && args.group_size == 32 && !args.scale_dtype;
  return old_mxfp4 || args.scale_dtype == DType::kU8;
}

bool IsNvfp4(const QuantizationArgs& args) {
  return args.type == NumberType::kFloat && args.num_bits == 4 &&
         args.strategy == Strategy::kTensorGroup;
}

int64_t RowsPerUnit(const GridLayout& layout) {
  constexpr int64_t kElements = 128 * 1024;
  const int64_t rows = std::max<int64_t>(1, kElements / std::max<int64_t>(layout.columns, 1));
  if (layout.scale_rows <= 1) return rows;
  const int64_t spans = std::max<int64_t>(1, rows / layout.row_span);
  return spans * layout.row_span;
}

}  // namespace llmc::kernels
