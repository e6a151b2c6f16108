// Modifiers that quantise: QuantizationModifier and GPTQModifier.

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "formats/names.h"
#include "formats/presets.h"
#include "recipe/modifier_reader.h"
#include "recipe/scheme_reader.h"

namespace llmc {
namespace {

using Entries = FieldEntries;

bool Contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

const std::vector<std::string>& QuantizationKeys() {
  static const auto* keys = new std::vector<std::string>{"config_groups",
                                                         "targets",
                                                         "ignore",
                                                         "scheme",
                                                         "kv_cache_scheme",
                                                         "weight_observer",
                                                         "input_observer",
                                                         "output_observer",
                                                         "observer",
                                                         "index",
                                                         "group",
                                                         "start",
                                                         "end",
                                                         "update",
                                                         "bypass_divisibility_checks",
                                                         "requires_calibration_data"};
  return *keys;
}

const std::vector<std::string>& GptqKeys() {
  static const auto* keys = new std::vector<std::string>{"block_size", "dampening_frac", "actorder",
                                                         "batched_quantization", "on_singular"};
  return *keys;
}

absl::Status ReadScheme(const Value& value, QuantizationFields& fields) {
  if (value.node.is_scalar()) {
    LLMC_ASSIGN_OR_RETURN(fields.scheme, ReadText(value));
    return value.place.Wrap(PresetScheme(*fields.scheme).status());
  }
  LLMC_ASSIGN_OR_RETURN(const Entries entries, ReadEntries(value));
  for (const auto& [preset, targets] : entries) {
    LLMC_RETURN_IF_ERROR(targets.place.Wrap(PresetScheme(preset).status()));
    LLMC_ASSIGN_OR_RETURN(std::vector<std::string> list, ReadTargets(targets));
    fields.scheme_map.emplace_back(preset, std::move(list));
  }
  return entries.empty() ? value.place.Error("empty, expected presets and their targets")
                         : absl::OkStatus();
}

absl::Status ReadObserverMap(const Value& value, QuantizationFields& fields) {
  LLMC_ASSIGN_OR_RETURN(const Entries entries, ReadEntries(value));
  for (const auto& [key, observer] : entries) {
    if (key != "weights" && key != "input" && key != "output") {
      return UnknownKey(observer.place, key, {"weights", "input", "output"});
    }
    LLMC_ASSIGN_OR_RETURN(fields.observer[key], ReadObserverName(observer));
  }
  return absl::OkStatus();
}

absl::Status ReadObserverField(absl::string_view key, const Value& value,
                               QuantizationFields& fields) {
  if (key == "observer") return ReadObserverMap(value, fields);
  std::optional<std::string>& field = key == "weight_observer"  ? fields.weight_observer
                                      : key == "input_observer" ? fields.input_observer
                                                                : fields.output_observer;
  LLMC_ASSIGN_OR_RETURN(field, ReadObserverName(value));
  return absl::OkStatus();
}

absl::Status ReadGroups(const Value& value, QuantizationFields& fields) {
  fields.has_config_groups = true;
  LLMC_ASSIGN_OR_RETURN(const Entries entries, ReadEntries(value));
  if (entries.empty()) return value.place.Error("empty, expected at least one group");
  for (const auto& [name, group] : entries) {
    LLMC_ASSIGN_OR_RETURN(SchemeGroup read, ReadSchemeGroup(name, group));
    fields.groups.push_back(std::move(read));
  }
  return absl::OkStatus();
}

absl::Status ReadKvCache(const Value& value, QuantizationFields& fields) {
  LLMC_ASSIGN_OR_RETURN(fields.kv_cache_scheme, ReadArgs(value, ArgsRole::kKvCache));
  return absl::OkStatus();
}

absl::Status ReadQuantizationField(const std::string& key, const Value& value,
                                   QuantizationFields& fields) {
  if (value.node.is_null()) return absl::OkStatus();
  if (key == "config_groups") return ReadGroups(value, fields);
  if (key == "scheme") return ReadScheme(value, fields);
  if (key == "kv_cache_scheme") return ReadKvCache(value, fields);
  if (key == "targets") {
    LLMC_ASSIGN_OR_RETURN(fields.targets, ReadTargets(value));
  } else if (key == "ignore") {
    LLMC_ASSIGN_OR_RETURN(fields.ignore, ReadPatterns(value));
  } else if (key == "bypass_divisibility_checks") {
    LLMC_ASSIGN_OR_RETURN(fields.bypass_divisibility_checks, ReadBool(value));
  } else if (key == "requires_calibration_data") {
    LLMC_ASSIGN_OR_RETURN(fields.requires_calibration_data, ReadBool(value));
  } else if (key.find("observer") != std::string::npos) {
    return ReadObserverField(key, value, fields);
  } else {
    return CheckLegacyField(key, value);
  }
  return absl::OkStatus();
}

absl::Status ReadModifierActOrder(const Value& value, GptqModifier& gptq) {
  gptq.actorder_given = true;
  gptq.actorder.reset();
  const nlohmann::json json = ToJson(value.node);
  if (json.is_null() || json == false) return absl::OkStatus();
  if (!json.is_string()) {
    return value.place.Error(
        absl::StrCat(Describe(value.node), ", expected weight, static or none"));
  }
  if (absl::AsciiStrToLower(json.get<std::string>()) == "none") return absl::OkStatus();
  absl::StatusOr<ActOrder> actorder = ActOrderFromName(json.get<std::string>());
  if (!actorder.ok()) return value.place.Wrap(actorder.status());
  gptq.actorder = *actorder;
  return absl::OkStatus();
}

absl::Status ReadDampening(const Value& value, GptqModifier& gptq) {
  LLMC_ASSIGN_OR_RETURN(gptq.dampening_frac, ReadNumber(value));
  if (gptq.dampening_frac > 0 && gptq.dampening_frac <= 1) return absl::OkStatus();
  return value.place.Error(
      absl::StrCat(Describe(value.node), ", expected more than 0 and at most 1"));
}

absl::Status ReadBatching(const Value& value, GptqModifier& gptq) {
  if (value.node.is_null()) {
    gptq.batched_quantization = 0;
  } else if (value.node.is_scalar() && value.node.text == "auto") {
    gptq.batched_quantization = -1;
  } else {
    LLMC_ASSIGN_OR_RETURN(gptq.batched_quantization, ReadInteger(value, 1, 1 << 30));
  }
  return absl::OkStatus();
}

absl::Status ReadOnSingular(const Value& value, GptqModifier& gptq) {
  const std::string& name = value.node.text;
  if (name == "fail") {
    gptq.on_singular = OnSingular::kFail;
  } else if (name == "round_to_nearest") {
    gptq.on_singular = OnSingular::kRoundToNearest;
  } else {
    return value.place.Error(
        absl::StrCat(Describe(value.node), ", expected round_to_nearest or fail"));
  }
  return absl::OkStatus();
}

absl::Status ReadGptqField(const std::string& key, const Value& value, GptqModifier& gptq) {
  if (key == "actorder") return ReadModifierActOrder(value, gptq);
  if (key == "dampening_frac") return ReadDampening(value, gptq);
  if (key == "batched_quantization") return ReadBatching(value, gptq);
  if (key == "on_singular") return ReadOnSingular(value, gptq);
  LLMC_ASSIGN_OR_RETURN(gptq.block_size, ReadInteger(value, 1, 1 << 16));
  return absl::OkStatus();
}

// A scheme's own column order stays; one that differs from the modifier's is a
// contradiction only when the user wrote both.
absl::Status ApplyActOrder(const Place& place, GptqModifier& gptq) {
  for (SchemeGroup& group : gptq.groups) {
    if (!group.scheme.weights) continue;
    std::optional<ActOrder>& actorder = group.scheme.weights->actorder;
    if (!actorder) {
      actorder = gptq.actorder;
    } else if (gptq.actorder_given && !gptq.actorder) {
      return place.Error(absl::StrCat("actorder: none, but group ", group.name, " has actorder ",
                                      ActOrderName(*actorder), "; expected one of them only"));
    } else if (gptq.actorder_given) {
      actorder = gptq.actorder;
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Modifier> ReadGptqModifier(const Value& body, const Entries& entries) {
  GptqModifier gptq;
  std::vector<std::string> known = QuantizationKeys();
  known.insert(known.end(), GptqKeys().begin(), GptqKeys().end());
  for (const auto& [key, value] : entries) {
    if (!Contains(known, key)) return UnknownKey(value.place, key, known);
    LLMC_RETURN_IF_ERROR(Contains(GptqKeys(), key) ? ReadGptqField(key, value, gptq)
                                                   : ReadQuantizationField(key, value, gptq));
  }
  LLMC_RETURN_IF_ERROR(CompleteGroups(body.place, gptq));
  LLMC_RETURN_IF_ERROR(ApplyActOrder(body.place, gptq));
  return gptq;
}

absl::StatusOr<Modifier> ReadQuantizationModifier(const Value& body, const Entries& entries) {
  QuantizationModifier modifier;
  for (const auto& [key, value] : entries) {
    if (!Contains(QuantizationKeys(), key)) {
      if (Contains(GptqKeys(), key)) {
        return value.place.Error("a field of GPTQModifier, expected it there");
      }
      return UnknownKey(value.place, key, QuantizationKeys());
    }
    LLMC_RETURN_IF_ERROR(ReadQuantizationField(key, value, modifier));
  }
  LLMC_RETURN_IF_ERROR(CompleteGroups(body.place, modifier));
  return modifier;
}

}  // namespace llmc
