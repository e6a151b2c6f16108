// Reading fields of tokenizer.json with errors that name the place.
//
// `where` is the path of the object in the file, "model" or "pre_tokenizer[1]".
#ifndef LLMC_TOKENIZER_JSON_FIELDS_H_
#define LLMC_TOKENIZER_JSON_FIELDS_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "llmc/status.h"

namespace llmc {

using Json = nlohmann::json;

// kInvalidArgument when `text` is not JSON; the message gives the byte.
absl::StatusOr<Json> ParseJson(absl::string_view text, absl::string_view where);

// The member `key` of `object`; null when it is absent or `object` is no object.
const Json& Member(const Json& object, const char* key);

// Every function below: kInvalidArgument "where.key: expected ..." when the member
// is absent or of another kind.
absl::StatusOr<std::string> StringField(const Json& object, const char* key,
                                        absl::string_view where);
absl::StatusOr<bool> BoolField(const Json& object, const char* key, absl::string_view where);
absl::StatusOr<const Json*> ArrayField(const Json& object, const char* key,
                                       absl::string_view where);

// An absent or null member gives `otherwise`.
absl::StatusOr<bool> BoolFieldOr(const Json& object, const char* key, bool otherwise,
                                 absl::string_view where);
absl::StatusOr<std::optional<std::string>> OptionalStringField(const Json& object, const char* key,
                                                               absl::string_view where);

// A token id: an integer in [0, 2^31 - 1).
absl::StatusOr<int32_t> TokenIdOf(const Json& value, absl::string_view where);

// Error for a `type` that llmc does not read.
absl::Status UnsupportedType(absl::string_view where, absl::string_view type,
                             absl::string_view expected);

}  // namespace llmc

#endif  // LLMC_TOKENIZER_JSON_FIELDS_H_
