#include "recipe/scheme_reader.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "formats/names.h"
#include "formats/presets.h"
#include "formats/stored_tensors.h"
#include "formats/target.h"

namespace llmc {
namespace {

absl::StatusOr<std::string> CanonicalObserver(const std::string& name) {
  const std::string canonical =
      absl::StrReplaceAll(absl::AsciiStrToLower(name), {{"-", "_"}, {" ", "_"}});
  const std::vector<std::string>& known = KnownObservers();
  if (std::find(known.begin(), known.end(), canonical) != known.end()) return canonical;
  const std::string hint = DidYouMean(canonical, known);
  return absl::InvalidArgumentError(
      absl::StrCat("'", name.substr(0, 80), "': unknown observer",
                   hint.empty() ? absl::StrCat(", known: ", absl::StrJoin(known, ", ")) : hint));
}

bool HasParts(const Scheme& scheme) {
  return scheme.weights || scheme.input_activations || scheme.output_activations;
}

// Whether the format can store the scheme, tried on a shape that suits its groups.
absl::Status CheckFormatFits(const Scheme& scheme) {
  if (!scheme.weights) return absl::OkStatus();
  int64_t columns = 2 * scheme.weights->group_size.value_or(64);
  if (scheme.input_activations) columns *= scheme.input_activations->group_size.value_or(1);
  int64_t rows = 64;
  if (scheme.output_activations) rows *= scheme.output_activations->group_size.value_or(1);
  constexpr int64_t kMax = int64_t{1} << 31;
  if (columns > kMax || rows > kMax) {
    return absl::InvalidArgumentError("group_size: larger than any layer");
  }
  const absl::Status status = StoredTensors(scheme, {rows, columns}, DType::kBF16).status();
  return status.ok() ? status : absl::InvalidArgumentError(status.message());
}

absl::Status ReadSchemePart(const std::string& key, const Value& value, SchemeGroup& group) {
  static const std::vector<std::string> kKeys = {"targets", "weights", "input_activations",
                                                 "output_activations", "format"};
  if (std::find(kKeys.begin(), kKeys.end(), key) == kKeys.end()) {
    return UnknownKey(value.place, key, kKeys);
  }
  if (key == "targets") {
    LLMC_ASSIGN_OR_RETURN(group.targets, ReadTargets(value));
    return absl::OkStatus();
  }
  if (value.node.is_null()) return absl::OkStatus();
  Scheme& scheme = group.scheme;
  if (key == "format") {
    LLMC_ASSIGN_OR_RETURN(const std::string name, ReadText(value));
    absl::StatusOr<Format> format = FormatFromName(name);
    if (!format.ok()) return value.place.Wrap(format.status());
    scheme.format = *format;
    group.format_given = true;
  } else if (key == "weights") {
    LLMC_ASSIGN_OR_RETURN(scheme.weights, ReadArgs(value, ArgsRole::kWeights));
  } else if (key == "input_activations") {
    LLMC_ASSIGN_OR_RETURN(scheme.input_activations, ReadArgs(value, ArgsRole::kInputActivations));
  } else {
    LLMC_ASSIGN_OR_RETURN(scheme.output_activations, ReadArgs(value, ArgsRole::kOutputActivations));
  }
  return absl::OkStatus();
}

std::optional<std::string> Override(const QuantizationFields& fields, const char* key,
                                    const std::optional<std::string>& single) {
  const auto at = fields.observer.find(key);
  return at != fields.observer.end() ? at->second : single;
}

// An override wins; then the scheme's own; then the default, none at run time.
void FillObserver(const std::optional<std::string>& override_name, const char* default_name,
                  std::optional<QuantizationArgs>& args) {
  if (!args) return;
  if (override_name) {
    args->observer = override_name;
  } else if (!args->observer && args->dynamic != Dynamic::kTrue) {
    args->observer = default_name;
  }
}

void FillObservers(QuantizationFields& fields) {
  const auto weights = Override(fields, "weights", fields.weight_observer);
  const auto input = Override(fields, "input", fields.input_observer);
  const auto output = Override(fields, "output", fields.output_observer);
  for (SchemeGroup& group : fields.groups) {
    FillObserver(weights, "memoryless_minmax", group.scheme.weights);
    FillObserver(input, "static_minmax", group.scheme.input_activations);
    FillObserver(output, "static_minmax", group.scheme.output_activations);
  }
}

absl::Status ExpandPresets(int line, QuantizationFields& fields) {
  auto presets = fields.scheme_map;
  if (fields.scheme) presets.emplace_back(*fields.scheme, fields.targets);
  for (size_t i = 0; i < presets.size(); ++i) {
    SchemeGroup group;
    group.name = absl::StrCat("group_", i);
    group.targets = presets[i].second;
    LLMC_ASSIGN_OR_RETURN(group.scheme, PresetScheme(presets[i].first));
    group.line = line;
    fields.groups.push_back(std::move(group));
  }
  return absl::OkStatus();
}

absl::Status CheckDistinctTargets(const Place& place, const QuantizationFields& fields) {
  std::map<std::string, std::string> owner;
  for (const SchemeGroup& group : fields.groups) {
    for (const std::string& target : group.targets) {
      const auto [at, is_new] = owner.emplace(target, group.name);
      if (is_new || at->second == group.name) continue;
      return place.Error(absl::StrCat("target '", target, "' is in ", at->second, " and in ",
                                      group.name, ", expected it in one group"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckExclusive(const Place& place, const QuantizationFields& fields) {
  const bool has_scheme = fields.scheme || !fields.scheme_map.empty();
  if (has_scheme && fields.has_config_groups) {
    return place.Error("scheme and config_groups, expected one of them");
  }
  if (!fields.observer.empty() &&
      (fields.weight_observer || fields.input_observer || fields.output_observer)) {
    return place.Error(
        "observer next to weight_observer, input_observer or output_observer, "
        "expected one form");
  }
  if (has_scheme || fields.has_config_groups || fields.kv_cache_scheme) return absl::OkStatus();
  return place.Error("quantises nothing, expected scheme, config_groups or kv_cache_scheme");
}

}  // namespace

const std::vector<std::string>& KnownObservers() {
  static const auto* names = new std::vector<std::string>{"memoryless_minmax",
                                                          "static_minmax",
                                                          "minmax",
                                                          "mse",
                                                          "memoryless_mse",
                                                          "imatrix_mse",
                                                          "nvfp4_expanded_mse",
                                                          "nvfp4_expanded_imatrix",
                                                          "fouroversix"};
  return *names;
}

absl::StatusOr<std::vector<std::string>> ReadPatterns(const Value& value) {
  LLMC_ASSIGN_OR_RETURN(std::vector<std::string> patterns, ReadTextList(value));
  for (const std::string& pattern : patterns) {
    LLMC_RETURN_IF_ERROR(value.place.Wrap(Target::Compile(pattern).status()));
  }
  return patterns;
}

absl::StatusOr<std::vector<std::string>> ReadTargets(const Value& value) {
  LLMC_ASSIGN_OR_RETURN(std::vector<std::string> targets, ReadPatterns(value));
  if (targets.empty()) return value.place.Error("empty, expected at least one target");
  return targets;
}

absl::StatusOr<std::string> ReadObserverName(const Value& value) {
  LLMC_ASSIGN_OR_RETURN(const std::string name, ReadText(value));
  absl::StatusOr<std::string> canonical = CanonicalObserver(name);
  if (!canonical.ok()) return value.place.Wrap(canonical.status());
  return canonical;
}

absl::StatusOr<QuantizationArgs> ReadArgs(const Value& value, ArgsRole role) {
  LLMC_ASSIGN_OR_RETURN(const auto entries, ReadEntries(value));
  for (const auto& [key, entry] : entries) {
    const std::vector<std::string>& known = QuantizationArgsKeys();
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      return UnknownKey(entry.place, key, known);
    }
  }
  absl::StatusOr<QuantizationArgs> args = ParseQuantizationArgs(ToJson(value.node));
  if (!args.ok()) return value.place.Wrap(args.status());
  LLMC_RETURN_IF_ERROR(value.place.Wrap(ValidateArgsForRole(*args, role)));
  if (args->observer) {
    absl::StatusOr<std::string> canonical = CanonicalObserver(*args->observer);
    if (!canonical.ok())
      return value.place.Child("observer", value.node.line).Wrap(canonical.status());
    args->observer = *canonical;
  }
  return args;
}

absl::StatusOr<SchemeGroup> ReadSchemeGroup(const std::string& name, const Value& value) {
  SchemeGroup group;
  group.name = name;
  group.line = value.place.line;
  LLMC_ASSIGN_OR_RETURN(const auto entries, ReadEntries(value));
  for (const auto& [key, entry] : entries) LLMC_RETURN_IF_ERROR(ReadSchemePart(key, entry, group));
  if (group.targets.empty()) return value.place.Error("no targets, expected at least one");
  if (!HasParts(group.scheme)) {
    return value.place.Error(
        "quantises nothing, expected weights or input_activations (modules that stay dense "
        "belong in ignore)");
  }
  if (!group.format_given) group.scheme.format = InferFormat(group.scheme);
  LLMC_RETURN_IF_ERROR(value.place.Wrap(CheckFormatFits(group.scheme)));
  return group;
}

absl::Status CompleteGroups(const Place& place, QuantizationFields& fields) {
  LLMC_RETURN_IF_ERROR(CheckExclusive(place, fields));
  LLMC_RETURN_IF_ERROR(ExpandPresets(place.line, fields));
  LLMC_RETURN_IF_ERROR(CheckDistinctTargets(place, fields));
  FillObservers(fields);
  return absl::OkStatus();
}

}  // namespace llmc
