// Reads the fields of one modifier from its node, each by a typed reader, with
// messages that name the place: "recipe.yaml:7: w_stage.q_modifiers.GPTQModifier.ignore: ...".
#ifndef LLMC_RECIPE_FIELDS_H_
#define LLMC_RECIPE_FIELDS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "llmc/status.h"
#include "recipe/document.h"

namespace llmc {

// Where a value stands, for messages.
struct Place {
  std::string origin;
  int line = 0;
  std::string path;

  Place Child(absl::string_view key, int child_line) const;
  absl::Status Error(absl::string_view what) const;     // kInvalidArgument.
  absl::Status Wrap(const absl::Status& status) const;  // Same code.
};

// One value with its place.
struct Value {
  const Node& node;
  Place place;
};

absl::StatusOr<std::string> ReadText(const Value& value);  // A non-empty scalar.
absl::StatusOr<bool> ReadBool(const Value& value);
absl::StatusOr<int64_t> ReadInteger(const Value& value, int64_t min, int64_t max);
absl::StatusOr<double> ReadNumber(const Value& value);  // Finite.
// A scalar counts as a list of one.
absl::StatusOr<std::vector<std::string>> ReadTextList(const Value& value);

// The entries of a map as values with their places; error when it is no map.
absl::StatusOr<std::vector<std::pair<std::string, Value>>> ReadEntries(const Value& value);

// kInvalidArgument for `key` at `place`: unknown, with the nearest of `known`.
absl::Status UnknownKey(const Place& place, absl::string_view key,
                        const std::vector<std::string>& known);

}  // namespace llmc

#endif  // LLMC_RECIPE_FIELDS_H_
