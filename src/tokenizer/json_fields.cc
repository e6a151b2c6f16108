#include "tokenizer/json_fields.h"

#include <limits>

#include "absl/strings/str_cat.h"

namespace llmc {
namespace {

absl::Status Expected(absl::string_view where, const char* key, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(where, ".", key, ": expected ", what));
}

}  // namespace

absl::StatusOr<Json> ParseJson(absl::string_view text, absl::string_view where) {
  try {
    return Json::parse(text.begin(), text.end());
  } catch (const Json::exception& e) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": damaged JSON: ", e.what()));
  }
}

const Json& Member(const Json& object, const char* key) {
  static const Json* const kNull = new Json();
  if (!object.is_object()) return *kNull;
  const auto it = object.find(key);
  return it == object.end() ? *kNull : *it;
}

absl::StatusOr<std::string> StringField(const Json& object, const char* key,
                                        absl::string_view where) {
  const Json& value = Member(object, key);
  if (!value.is_string()) return Expected(where, key, "a string");
  return value.get_ref<const std::string&>();
}

absl::StatusOr<bool> BoolField(const Json& object, const char* key, absl::string_view where) {
  const Json& value = Member(object, key);
  if (!value.is_boolean()) return Expected(where, key, "true or false");
  return value.get<bool>();
}

absl::StatusOr<const Json*> ArrayField(const Json& object, const char* key,
                                       absl::string_view where) {
  const Json& value = Member(object, key);
  if (!value.is_array()) return Expected(where, key, "an array");
  return &value;
}

absl::StatusOr<bool> BoolFieldOr(const Json& object, const char* key, bool otherwise,
                                 absl::string_view where) {
  if (Member(object, key).is_null()) return otherwise;
  return BoolField(object, key, where);
}

absl::StatusOr<std::optional<std::string>> OptionalStringField(const Json& object, const char* key,
                                                               absl::string_view where) {
  if (Member(object, key).is_null()) return std::optional<std::string>();
  LLMC_ASSIGN_OR_RETURN(std::string value, StringField(object, key, where));
  return std::optional<std::string>(std::move(value));
}

absl::StatusOr<int32_t> TokenIdOf(const Json& value, absl::string_view where) {
  if (value.is_number_unsigned()) {
    const auto id = value.get<uint64_t>();
    if (id < std::numeric_limits<int32_t>::max()) return static_cast<int32_t>(id);
  }
  return absl::InvalidArgumentError(
      absl::StrCat(where, ": expected a token id, an integer in [0, 2147483647)"));
}

absl::Status UnsupportedType(absl::string_view where, absl::string_view type,
                             absl::string_view expected) {
  return absl::InvalidArgumentError(
      absl::StrCat(where, ": type \"", type, "\" is not supported, expected ", expected));
}

}  // namespace llmc
