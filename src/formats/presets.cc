#include "formats/presets.h"

#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "formats/names.h"
#include "formats/stored_tensors.h"

namespace llmc {
namespace {

QuantizationArgs IntGroup(int num_bits) {
  QuantizationArgs args;
  args.num_bits = num_bits;
  args.strategy = Strategy::kGroup;
  args.group_size = 128;
  return args;
}

QuantizationArgs DynamicToken(NumberType type, int num_bits) {
  QuantizationArgs args;
  args.num_bits = num_bits;
  args.type = type;
  args.strategy = Strategy::kToken;
  args.dynamic = Dynamic::kTrue;
  return args;
}

QuantizationArgs Float8(Strategy strategy) {
  QuantizationArgs args;
  args.type = NumberType::kFloat;
  args.strategy = strategy;
  return args;
}

// OCP microscaling: groups of 32 under one exponent byte.
QuantizationArgs Microscaled(int num_bits) {
  QuantizationArgs args = Float8(Strategy::kGroup);
  args.num_bits = num_bits;
  args.group_size = 32;
  args.scale_dtype = DType::kU8;
  return args;
}

QuantizationArgs Nvfp4() {
  QuantizationArgs args = Float8(Strategy::kTensorGroup);
  args.num_bits = 4;
  args.group_size = 16;
  args.scale_dtype = DType::kF8E4M3;
  return args;
}

QuantizationArgs With(QuantizationArgs args, Dynamic dynamic) {
  args.dynamic = dynamic;
  return args;
}

QuantizationArgs Observed(QuantizationArgs args) {
  args.observer = "static_minmax";
  return args;
}

Scheme Of(QuantizationArgs weights, std::optional<QuantizationArgs> inputs = std::nullopt) {
  Scheme scheme;
  scheme.weights = std::move(weights);
  scheme.input_activations = std::move(inputs);
  scheme.format = InferFormat(scheme);
  return scheme;
}

void AddIntPresets(std::map<std::string, Scheme>& presets) {
  for (int bits = 2; bits <= 8; ++bits) {
    presets[absl::StrCat("W", bits, "A16")] = Of(IntGroup(bits));
    if (bits < 8) {
      presets[absl::StrCat("W", bits, "A8")] =
          Of(IntGroup(bits), DynamicToken(NumberType::kInt, 8));
    }
    if (bits <= 4) {
      presets[absl::StrCat("W", bits, "A4")] =
          Of(IntGroup(bits), DynamicToken(NumberType::kInt, 4));
    }
  }
  QuantizationArgs asymmetric = IntGroup(4);
  asymmetric.symmetric = false;
  asymmetric.zp_dtype = DType::kI8;
  presets["W4A16_ASYM"] = Of(asymmetric);
  presets["W4AFP8"] = Of(IntGroup(4), DynamicToken(NumberType::kFloat, 8));
  QuantizationArgs channel;
  channel.strategy = Strategy::kChannel;
  presets["W8A8"] = presets["INT8"] = Of(channel, DynamicToken(NumberType::kInt, 8));
}

void AddFloatPresets(std::map<std::string, Scheme>& presets) {
  presets["FP8"] = Of(Float8(Strategy::kTensor), Observed(Float8(Strategy::kTensor)));
  presets["FP8_DYNAMIC"] = Of(Float8(Strategy::kChannel), DynamicToken(NumberType::kFloat, 8));
  QuantizationArgs block = Float8(Strategy::kBlock);
  block.block_structure = {128, 128};
  QuantizationArgs block_inputs = With(Float8(Strategy::kGroup), Dynamic::kTrue);
  block_inputs.group_size = 128;
  presets["FP8_BLOCK"] = Of(block, block_inputs);
  presets["NVFP4A16"] = Of(Nvfp4());
  presets["NVFP4"] = Of(Nvfp4(), Observed(With(Nvfp4(), Dynamic::kLocal)));
  presets["MXFP4A16"] = Of(Microscaled(4));
  presets["MXFP4"] = Of(Microscaled(4), With(Microscaled(4), Dynamic::kTrue));
  presets["MXFP8A16"] = Of(Microscaled(8));
  presets["MXFP8"] = Of(Microscaled(8), With(Microscaled(8), Dynamic::kTrue));
}

const std::map<std::string, Scheme>& Presets() {
  static const auto* presets = [] {
    auto* all = new std::map<std::string, Scheme>{{"UNQUANTIZED", Scheme()}};
    AddIntPresets(*all);
    AddFloatPresets(*all);
    return all;
  }();
  return *presets;
}

}  // namespace

const std::vector<std::string>& PresetNames() {
  static const auto* names = [] {
    auto* all = new std::vector<std::string>;
    for (const auto& [name, scheme] : Presets()) all->push_back(name);
    return all;
  }();
  return *names;
}

bool IsPresetName(absl::string_view name) {
  return Presets().count(absl::AsciiStrToUpper(name)) > 0;
}

absl::StatusOr<Scheme> PresetScheme(absl::string_view name) {
  const auto it = Presets().find(absl::AsciiStrToUpper(name));
  if (it != Presets().end()) return it->second;
  const std::string hint = DidYouMean(name, PresetNames());
  return absl::InvalidArgumentError(
      absl::StrCat("'", name.substr(0, 80), "': unknown scheme",
                   hint.empty() ? ", expected a preset such as W4A16, W8A8 or FP8_DYNAMIC" : hint));
}

}  // namespace llmc
