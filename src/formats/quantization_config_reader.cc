#include "absl/strings/str_cat.h"
#include "formats/names.h"
#include "formats/presets.h"
#include "formats/quantization_args.h"
#include "formats/quantization_config.h"
#include "formats/stored_tensors.h"

namespace llmc {

using Json = nlohmann::json;

namespace {

constexpr size_t kMaxGroups = 10'000;
constexpr size_t kMaxTargets = 1'000'000;

absl::Status Bad(absl::string_view where, absl::string_view expected) {
  return absl::InvalidArgumentError(
      absl::StrCat("quantization_config.", where, ": expected ", expected));
}

const Json* Find(const Json& json, const char* key) {
  const auto it = json.find(key);
  return it == json.end() || it->is_null() ? nullptr : &*it;
}

absl::StatusOr<std::string> StringAt(const Json& json, const char* key, const char* missing) {
  const Json* value = Find(json, key);
  if (value == nullptr) return std::string(missing);
  if (!value->is_string()) return Bad(key, "a string");
  return value->get<std::string>();
}

absl::StatusOr<std::vector<std::string>> StringList(const Json& list, absl::string_view where) {
  if (!list.is_array() || list.size() > kMaxTargets) return Bad(where, "a list of strings");
  std::vector<std::string> strings;
  for (const Json& item : list) {
    if (!item.is_string()) return Bad(where, "a list of strings");
    strings.push_back(item.get<std::string>());
  }
  return strings;
}

// Turns spellings of older versions into today's: actorder "group" (with a stored
// weight_g_idx), observer_kwargs that are not numbers.
Json Modernised(Json args, bool* has_g_idx) {
  if (!args.is_object()) return args;
  if (const Json* actorder = Find(args, "actorder")) {
    const bool by_group = *actorder == "group" || *actorder == "dynamic" || *actorder == true;
    if (by_group) args["actorder"] = nullptr;
    *has_g_idx = *has_g_idx || by_group;
  }
  if (const Json* kwargs = Find(args, "observer_kwargs"); kwargs && kwargs->is_object()) {
    Json numbers = Json::object();
    for (const auto& [key, value] : kwargs->items()) {
      if (value.is_number()) numbers[key] = value;
    }
    args["observer_kwargs"] = numbers;
  }
  return args;
}

// scale_dtype is written since 0.13.0; before, the strategy implied it.
void FillScaleDType(std::optional<QuantizationArgs>& args) {
  if (!args || args->type != NumberType::kFloat || args->num_bits != 4 || args->scale_dtype) return;
  args->scale_dtype = args->group_size == 32 ? DType::kU8 : DType::kF8E4M3;
}

absl::StatusOr<std::optional<QuantizationArgs>> ArgsAt(const Json& group, const char* key,
                                                       bool* has_g_idx) {
  const Json* value = Find(group, key);
  if (value == nullptr) return std::nullopt;
  absl::StatusOr<QuantizationArgs> args = ParseQuantizationArgs(Modernised(*value, has_g_idx));
  if (!args.ok()) return At(key, args.status());
  return *args;
}

}  // namespace

// Builds a QuantizationConfig part by part.
class QuantizationConfigReader {
 public:
  absl::StatusOr<QuantizationConfig> Read(const Json& json) {
    if (!json.is_object()) {
      return absl::InvalidArgumentError("quantization_config: expected an object");
    }
    LLMC_RETURN_IF_ERROR(ReadMethod(json));
    LLMC_RETURN_IF_ERROR(ReadTopLevel(json));
    if (const Json* groups = Find(json, "config_groups")) LLMC_RETURN_IF_ERROR(ReadGroups(*groups));
    if (const Json* ignore = Find(json, "ignore")) LLMC_RETURN_IF_ERROR(ReadIgnore(*ignore));
    LLMC_RETURN_IF_ERROR(IndexTargets());
    return std::move(config_);
  }

 private:
  absl::Status ReadMethod(const Json& json) {
    LLMC_ASSIGN_OR_RETURN(const std::string method,
                          StringAt(json, "quant_method", "compressed-tensors"));
    if (method != "compressed-tensors") {
      return absl::UnimplementedError(absl::StrCat("quantization_config.quant_method: '",
                                                   method.substr(0, 80),
                                                   "', expected compressed-tensors"));
    }
    const Json* sparsity = Find(json, "sparsity_config");
    if (sparsity == nullptr || !sparsity->is_object()) return absl::OkStatus();
    LLMC_ASSIGN_OR_RETURN(const std::string layout, StringAt(*sparsity, "format", "dense"));
    if (layout == "dense") return absl::OkStatus();
    for (SparseFormat format : {SparseFormat::kSparse24Bitmask, SparseFormat::kSparseBitmask}) {
      if (layout == SparseFormatName(format)) {
        config_.sparse_format_ = format;
        return absl::OkStatus();
      }
    }
    return absl::UnimplementedError(absl::StrCat("quantization_config.sparsity_config.format: '",
                                                 layout.substr(0, 80),
                                                 "' is a layout that llmc does not read"));
  }

  absl::Status ReadTopLevel(const Json& json) {
    LLMC_ASSIGN_OR_RETURN(config_.format_, StringAt(json, "format", "dense"));
    LLMC_ASSIGN_OR_RETURN(config_.version_, StringAt(json, "version", ""));
    if (config_.format_ != "mixed-precision") {
      LLMC_RETURN_IF_ERROR(CheckFormat(config_.format_, "quantization_config.format"));
    }
    LLMC_ASSIGN_OR_RETURN(const std::string status,
                          StringAt(json, "quantization_status", "compressed"));
    // Versions before 0.9 wrote "frozen" for compressed files as well.
    config_.is_compressed_ = status == "compressed" || config_.format_ != "dense";
    if (const Json* transforms = Find(json, "transform_config")) {
      if (!transforms->is_object()) return Bad("transform_config", "an object");
      config_.transform_config_ = *transforms;
    }
    bool unused = false;
    absl::StatusOr<std::optional<QuantizationArgs>> kv = ArgsAt(json, "kv_cache_scheme", &unused);
    if (!kv.ok()) return At("quantization_config", kv.status());
    config_.kv_cache_scheme_ = *std::move(kv);
    return absl::OkStatus();
  }

  static absl::Status CheckFormat(const std::string& name, absl::string_view where) {
    if (FormatFromName(name).ok()) return absl::OkStatus();
    return absl::UnimplementedError(
        absl::StrCat(where, ": '", name.substr(0, 80), "' is a format that llmc does not read"));
  }

  absl::Status ReadGroups(const Json& groups) {
    if (!groups.is_object() || groups.size() > kMaxGroups) return Bad("config_groups", "an object");
    for (const auto& [name, group] : groups.items()) {
      absl::StatusOr<ConfigGroup> read = ReadGroup(name, group);
      if (!read.ok()) {
        return At(absl::StrCat("quantization_config.config_groups.", name.substr(0, 80)),
                  read.status());
      }
      config_.groups_.push_back(*std::move(read));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<ConfigGroup> ReadGroup(const std::string& name, const Json& json) {
    ConfigGroup group;
    group.name = name;
    if (json.is_array()) {  // A preset's name with its targets.
      LLMC_ASSIGN_OR_RETURN(group.targets, StringList(json, "targets"));
      LLMC_ASSIGN_OR_RETURN(group.scheme, PresetScheme(name));
      return group;
    }
    if (!json.is_object()) return absl::InvalidArgumentError("expected an object");
    const Json* targets = Find(json, "targets");
    if (targets == nullptr) return absl::InvalidArgumentError("targets: missing");
    LLMC_ASSIGN_OR_RETURN(group.targets, StringList(*targets, "targets"));
    Scheme& scheme = group.scheme;
    bool unused = false;
    LLMC_ASSIGN_OR_RETURN(scheme.weights, ArgsAt(json, "weights", &group.has_g_idx));
    LLMC_ASSIGN_OR_RETURN(scheme.input_activations, ArgsAt(json, "input_activations", &unused));
    LLMC_ASSIGN_OR_RETURN(scheme.output_activations, ArgsAt(json, "output_activations", &unused));
    FillScaleDType(scheme.weights);
    FillScaleDType(scheme.input_activations);
    LLMC_ASSIGN_OR_RETURN(scheme.format, GroupFormat(json, scheme));
    return group;
  }

  absl::StatusOr<Format> GroupFormat(const Json& json, const Scheme& scheme) const {
    LLMC_ASSIGN_OR_RETURN(const std::string own, StringAt(json, "format", ""));
    if (!own.empty()) {
      LLMC_RETURN_IF_ERROR(CheckFormat(own, "format"));
      return FormatFromName(own);
    }
    if (!scheme.weights) return Format::kDense;
    if (config_.format_ != "mixed-precision") return FormatFromName(config_.format_);
    return InferFormat(scheme);
  }

  absl::Status ReadIgnore(const Json& ignore) {
    LLMC_ASSIGN_OR_RETURN(config_.ignore_, StringList(ignore, "ignore"));
    return absl::OkStatus();
  }

  absl::Status IndexTargets() {
    for (size_t g = 0; g < config_.groups_.size(); ++g) {
      for (const std::string& target : config_.groups_[g].targets) {
        absl::Status status = config_.targets_.Add(target, static_cast<int>(g));
        if (!status.ok()) return At("quantization_config.config_groups", status);
      }
    }
    for (const std::string& target : config_.ignore_) {
      absl::Status status = config_.ignore_targets_.Add(target, 0);
      if (!status.ok()) return At("quantization_config.ignore", status);
    }
    return absl::OkStatus();
  }

  QuantizationConfig config_;
};

absl::StatusOr<QuantizationConfig> QuantizationConfig::FromJson(const Json& json) {
  return QuantizationConfigReader().Read(json);
}

absl::StatusOr<const ConfigGroup*> QuantizationConfig::GroupOf(absl::string_view name,
                                                               absl::string_view class_name) const {
  const std::string serving = ServingClassName(class_name);
  LLMC_ASSIGN_OR_RETURN(const std::optional<TargetSet::Hit> ignored,
                        ignore_targets_.Find(name, serving));
  if (ignored) return nullptr;
  LLMC_ASSIGN_OR_RETURN(const std::optional<TargetSet::Hit> hit, targets_.Find(name, serving));
  return hit ? &groups_[hit->owner] : nullptr;
}

const Json* FindQuantizationConfig(const Json& config) {
  if (!config.is_object()) return nullptr;
  const Json* text = Find(config, "text_config");
  for (const Json* object : {&config, text}) {
    if (object == nullptr || !object->is_object()) continue;
    for (const char* key : {"quantization_config", "compression_config"}) {
      if (const Json* found = Find(*object, key)) return found;
    }
  }
  return nullptr;
}

}  // namespace llmc
