#include "recipe/fields.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "formats/names.h"
#include "recipe/scalar.h"

namespace llmc {

Place Place::Child(absl::string_view key, int child_line) const {
  const std::string name(key.substr(0, 80));
  return {origin, child_line, path.empty() ? name : absl::StrCat(path, ".", name)};
}

absl::Status Place::Error(absl::string_view what) const {
  return absl::InvalidArgumentError(
      absl::StrCat(origin, ":", line, ": ", path, path.empty() ? "" : ": ", what));
}

absl::Status Place::Wrap(const absl::Status& status) const {
  return At(absl::StrCat(origin, ":", line, ": ", path), status);
}

absl::StatusOr<std::string> ReadText(const Value& value) {
  if (value.node.is_scalar() && !value.node.text.empty() && !value.node.is_null()) {
    return value.node.text;
  }
  return value.place.Error(absl::StrCat(Describe(value.node), ", expected a name"));
}

absl::StatusOr<bool> ReadBool(const Value& value) {
  const nlohmann::json json = ToJson(value.node);
  if (json.is_boolean()) return json.get<bool>();
  return value.place.Error(absl::StrCat(Describe(value.node), ", expected true or false"));
}

absl::StatusOr<double> ReadNumber(const Value& value) {
  double number = 0;
  const nlohmann::json json = value.node.is_scalar() ? ScalarToJson(value.node.text) : nullptr;
  if (json.is_number()) number = json.get<double>();
  if (json.is_number() && std::isfinite(number)) return number;
  return value.place.Error(absl::StrCat(Describe(value.node), ", expected a number"));
}

absl::StatusOr<int64_t> ReadInteger(const Value& value, int64_t min, int64_t max) {
  const absl::StatusOr<double> number = ReadNumber(value);
  if (number.ok() && *number == std::floor(*number) && *number >= static_cast<double>(min) &&
      *number <= static_cast<double>(max)) {
    return static_cast<int64_t>(*number);
  }
  return value.place.Error(
      absl::StrCat(Describe(value.node), ", expected an integer from ", min, " to ", max));
}

absl::StatusOr<std::vector<std::string>> ReadTextList(const Value& value) {
  std::vector<std::string> list;
  if (!value.node.is_list()) {
    LLMC_ASSIGN_OR_RETURN(std::string single, ReadText(value));
    list.push_back(std::move(single));
    return list;
  }
  for (size_t i = 0; i < value.node.items.size(); ++i) {
    const Node& item = value.node.items[i];
    LLMC_ASSIGN_OR_RETURN(std::string text,
                          ReadText({item, value.place.Child(absl::StrCat(i), item.line)}));
    list.push_back(std::move(text));
  }
  return list;
}

absl::StatusOr<std::vector<std::pair<std::string, Value>>> ReadEntries(const Value& value) {
  if (!value.node.is_map()) {
    return value.place.Error(absl::StrCat(Describe(value.node), ", expected a mapping"));
  }
  std::vector<std::pair<std::string, Value>> entries;
  for (size_t i = 0; i < value.node.entries.size(); ++i) {
    const auto& [key, node] = value.node.entries[i];
    entries.emplace_back(key, Value{node, value.place.Child(key, value.node.entry_lines[i])});
  }
  return entries;
}

absl::Status UnknownKey(const Place& place, absl::string_view key,
                        const std::vector<std::string>& known) {
  const std::string hint = DidYouMean(key, known);
  return place.Error(absl::StrCat(
      "unknown key", hint.empty() ? absl::StrCat(", known: ", absl::StrJoin(known, ", ")) : hint));
}

}  // namespace llmc
