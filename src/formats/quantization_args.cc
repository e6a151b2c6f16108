#include "formats/quantization_args.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "formats/names.h"

namespace llmc {
namespace {

using Json = nlohmann::json;

absl::Status Bad(absl::string_view key, const Json& value, absl::string_view expected) {
  return absl::InvalidArgumentError(absl::StrCat(
      key, ": ", value.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 80),
      ", expected ", expected));
}

// The value of `key`, null when absent or null.
const Json* Find(const Json& json, absl::string_view key) {
  const auto it = json.find(std::string(key));
  return it == json.end() || it->is_null() ? nullptr : &*it;
}

// Integral numbers, also when written 8.0 or "8", as the reference's parser reads them.
absl::StatusOr<int64_t> ReadInt(absl::string_view key, const Json& value) {
  if (value.is_number_integer()) {
    if (value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{INT64_MAX}) {
      return Bad(key, value, "a smaller integer");
    }
    return value.get<int64_t>();
  }
  if (value.is_number_float()) {
    const double number = value.get<double>();
    if (number == std::floor(number) && std::abs(number) < 1e15)
      return static_cast<int64_t>(number);
  }
  int64_t number = 0;
  if (value.is_string() && absl::SimpleAtoi(value.get<std::string>(), &number)) return number;
  return Bad(key, value, "an integer");
}

absl::StatusOr<std::string> ReadName(absl::string_view key, const Json& value) {
  if (!value.is_string()) return Bad(key, value, "a name");
  return value.get<std::string>();
}

absl::Status ReadNumBits(const Json& value, QuantizationArgs& args) {
  LLMC_ASSIGN_OR_RETURN(const int64_t bits, ReadInt("num_bits", value));
  if (bits < 1 || bits > 16) return Bad("num_bits", value, "1 to 16");
  args.num_bits = static_cast<int>(bits);
  return absl::OkStatus();
}

absl::Status ReadType(const Json& value, QuantizationArgs& args) {
  LLMC_ASSIGN_OR_RETURN(const std::string name, ReadName("type", value));
  absl::StatusOr<NumberType> type = NumberTypeFromName(name);
  if (!type.ok()) return At("type", type.status());
  args.type = *type;
  return absl::OkStatus();
}

absl::Status ReadSymmetric(const Json& value, QuantizationArgs& args) {
  if (!value.is_boolean()) return Bad("symmetric", value, "true or false");
  args.symmetric = value.get<bool>();
  return absl::OkStatus();
}

absl::Status ReadGroupSize(const Json& value, QuantizationArgs& args) {
  LLMC_ASSIGN_OR_RETURN(const int64_t size, ReadInt("group_size", value));
  if (size < -1 || size == 0 || size > (int64_t{1} << 31)) {
    return Bad("group_size", value,
               "a positive number of columns, or -1 for one scale per channel");
  }
  args.group_size = size;
  return absl::OkStatus();
}

absl::Status ReadBlockStructure(const Json& value, QuantizationArgs& args) {
  constexpr absl::string_view kExpected = "two positive integers [rows, columns]";
  Json list = value;
  if (value.is_string()) {
    list = Json::array();
    for (absl::string_view part : absl::StrSplit(value.get<std::string>(), 'x')) {
      int64_t number = 0;
      if (!absl::SimpleAtoi(part, &number)) return Bad("block_structure", value, kExpected);
      list.push_back(number);
    }
  }
  if (!list.is_array() || list.size() != 2) return Bad("block_structure", value, kExpected);
  std::array<int64_t, 2> block;
  for (int i = 0; i < 2; ++i) {
    if (!list[i].is_number_integer()) return Bad("block_structure", value, kExpected);
    LLMC_ASSIGN_OR_RETURN(block[i], ReadInt("block_structure", list[i]));
    if (block[i] < 1 || block[i] > (int64_t{1} << 31)) {
      return Bad("block_structure", value, kExpected);
    }
  }
  args.block_structure = block;
  return absl::OkStatus();
}

absl::Status ReadDynamic(const Json& value, QuantizationArgs& args) {
  if (value.is_boolean()) {
    args.dynamic = value.get<bool>() ? Dynamic::kTrue : Dynamic::kFalse;
    return absl::OkStatus();
  }
  std::string name = value.is_string() ? value.get<std::string>() : "";
  std::transform(name.begin(), name.end(), name.begin(), ::tolower);
  if (name != "local") return Bad("dynamic", value, "true, false or local");
  args.dynamic = Dynamic::kLocal;
  return absl::OkStatus();
}

absl::Status ReadActOrder(const Json& value, QuantizationArgs& args) {
  if (value.is_boolean()) {
    if (!value.get<bool>()) return absl::OkStatus();
    return Bad("actorder", value, "weight, static or null (true meant group, which was removed)");
  }
  LLMC_ASSIGN_OR_RETURN(const std::string name, ReadName("actorder", value));
  absl::StatusOr<ActOrder> actorder = ActOrderFromName(name);
  if (!actorder.ok()) return At("actorder", actorder.status());
  args.actorder = *actorder;
  return absl::OkStatus();
}

absl::Status ReadDType(absl::string_view key, const Json& value, std::optional<DType>& dtype) {
  LLMC_ASSIGN_OR_RETURN(const std::string name, ReadName(key, value));
  absl::StatusOr<DType> read = DTypeFromTorch(name);
  if (!read.ok()) return At(key, read.status());
  dtype = *read;
  return absl::OkStatus();
}

absl::Status ReadObserver(const Json& value, QuantizationArgs& args) {
  LLMC_ASSIGN_OR_RETURN(args.observer, ReadName("observer", value));
  return absl::OkStatus();
}

absl::Status ReadObserverKwargs(const Json& value, QuantizationArgs& args) {
  if (!value.is_object()) return Bad("observer_kwargs", value, "a mapping of names to numbers");
  for (const auto& [key, number] : value.items()) {
    if (!number.is_number() || !std::isfinite(number.get<double>())) {
      return Bad(absl::StrCat("observer_kwargs.", key), number, "a number");
    }
    args.observer_kwargs[key] = number.get<double>();
  }
  return absl::OkStatus();
}

absl::Status CheckKeys(const Json& json) {
  if (!json.is_object()) return Bad("quantisation entry", json, "a mapping");
  const std::vector<std::string>& known = QuantizationArgsKeys();
  for (const auto& [key, value] : json.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    return absl::InvalidArgumentError(absl::StrCat(key.substr(0, 80), ": unknown key",
                                                   DidYouMean(key, known),
                                                   " Known: ", absl::StrJoin(known, ", ")));
  }
  return absl::OkStatus();
}

using FieldReader = absl::Status (*)(const Json&, QuantizationArgs&);

absl::Status ReadFields(const Json& json, QuantizationArgs& args) {
  static constexpr std::pair<absl::string_view, FieldReader> kReaders[] = {
      {"num_bits", ReadNumBits},
      {"type", ReadType},
      {"symmetric", ReadSymmetric},
      {"group_size", ReadGroupSize},
      {"block_structure", ReadBlockStructure},
      {"dynamic", ReadDynamic},
      {"actorder", ReadActOrder},
      {"observer", ReadObserver},
      {"observer_kwargs", ReadObserverKwargs},
  };
  for (const auto& [key, read] : kReaders) {
    if (const Json* value = Find(json, key)) LLMC_RETURN_IF_ERROR(read(*value, args));
  }
  if (const Json* value = Find(json, "scale_dtype")) {
    LLMC_RETURN_IF_ERROR(ReadDType("scale_dtype", *value, args.scale_dtype));
  }
  if (const Json* value = Find(json, "zp_dtype")) {
    LLMC_RETURN_IF_ERROR(ReadDType("zp_dtype", *value, args.zp_dtype));
  }
  return absl::OkStatus();
}

absl::Status ReadStrategy(const Json& json, QuantizationArgs& args) {
  const Json* value = Find(json, "strategy");
  if (value == nullptr) {
    args.strategy = !args.group_size       ? Strategy::kTensor
                    : *args.group_size > 0 ? Strategy::kGroup
                                           : Strategy::kChannel;
    return absl::OkStatus();
  }
  LLMC_ASSIGN_OR_RETURN(const std::string name, ReadName("strategy", *value));
  absl::StatusOr<Strategy> strategy = StrategyFromName(name);
  if (!strategy.ok()) return At("strategy", strategy.status());
  args.strategy = *strategy;
  return absl::OkStatus();
}

DType DefaultZeroPointDType(const QuantizationArgs& args) {
  if (args.type == NumberType::kFloat) return DType::kF8E4M3;
  return args.num_bits <= 8 ? DType::kI8 : DType::kI16;
}

bool IsGrouped(Strategy strategy) {
  return strategy == Strategy::kGroup || strategy == Strategy::kTensorGroup;
}

absl::Status Wrong(absl::string_view what, absl::string_view expected) {
  return absl::InvalidArgumentError(absl::StrCat(what, ", expected ", expected));
}

absl::Status ValidateWeights(const QuantizationArgs& args) {
  if (args.dynamic != Dynamic::kFalse) {
    return Wrong("dynamic: weights cannot be quantised at run time", "false");
  }
  if (args.strategy == Strategy::kToken || args.strategy == Strategy::kAttnHead) {
    return Wrong(absl::StrCat("strategy: ", StrategyName(args.strategy), " for weights"),
                 "tensor, channel, group, tensor_group or block");
  }
  if (args.type == NumberType::kInt && (args.num_bits < 2 || args.num_bits > 8)) {
    return Wrong(absl::StrCat("num_bits: ", args.num_bits, " for int weights"), "2 to 8");
  }
  const bool is_fp4 = args.type == NumberType::kFloat && args.num_bits == 4;
  if (!is_fp4) return absl::OkStatus();
  if (!args.symmetric) return Wrong("symmetric: false for 4-bit float weights", "true");
  const int64_t group_size = args.group_size.value_or(0);
  const bool is_nvfp4 = args.strategy == Strategy::kTensorGroup && group_size == 16;
  const bool is_mxfp4 = args.strategy == Strategy::kGroup && group_size == 32;
  if (is_nvfp4 || is_mxfp4) return absl::OkStatus();
  return Wrong(absl::StrCat("strategy: ", StrategyName(args.strategy), " with group_size ",
                            group_size, " for 4-bit float weights"),
               "tensor_group 16 (NVFP4) or group 32 (MXFP4): no format stores others");
}

absl::Status ValidateActivations(const QuantizationArgs& args, ArgsRole role) {
  if (args.actorder) {
    return Wrong(absl::StrCat("actorder: set for ", ArgsRoleName(role)), "it under weights only");
  }
  if (args.strategy == Strategy::kChannel || args.strategy == Strategy::kBlock) {
    return Wrong(
        absl::StrCat("strategy: ", StrategyName(args.strategy), " for ", ArgsRoleName(role)),
        "tensor, token, group, tensor_group or attn_head");
  }
  if (args.type == NumberType::kInt && args.num_bits > 8) {
    return Wrong(absl::StrCat("num_bits: ", args.num_bits, " for int activations"), "at most 8");
  }
  return absl::OkStatus();
}

absl::Status ValidateKvCache(const QuantizationArgs& args) {
  if (args.strategy != Strategy::kTensor && args.strategy != Strategy::kAttnHead) {
    return Wrong(absl::StrCat("strategy: ", StrategyName(args.strategy), " for kv_cache_scheme"),
                 "tensor or attn_head");
  }
  if (args.dynamic != Dynamic::kFalse) {
    return Wrong("dynamic: set for kv_cache_scheme", "false: scales are stored");
  }
  if (args.num_bits != 8) {
    return Wrong(absl::StrCat("num_bits: ", args.num_bits, " for kv_cache_scheme"), "8");
  }
  return absl::OkStatus();
}

Json DTypeJson(const std::optional<DType>& dtype) {
  return dtype ? Json(std::string(TorchName(*dtype))) : Json();
}

Json KwargsJson(const std::map<std::string, double>& kwargs) {
  Json json = Json::object();
  for (const auto& [key, value] : kwargs) {
    // The reference repeats what the user wrote, and users write `grid: 20`.
    const bool integral = value == std::floor(value) && std::abs(value) < 1e15;
    json[key] = integral ? Json(static_cast<int64_t>(value)) : Json(value);
  }
  return json;
}

}  // namespace

absl::string_view ArgsRoleName(ArgsRole role) {
  switch (role) {
    case ArgsRole::kWeights:
      return "weights";
    case ArgsRole::kInputActivations:
      return "input_activations";
    case ArgsRole::kOutputActivations:
      return "output_activations";
    case ArgsRole::kKvCache:
      return "kv_cache_scheme";
  }
  return "unknown";
}

const std::vector<std::string>& QuantizationArgsKeys() {
  static const auto* keys = new std::vector<std::string>{
      "num_bits", "type",     "symmetric",   "group_size", "strategy", "block_structure",
      "dynamic",  "actorder", "scale_dtype", "zp_dtype",   "observer", "observer_kwargs"};
  return *keys;
}

absl::StatusOr<QuantizationArgs> ParseQuantizationArgs(const Json& json) {
  LLMC_RETURN_IF_ERROR(CheckKeys(json));
  QuantizationArgs args;
  LLMC_RETURN_IF_ERROR(ReadFields(json, args));
  LLMC_RETURN_IF_ERROR(ReadStrategy(json, args));
  if (args.group_size == -1 && !IsGrouped(args.strategy)) args.group_size.reset();
  LLMC_RETURN_IF_ERROR(ValidateQuantizationArgs(args));
  if (args.symmetric) {
    args.zp_dtype.reset();
  } else if (!args.zp_dtype) {
    args.zp_dtype = DefaultZeroPointDType(args);
  }
  return args;
}

absl::Status ValidateQuantizationArgs(const QuantizationArgs& args) {
  if (args.type == NumberType::kFloat && args.num_bits != 4 && args.num_bits != 8) {
    return Wrong(absl::StrCat("num_bits: ", args.num_bits), "4 or 8 for type float");
  }
  const absl::string_view strategy = StrategyName(args.strategy);
  if (IsGrouped(args.strategy) && args.group_size.value_or(0) <= 0) {
    return Wrong(absl::StrCat("strategy: ", strategy, " without a group_size"), "group_size > 0");
  }
  if (!IsGrouped(args.strategy) && args.group_size) {
    return Wrong(absl::StrCat("group_size: ", *args.group_size, " with strategy ", strategy),
                 "none, or strategy group or tensor_group");
  }
  if ((args.strategy == Strategy::kBlock) != args.block_structure.has_value()) {
    return Wrong(absl::StrCat("strategy: ", strategy, args.block_structure ? " with a" : " without",
                              " block_structure"),
                 "strategy block and block_structure together");
  }
  if (args.strategy == Strategy::kToken && args.dynamic == Dynamic::kFalse) {
    return Wrong("strategy: token with dynamic false", "dynamic: true");
  }
  if (args.dynamic == Dynamic::kLocal && args.strategy != Strategy::kTensorGroup) {
    return Wrong(absl::StrCat("dynamic: local with strategy ", strategy), "strategy tensor_group");
  }
  const bool may_be_dynamic = IsGrouped(args.strategy) || args.strategy == Strategy::kToken ||
                              args.strategy == Strategy::kTensor;
  if (args.dynamic != Dynamic::kFalse && !may_be_dynamic) {
    return Wrong(absl::StrCat("dynamic: true with strategy ", strategy),
                 "strategy token, tensor, group or tensor_group");
  }
  return absl::OkStatus();
}

absl::Status ValidateArgsForRole(const QuantizationArgs& args, ArgsRole role) {
  if (role == ArgsRole::kWeights) return ValidateWeights(args);
  LLMC_RETURN_IF_ERROR(ValidateActivations(args, role));
  return role == ArgsRole::kKvCache ? ValidateKvCache(args) : absl::OkStatus();
}

absl::Status ValidateScheme(const Scheme& scheme) {
  const auto check = [](const std::optional<QuantizationArgs>& args, ArgsRole role) {
    if (!args) return absl::OkStatus();
    absl::Status status = ValidateQuantizationArgs(*args);
    if (status.ok()) status = ValidateArgsForRole(*args, role);
    return At(ArgsRoleName(role), status);
  };
  LLMC_RETURN_IF_ERROR(check(scheme.weights, ArgsRole::kWeights));
  LLMC_RETURN_IF_ERROR(check(scheme.input_activations, ArgsRole::kInputActivations));
  return check(scheme.output_activations, ArgsRole::kOutputActivations);
}

Json QuantizationArgsToJson(const QuantizationArgs& args) {
  Json json;
  json["actorder"] = args.actorder ? Json(std::string(ActOrderName(*args.actorder))) : Json();
  json["block_structure"] = args.block_structure ? Json(*args.block_structure) : Json();
  json["dynamic"] =
      args.dynamic == Dynamic::kLocal ? Json("local") : Json(args.dynamic == Dynamic::kTrue);
  json["group_size"] = args.group_size ? Json(*args.group_size) : Json();
  json["num_bits"] = args.num_bits;
  json["observer"] = args.observer ? Json(*args.observer) : Json();
  json["observer_kwargs"] = KwargsJson(args.observer_kwargs);
  json["scale_dtype"] = DTypeJson(args.scale_dtype);
  json["strategy"] = std::string(StrategyName(args.strategy));
  json["symmetric"] = args.symmetric;
  json["type"] = std::string(NumberTypeName(args.type));
  json["zp_dtype"] = args.symmetric ? Json() : DTypeJson(args.zp_dtype);
  return json;
}

}  // namespace llmc
