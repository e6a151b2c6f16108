// Schemes inside a modifier: config_groups, presets, observers.
#ifndef LLMC_RECIPE_SCHEME_READER_H_
#define LLMC_RECIPE_SCHEME_READER_H_

#include <string>
#include <vector>

#include "formats/quantization_args.h"
#include "llmc/status.h"
#include "recipe/fields.h"
#include "recipe/recipe.h"

namespace llmc {

// Observers that the vocabulary knows; whether one runs is the plan's matter.
const std::vector<std::string>& KnownObservers();

// Target strings whose patterns compile. ReadTargets wants at least one.
absl::StatusOr<std::vector<std::string>> ReadPatterns(const Value& value);
absl::StatusOr<std::vector<std::string>> ReadTargets(const Value& value);

// A known observer in its canonical spelling ("MSE" gives "mse").
absl::StatusOr<std::string> ReadObserverName(const Value& value);

// One entry (weights, ...), valid for its role.
absl::StatusOr<QuantizationArgs> ReadArgs(const Value& value, ArgsRole role);

// One entry of config_groups; observers and inferred format are not filled yet.
absl::StatusOr<SchemeGroup> ReadSchemeGroup(const std::string& name, const Value& value);

// Turns what was read into fields.groups: expands presets, fills in observers and
// formats. kInvalidArgument: scheme next to config_groups, both forms of observers,
// one target in two groups, nothing to quantise.
absl::Status CompleteGroups(const Place& place, QuantizationFields& fields);

}  // namespace llmc

#endif  // LLMC_RECIPE_SCHEME_READER_H_
