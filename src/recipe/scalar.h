// The types of plain YAML scalars, by the rules of YAML 1.1 that recipes are
// written for (yes is true, 012 is ten, ~ is null).
#ifndef LLMC_RECIPE_SCALAR_H_
#define LLMC_RECIPE_SCALAR_H_

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "absl/strings/string_view.h"

namespace llmc {

enum class ScalarType : uint8_t { kNull, kBool, kInt, kFloat, kString };

// What an unquoted scalar is. 1e-3 without a point counts as kFloat, although
// YAML 1.1 calls it a string: every reader of recipes converts it.
ScalarType ResolveScalar(absl::string_view text);

// The typed value; integers beyond 64 bits become strings.
nlohmann::json ScalarToJson(absl::string_view text);

}  // namespace llmc

#endif  // LLMC_RECIPE_SCALAR_H_
