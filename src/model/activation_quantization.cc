#include "model/activation_quantization.h"

#include <tuple>
#include <utility>

#include "ATen/TensorOperators.h"
#include "ATen/ops/frexp.h"
#include "ATen/ops/ldexp.h"
#include "ATen/ops/maximum.h"
#include "ATen/ops/ones_like.h"
#include "ATen/ops/where.h"
#include "absl/strings/str_cat.h"
#include "c10/util/Exception.h"
#include "model/torch_tensor.h"

namespace llmc {
namespace {

// What replaces a scale of zero: the reference's eps of the dtype.
double ScaleOfZeros(at::ScalarType type) {
  if (type == at::kBFloat16) return 0x1p-7;
  if (type == at::kHalf) return 0x1p-10;
  return 0x1p-23;
}

bool IsFp4(const QuantizationArgs& args) {
  return args.type == NumberType::kFloat && args.num_bits == 4;
}

bool IsMx(const QuantizationArgs& args) { return args.scale_dtype == DType::kU8; }

// Nearest of 0, 0.5, 1, 1.5, 2, 3, 4, 6; ties go to the even code.
at::Tensor RoundToFp4(const at::Tensor& t) {
  const at::Tensor a = t.abs();
  const auto step = [&](const at::Tensor& passed, double height) {
    return passed.to(t.scalar_type()) * height;
  };
  const at::Tensor magnitude = step(a > 0.25, 0.5) + step(a >= 0.75, 0.5) + step(a > 1.25, 0.5) +
                               step(a >= 1.75, 0.5) + step(a > 2.5, 1.0) + step(a >= 3.5, 1.0) +
                               step(a > 5.0, 2.0);
  return magnitude * t.sign();
}

at::Tensor RoundToGrid(const at::Tensor& t, const QuantizationArgs& args) {
  const QuantizedRange range = RangeOf(args);
  const at::Tensor clamped = t.clamp(range.min, range.max);
  if (args.type == NumberType::kInt) return clamped.round();
  if (IsFp4(args)) return RoundToFp4(clamped);
  return clamped.to(at::kFloat8_e4m3fn).to(t.scalar_type());
}

struct Extremes {
  at::Tensor min;  // <= 0
  at::Tensor max;  // >= 0
  at::Tensor largest() const { return at::maximum(min.neg(), max); }
};

// Over the elements that share one scale; `x` has groups as its last dimension.
Extremes ExtremesOf(const at::Tensor& x, Strategy strategy) {
  if (strategy == Strategy::kTensor) return {x.min().clamp_max(0), x.max().clamp_min(0)};
  return {x.amin({-1}, true).clamp_max(0), x.amax({-1}, true).clamp_min(0)};
}

// 2^e with e from the OCP microscaling rule; never zero. Subnormal maxima become
// the smallest normal number or zero first, as the reference's bit trick has it.
at::Tensor MxScale(const at::Tensor& maxima, const QuantizationArgs& args) {
  const at::ScalarType type = maxima.scalar_type();
  const double tiny = type == at::kHalf ? 0x1p-14 : 0x1p-126;
  at::Tensor largest = maxima.to(at::kFloat);
  largest = largest.masked_fill((largest < tiny).logical_and(largest >= 0.75 * tiny), tiny);
  largest = largest.masked_fill(largest < tiny, 0.0);
  // frexp gives m in [0.5, 1): the number is 2m * 2^(exponent - 1).
  const auto [mantissa, exponent] = at::frexp(largest);
  const int offset = IsFp4(args) ? 2 : 8;
  const at::Tensor e = exponent - 1 + (mantissa >= 0.875).to(at::kInt);
  const at::Tensor byte = (e + (127 - offset)).clamp(0, 255).masked_fill(largest == 0, 0);
  const at::Tensor scale = at::ldexp(at::ones_like(largest, at::kDouble), byte - 127).to(type);
  return scale.masked_fill(scale == 0, 1.0);
}

struct Grid {
  at::Tensor scale;
  at::Tensor zero_point;  // Undefined: 0.
};

Grid SymmetricGrid(const Extremes& extremes, const QuantizationArgs& args) {
  const at::Tensor largest = extremes.largest();
  if (IsMx(args)) return {MxScale(largest, args), {}};
  const QuantizedRange range = RangeOf(args);
  const at::Tensor scale = largest / ((range.max - range.min) / 2.0);
  const double guard = ScaleOfZeros(largest.scalar_type());
  return {at::where(scale == 0, at::Scalar(guard), scale).to(largest.scalar_type()), {}};
}

Grid AsymmetricGrid(const Extremes& extremes, const QuantizationArgs& args) {
  const QuantizedRange range = RangeOf(args);
  const at::ScalarType type = extremes.max.scalar_type();
  const at::Tensor scale = (extremes.max - extremes.min) / (range.max - range.min);
  at::Tensor zero_point = (-(extremes.min / scale) + range.min).clamp(range.min, range.max);
  zero_point = args.type == NumberType::kInt ? zero_point.round()
                                             : zero_point.to(at::kFloat8_e4m3fn).to(type);
  zero_point = at::where(zero_point.isnan(), at::Scalar(0.0), zero_point).to(type);
  const double guard = ScaleOfZeros(type);
  return {at::where(scale == 0, at::Scalar(guard), scale).to(type), zero_point};
}

at::Tensor QuantizeDequantize(const at::Tensor& x, const Grid& grid, const QuantizationArgs& args) {
  at::Tensor t = x / grid.scale;
  if (grid.zero_point.defined()) t = t + grid.zero_point;
  at::Tensor code = RoundToGrid(t, args);
  if (grid.zero_point.defined()) code = code - grid.zero_point;
  return code * grid.scale;
}

// NVFP4: group scales are E4M3 numbers under a calibrated global divisor; all in
// float32.
at::Tensor LocalFp4(const at::Tensor& x, const QuantizationArgs& args,
                    const at::Tensor& global_scale) {
  const at::Tensor local = ExtremesOf(x, Strategy::kTensorGroup).largest() / 6.0;
  at::Tensor stored = (local.to(at::kFloat) * global_scale).clamp(-448.0, 448.0);
  stored = stored.to(at::kFloat8_e4m3fn).to(at::kFloat);
  stored = at::where(stored == 0, at::Scalar(0.125), stored).to(at::kFloat);
  const Grid grid{stored / global_scale, {}};
  return QuantizeDequantize(x.to(at::kFloat), grid, args).to(x.scalar_type());
}

at::Tensor Dynamically(const at::Tensor& x, const QuantizationArgs& args) {
  const Extremes extremes = ExtremesOf(x, args.strategy);
  const Grid grid = args.symmetric ? SymmetricGrid(extremes, args) : AsymmetricGrid(extremes, args);
  return QuantizeDequantize(x, grid, args);
}

at::Tensor Statically(const at::Tensor& x, const QuantizationArgs& args,
                      const ActivationScale& stored) {
  Grid grid{stored.scale.to(x.device(), x.scalar_type()), {}};
  if (stored.zero_point.defined()) {
    grid.zero_point = stored.zero_point.to(x.device(), x.scalar_type());
  }
  return QuantizeDequantize(x, grid, args);
}

// `x` with groups as its last dimension.
absl::StatusOr<at::Tensor> SplitGroups(const at::Tensor& x, const QuantizationArgs& args) {
  const int64_t group_size = args.group_size.value_or(0);
  if (group_size <= 0 || x.size(-1) % group_size != 0) {
    return absl::InvalidArgumentError(absl::StrCat("activations: group_size ", group_size,
                                                   ", expected a divisor of ", x.size(-1)));
  }
  return x.unflatten(-1, {-1, group_size});
}

absl::Status MissingScale(absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat("activations: static without a stored ", what, ", expected one"));
}

}  // namespace

absl::StatusOr<at::Tensor> FakeQuantize(const at::Tensor& x, const QuantizationArgs& args,
                                        const ActivationScale& stored) {
  if (args.dynamic == Dynamic::kFalse) {
    if (!stored.scale.defined()) return MissingScale("scale");
    return Statically(x, args, stored);
  }
  const bool grouped = args.strategy == Strategy::kGroup || args.strategy == Strategy::kTensorGroup;
  if (!grouped) return Dynamically(x, args);
  LLMC_ASSIGN_OR_RETURN(const at::Tensor groups, SplitGroups(x, args));
  if (args.dynamic == Dynamic::kTrue) return Dynamically(groups, args).flatten(-2);
  if (!stored.global_scale.defined()) return MissingScale("global scale");
  return LocalFp4(groups, args, stored.global_scale.to(x.device(), at::kFloat)).flatten(-2);
}

namespace {

// Reads "<module>.<part>_scale" and its companions, as far as `args` needs them.
class ScaleReader {
 public:
  explicit ScaleReader(const WeightSource& source) : checkpoint_(source.checkpoint()) {}

  absl::StatusOr<ActivationScale> Read(const std::string& prefix, const QuantizationArgs& args) {
    ActivationScale scale;
    if (args.dynamic == Dynamic::kTrue) return scale;
    if (args.dynamic == Dynamic::kLocal) {
      LLMC_ASSIGN_OR_RETURN(scale.global_scale, Required(prefix + "_global_scale"));
      return scale;
    }
    LLMC_ASSIGN_OR_RETURN(scale.scale, Required(prefix + "_scale"));
    if (!args.symmetric) {
      LLMC_ASSIGN_OR_RETURN(scale.zero_point, Required(prefix + "_zero_point"));
    }
    return scale;
  }

 private:
  absl::StatusOr<at::Tensor> Required(const std::string& name) {
    if (!checkpoint_.Contains(name)) {
      return absl::DataLossError(name + ": missing, expected the scale of a static activation");
    }
    LLMC_ASSIGN_OR_RETURN(HostTensor tensor, checkpoint_.Read(name));
    if (tensor.num_elements() < 1) return absl::DataLossError(name + ": empty");
    return ToTorch(std::move(tensor));
  }

  const Checkpoint& checkpoint_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ActivationQuantizer>> ActivationQuantizer::Open(
    const std::shared_ptr<const WeightSource>& source) {
  auto quantizer = std::make_unique<ActivationQuantizer>();
  ScaleReader reader(*source);
  for (const ModuleSpec& module : Modules(source->spec())) {
    const Scheme* scheme = source->SchemeOf(module.name);
    if (scheme == nullptr || !module.is_linear()) continue;
    if (scheme->input_activations) {
      Quantised& input = quantizer->inputs_[module.name];
      input.args = *scheme->input_activations;
      LLMC_ASSIGN_OR_RETURN(input.stored, reader.Read(module.name + ".input", input.args));
    }
    if (scheme->output_activations) {
      Quantised& output = quantizer->outputs_[module.name];
      output.args = *scheme->output_activations;
      LLMC_ASSIGN_OR_RETURN(output.stored, reader.Read(module.name + ".output", output.args));
    }
  }
  if (source->quantization() && source->quantization()->kv_cache_scheme()) {
    const QuantizationArgs& args = *source->quantization()->kv_cache_scheme();
    for (int64_t layer = 0; layer < source->spec().num_hidden_layers; ++layer) {
      const std::string attention = source->spec().LayerName(layer) + ".self_attn";
      Quantised& key = quantizer->keys_[attention];
      Quantised& value = quantizer->values_[attention];
      key.args = value.args = args;
      LLMC_ASSIGN_OR_RETURN(key.stored, reader.Read(attention + ".k", args));
      LLMC_ASSIGN_OR_RETURN(value.stored, reader.Read(attention + ".v", args));
    }
  }
  if (quantizer->inputs_.empty() && quantizer->outputs_.empty() && quantizer->keys_.empty()) {
    return std::unique_ptr<ActivationQuantizer>();
  }
  return quantizer;
}

at::Tensor ActivationQuantizer::Apply(const ByName& all, const std::string& name,
                                      const at::Tensor& x) {
  const auto it = all.find(name);
  if (it == all.end()) return x;
  absl::StatusOr<at::Tensor> quantised = FakeQuantize(x, it->second.args, it->second.stored);
  TORCH_CHECK(quantised.ok(), name, ": ", std::string(quantised.status().message()));
  return *std::move(quantised);
}

at::Tensor ActivationQuantizer::ReplaceInput(const std::string& linear, const at::Tensor& x) {
  return Apply(inputs_, linear, x);
}

at::Tensor ActivationQuantizer::ReplaceOutput(const std::string& linear, const at::Tensor& y) {
  return Apply(outputs_, linear, y);
}

void ActivationQuantizer::Attention(const std::string& attention, AttentionStates& states) {
  states.key = Apply(keys_, attention, states.key);
  states.value = Apply(values_, attention, states.value);
}

}  // namespace llmc
