#include "formats/stored_tensors.h"

#include "absl/strings/str_cat.h"
#include "formats/names.h"

namespace llmc {
namespace {

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

absl::Status CheckShape(const Shape& shape) {
  // The bound keeps every product below 2^62.
  constexpr int64_t kMaxSize = int64_t{1} << 31;
  if (shape.size() == 2 && shape[0] > 0 && shape[1] > 0 && shape[0] <= kMaxSize &&
      shape[1] <= kMaxSize) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("weight of shape ", ShapeString(shape), ", expected [rows, columns], each > 0"));
}

absl::StatusOr<int64_t> NumGroups(const QuantizationArgs& args, int64_t columns) {
  const int64_t size = args.group_size.value_or(0);
  if (size > 0 && columns % size == 0) return columns / size;
  return absl::InvalidArgumentError(
      absl::StrCat("group_size ", size, " does not divide ", columns, " columns"));
}

absl::Status CannotHold(Format format, absl::string_view what) {
  return absl::UnimplementedError(
      absl::StrCat("format ", FormatName(format), " cannot store ", what));
}

struct WeightLayout {
  const QuantizationArgs& args;
  Format format;
  int64_t rows, columns;
  Shape scale_shape;
  DType scale_dtype;
};

using Specs = std::vector<StoredTensorSpec>;

absl::StatusOr<Specs> PackedTensors(const WeightLayout& w) {
  if (w.args.type != NumberType::kInt || w.args.num_bits > 8 ||
      w.args.strategy == Strategy::kTensorGroup) {
    return CannotHold(w.format, "these weights: expected int of 1 to 8 bits");
  }
  const int64_t bits = w.args.num_bits;
  Specs specs = {{"weight_packed", DType::kI32, {w.rows, CeilDiv(w.columns * bits, 32)}},
                 {"weight_scale", w.scale_dtype, w.scale_shape},
                 {"weight_shape", DType::kI64, {2}}};
  if (w.args.symmetric) return specs;
  if (w.args.strategy == Strategy::kGroup || w.args.strategy == Strategy::kChannel) {
    const Shape packed = {CeilDiv(w.rows * bits, 32), w.scale_shape[1]};
    specs.push_back({"weight_zero_point", DType::kI32, packed});
  } else {
    specs.push_back({"weight_zero_point", DType::kI8, w.scale_shape});
  }
  return specs;
}

DType ElementDType(const QuantizationArgs& args) {
  if (args.type == NumberType::kFloat) return DType::kF8E4M3;
  return args.num_bits <= 8 ? DType::kI8 : DType::kI16;
}

absl::StatusOr<Specs> PlainTensors(const WeightLayout& w) {
  const bool is_int = w.args.type == NumberType::kInt;
  if ((!is_int && w.args.num_bits != 8) || (is_int && w.format == Format::kFloatQuantized) ||
      (!is_int && w.format == Format::kIntQuantized) || w.args.strategy == Strategy::kTensorGroup) {
    return CannotHold(
        w.format, absl::StrCat(w.args.num_bits, "-bit ", NumberTypeName(w.args.type), " weights"));
  }
  Specs specs = {{"weight", ElementDType(w.args), {w.rows, w.columns}},
                 {"weight_scale", w.scale_dtype, w.scale_shape}};
  if (!w.args.symmetric) {
    specs.push_back(
        {"weight_zero_point", w.args.zp_dtype.value_or(ElementDType(w.args)), w.scale_shape});
  }
  return specs;
}

absl::StatusOr<Specs> Nvfp4Tensors(const WeightLayout& w) {
  if (w.args.type != NumberType::kFloat || w.args.num_bits != 4 || w.columns % 2 != 0 ||
      w.args.strategy != Strategy::kTensorGroup) {
    return CannotHold(w.format, "these weights: expected fp4 with strategy tensor_group");
  }
  return Specs{{"weight_packed", DType::kU8, {w.rows, w.columns / 2}},
               {"weight_scale", DType::kF8E4M3, w.scale_shape},
               {"weight_global_scale", DType::kF32, {1}}};
}

absl::StatusOr<Specs> MicroscaledTensors(const WeightLayout& w) {
  const int bits = w.format == Format::kMxfp4PackQuantized ? 4 : 8;
  if (w.args.type != NumberType::kFloat || w.args.num_bits != bits ||
      w.args.strategy != Strategy::kGroup || !w.args.symmetric) {
    return CannotHold(w.format, absl::StrCat("these weights: expected symmetric fp", bits,
                                             " with strategy group"));
  }
  const StoredTensorSpec scale = {"weight_scale", DType::kU8, w.scale_shape};
  if (bits == 8) return Specs{{"weight", DType::kF8E4M3, {w.rows, w.columns}}, scale};
  if (w.columns % 2 != 0) return CannotHold(w.format, "an odd number of columns");
  return Specs{{"weight_packed", DType::kU8, {w.rows, w.columns / 2}}, scale};
}

absl::StatusOr<Specs> WeightTensors(const WeightLayout& w) {
  switch (w.format) {
    case Format::kPackQuantized:
      return PackedTensors(w);
    case Format::kIntQuantized:
    case Format::kFloatQuantized:
    case Format::kNaiveQuantized:
      return PlainTensors(w);
    case Format::kNvfp4PackQuantized:
      return Nvfp4Tensors(w);
    case Format::kMxfp4PackQuantized:
    case Format::kMxfp8Quantized:
      return MicroscaledTensors(w);
    case Format::kDense:
      break;
  }
  return CannotHold(w.format, "quantised weights");
}

// Scales of activations that are calibrated; dynamic ones store nothing.
absl::Status AddActivationTensors(absl::string_view prefix, const QuantizationArgs& args,
                                  int64_t features, DType scale_dtype, Specs& specs) {
  if (args.dynamic == Dynamic::kTrue) return absl::OkStatus();
  const auto name = [&](absl::string_view suffix) { return absl::StrCat(prefix, suffix); };
  if (args.strategy == Strategy::kTensorGroup) {
    specs.push_back({name("_global_scale"), DType::kF32, {1}});
  }
  if (args.dynamic == Dynamic::kLocal) return absl::OkStatus();
  Shape shape = {1};
  if (args.strategy == Strategy::kGroup || args.strategy == Strategy::kTensorGroup) {
    LLMC_ASSIGN_OR_RETURN(shape[0], NumGroups(args, features));
  } else if (args.strategy != Strategy::kTensor) {
    return absl::InvalidArgumentError(absl::StrCat(prefix, " activations: strategy ",
                                                   StrategyName(args.strategy),
                                                   " cannot be static on a Linear"));
  }
  specs.push_back({name("_scale"), scale_dtype, shape});
  if (!args.symmetric) {
    specs.push_back({name("_zero_point"), args.zp_dtype.value_or(ElementDType(args)), shape});
  }
  return absl::OkStatus();
}

}  // namespace

Format InferFormat(const Scheme& scheme) {
  if (!scheme.weights) return Format::kDense;
  const QuantizationArgs& weights = *scheme.weights;
  const int64_t group_size = weights.group_size.value_or(0);
  if (weights.type == NumberType::kInt) {
    const bool float_inputs =
        scheme.input_activations && scheme.input_activations->type == NumberType::kFloat;
    if (float_inputs && weights.num_bits < 8) return Format::kPackQuantized;
    if (scheme.input_activations) return Format::kIntQuantized;
    return weights.num_bits <= 8 ? Format::kPackQuantized : Format::kNaiveQuantized;
  }
  if (weights.num_bits == 4 && group_size == 32) return Format::kMxfp4PackQuantized;
  if (weights.num_bits == 8 && group_size == 32 && weights.scale_dtype == DType::kU8) {
    return Format::kMxfp8Quantized;
  }
  if (weights.num_bits == 4 && group_size == 16) return Format::kNvfp4PackQuantized;
  return scheme.input_activations ? Format::kFloatQuantized : Format::kNaiveQuantized;
}

absl::StatusOr<Shape> WeightScaleShape(const QuantizationArgs& weights, const Shape& weight_shape) {
  LLMC_RETURN_IF_ERROR(CheckShape(weight_shape));
  const int64_t rows = weight_shape[0], columns = weight_shape[1];
  switch (weights.strategy) {
    case Strategy::kTensor:
      return Shape{1};
    case Strategy::kChannel:
      return Shape{rows, 1};
    case Strategy::kGroup:
    case Strategy::kTensorGroup: {
      LLMC_ASSIGN_OR_RETURN(const int64_t groups, NumGroups(weights, columns));
      return Shape{rows, groups};
    }
    case Strategy::kBlock: {
      if (!weights.block_structure) break;
      const auto [height, width] = *weights.block_structure;
      if (height < 1 || width < 1) break;
      return Shape{CeilDiv(rows, height), CeilDiv(columns, width)};
    }
    case Strategy::kToken:
    case Strategy::kAttnHead:
      break;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("strategy ", StrategyName(weights.strategy), " gives weights no scales"));
}

absl::StatusOr<Specs> StoredTensors(const Scheme& scheme, const Shape& weight_shape,
                                    DType model_dtype) {
  LLMC_RETURN_IF_ERROR(CheckShape(weight_shape));
  const DType scale_dtype = IsDenseFloat(model_dtype) ? model_dtype : DType::kF16;
  Specs specs = {{"weight", model_dtype, weight_shape}};
  if (scheme.weights) {
    LLMC_ASSIGN_OR_RETURN(Shape scale_shape, WeightScaleShape(*scheme.weights, weight_shape));
    LLMC_ASSIGN_OR_RETURN(
        specs, WeightTensors({*scheme.weights, scheme.format, weight_shape[0], weight_shape[1],
                              std::move(scale_shape), scale_dtype}));
  }
  if (scheme.input_activations) {
    LLMC_RETURN_IF_ERROR(AddActivationTensors("input", *scheme.input_activations, weight_shape[1],
                                              scale_dtype, specs));
  }
  if (scheme.output_activations) {
    LLMC_RETURN_IF_ERROR(AddActivationTensors("output", *scheme.output_activations, weight_shape[0],
                                              scale_dtype, specs));
  }
  return specs;
}

absl::StatusOr<Specs> StoredKvCacheTensors(const QuantizationArgs& args,
                                           const AttentionShape& attention, DType model_dtype) {
  const bool per_head = args.strategy == Strategy::kAttnHead;
  if (per_head && attention.num_key_value_heads < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "num_key_value_heads ", attention.num_key_value_heads, ", expected at least 1"));
  }
  if (!per_head && args.strategy != Strategy::kTensor) {
    return absl::InvalidArgumentError(absl::StrCat("kv_cache_scheme: strategy ",
                                                   StrategyName(args.strategy),
                                                   ", expected tensor or attn_head"));
  }
  std::vector<std::pair<std::string, int64_t>> states = {{"k", attention.num_key_value_heads},
                                                         {"v", attention.num_key_value_heads}};
  if (attention.has_query) states.insert(states.begin(), {"q", attention.num_attention_heads});
  const DType scale_dtype = IsDenseFloat(model_dtype) ? model_dtype : DType::kF16;
  Specs specs;
  for (const auto& [state, num_heads] : states) {
    const Shape shape = per_head ? Shape{num_heads, 1, 1} : Shape{1};
    specs.push_back({absl::StrCat(state, "_scale"), scale_dtype, shape});
    if (!args.symmetric) {
      specs.push_back(
          {absl::StrCat(state, "_zero_point"), args.zp_dtype.value_or(ElementDType(args)), shape});
    }
  }
  return specs;
}

}  // namespace llmc
