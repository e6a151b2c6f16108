// Transforms that move range between activations and weights: SmoothQuantModifier,
// LogarithmicEqualizationModifier and AWQModifier.

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "formats/names.h"
#include "recipe/modifier_reader.h"
#include "recipe/scheme_reader.h"

namespace llmc {
namespace {

using Mappings = std::vector<SmoothMappingEntry>;

bool Contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::vector<std::string> WithLegacyKeys(std::vector<std::string> keys) {
  keys.insert(keys.end(), LegacyKeys().begin(), LegacyKeys().end());
  return keys;
}

absl::StatusOr<std::string> ReadPattern(const Value& value) {
  LLMC_RETURN_IF_ERROR(ReadText(value).status());
  LLMC_ASSIGN_OR_RETURN(const std::vector<std::string> one, ReadTargets(value));
  return one[0];
}

// SmoothQuant's form: [[balance layers], smooth layer].
absl::StatusOr<SmoothMappingEntry> ReadPairEntry(const Value& value) {
  const std::vector<Node>& items = value.node.items;
  if (items.size() != 2 || !items[0].is_list()) {
    return value.place.Error("expected [[balance layers], smooth layer]");
  }
  SmoothMappingEntry entry;
  entry.line = value.place.line;
  LLMC_ASSIGN_OR_RETURN(entry.balance_layers,
                        ReadTargets({items[0], value.place.Child("0", items[0].line)}));
  LLMC_ASSIGN_OR_RETURN(entry.smooth_layer,
                        ReadPattern({items[1], value.place.Child("1", items[1].line)}));
  return entry;
}

// AWQ's form: {smooth_layer, balance_layers}.
absl::StatusOr<SmoothMappingEntry> ReadMapEntry(const Value& value) {
  static const std::vector<std::string> kKeys = {"smooth_layer", "balance_layers",
                                                 "activation_hook_target"};
  SmoothMappingEntry entry;
  entry.line = value.place.line;
  LLMC_ASSIGN_OR_RETURN(const FieldEntries fields, ReadEntries(value));
  for (const auto& [key, field] : fields) {
    if (!Contains(kKeys, key)) return UnknownKey(field.place, key, kKeys);
    if (key == "smooth_layer") {
      LLMC_ASSIGN_OR_RETURN(entry.smooth_layer, ReadPattern(field));
    } else if (key == "balance_layers") {
      LLMC_ASSIGN_OR_RETURN(entry.balance_layers, ReadTargets(field));
    } else if (!field.node.is_null()) {
      // Says where the reference catches the input that the balance layers share;
      // here it is the layers' own input.
      LLMC_RETURN_IF_ERROR(ReadText(field).status());
    }
  }
  if (!entry.smooth_layer.empty() && !entry.balance_layers.empty()) return entry;
  return value.place.Error("expected smooth_layer and balance_layers");
}

absl::StatusOr<std::optional<Mappings>> ReadMappings(const Value& value) {
  if (value.node.is_null()) return std::optional<Mappings>();
  if (!value.node.is_list() || value.node.items.empty()) {
    return value.place.Error(
        absl::StrCat(Describe(value.node), ", expected a list with at least one mapping"));
  }
  Mappings mappings;
  for (size_t i = 0; i < value.node.items.size(); ++i) {
    const Node& item = value.node.items[i];
    const Value place = {item, value.place.Child(absl::StrCat(i), item.line)};
    LLMC_ASSIGN_OR_RETURN(SmoothMappingEntry entry,
                          item.is_list() ? ReadPairEntry(place) : ReadMapEntry(place));
    mappings.push_back(std::move(entry));
  }
  return std::optional<Mappings>(std::move(mappings));
}

absl::Status ReadStrength(const Value& value, SmoothQuantModifier& smooth) {
  LLMC_ASSIGN_OR_RETURN(smooth.smoothing_strength, ReadNumber(value));
  if (smooth.smoothing_strength >= 0 && smooth.smoothing_strength <= 1) return absl::OkStatus();
  return value.place.Error(absl::StrCat(Describe(value.node), ", expected a number from 0 to 1"));
}

absl::Status ReadAlgorithm(const Value& value, SmoothQuantModifier& smooth) {
  LLMC_ASSIGN_OR_RETURN(const std::string name, ReadText(value));
  if (name == "log_equalization") {
    smooth.algorithm = SmoothAlgorithm::kLogEqualization;
  } else if (name == "smoothquant") {
    smooth.algorithm = SmoothAlgorithm::kSmoothQuant;
  } else {
    return value.place.Error(
        absl::StrCat(Describe(value.node), ", expected smoothquant or log_equalization"));
  }
  return absl::OkStatus();
}

absl::Status ReadSmoothField(const std::string& key, const Value& value,
                             SmoothQuantModifier& smooth) {
  if (value.node.is_null()) return absl::OkStatus();
  if (key == "smoothing_strength") return ReadStrength(value, smooth);
  if (key == "algorithm") return ReadAlgorithm(value, smooth);
  if (key == "mappings") {
    LLMC_ASSIGN_OR_RETURN(smooth.mappings, ReadMappings(value));
    return absl::OkStatus();
  }
  if (key == "ignore") {
    LLMC_ASSIGN_OR_RETURN(smooth.ignore, ReadPatterns(value));
    return absl::OkStatus();
  }
  if (key == "num_calibration_steps") return ReadInteger(value, 1, int64_t{1} << 40).status();
  if (key == "calibration_function") return ReadText(value).status();
  return CheckLegacyField(key, value);
}

absl::StatusOr<Modifier> ReadSmooth(SmoothQuantModifier smooth, const FieldEntries& fields) {
  static const auto* keys = new std::vector<std::string>(
      WithLegacyKeys({"smoothing_strength", "mappings", "ignore", "algorithm",
                      "num_calibration_steps", "calibration_function"}));
  for (const auto& [key, value] : fields) {
    if (!Contains(*keys, key)) return UnknownKey(value.place, key, *keys);
    LLMC_RETURN_IF_ERROR(ReadSmoothField(key, value, smooth));
  }
  return smooth;
}

absl::Status ReadDuoScaling(const Value& value, AwqModifier& awq) {
  if (value.node.is_scalar() && value.node.text == "both") {
    awq.duo_scaling = DuoScaling::kBoth;
    return absl::OkStatus();
  }
  const absl::StatusOr<bool> duo = ReadBool(value);
  if (!duo.ok()) {
    return value.place.Error(
        absl::StrCat(Describe(value.node), ", expected true, false or \"both\""));
  }
  awq.duo_scaling = *duo ? DuoScaling::kTrue : DuoScaling::kFalse;
  return absl::OkStatus();
}

absl::Status ReadAwqField(const std::string& key, const Value& value, AwqModifier& awq) {
  if (value.node.is_null()) return absl::OkStatus();
  if (key == "duo_scaling") return ReadDuoScaling(value, awq);
  if (key == "mappings") {
    LLMC_ASSIGN_OR_RETURN(awq.mappings, ReadMappings(value));
  } else if (key == "n_grid") {
    LLMC_ASSIGN_OR_RETURN(awq.n_grid, ReadInteger(value, 2, 1000));
  } else if (key == "offload_device") {
    LLMC_ASSIGN_OR_RETURN(awq.offload_device, ReadText(value));
  } else {
    return CheckLegacyField(key, value);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Modifier> ReadSmoothQuantModifier(const Value&, const FieldEntries& fields) {
  return ReadSmooth({}, fields);
}

absl::StatusOr<Modifier> ReadLogEqualizationModifier(const Value&, const FieldEntries& fields) {
  SmoothQuantModifier smooth;
  smooth.algorithm = SmoothAlgorithm::kLogEqualization;
  return ReadSmooth(smooth, fields);
}

absl::StatusOr<Modifier> ReadAwqModifier(const Value& body, const FieldEntries& fields) {
  static const auto* keys = new std::vector<std::string>(
      WithLegacyKeys({"mappings", "duo_scaling", "n_grid", "offload_device"}));
  AwqModifier awq;
  for (const auto& [key, value] : fields) {
    if (!Contains(*keys, key)) return UnknownKey(value.place, key, *keys);
    LLMC_RETURN_IF_ERROR(ReadAwqField(key, value, awq));
  }
  // "both" tries every ratio twice.
  if (awq.duo_scaling == DuoScaling::kBoth && awq.n_grid < 4) {
    return body.place.Error("n_grid with duo_scaling: both, expected at least 4");
  }
  return awq;
}

}  // namespace llmc
