// {{name}} in a recipe. Placeholders are marked before the text is parsed (a bare
// {{ }} would be a nested mapping to YAML) and filled in the parsed tree, so that a
// value can never change the structure around it.
#ifndef LLMC_RECIPE_PLACEHOLDERS_H_
#define LLMC_RECIPE_PLACEHOLDERS_H_

#include <map>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "llmc/status.h"
#include "recipe/document.h"

namespace llmc {

// `text` with every {{name}} between two private-use characters instead.
// kInvalidArgument when the text has those characters already.
absl::StatusOr<std::string> MarkPlaceholders(absl::string_view text);

// Replaces marked placeholders in all scalars and keys outside `args:` by `given`
// or else by the root's own `args:`. Returns the names in `args:` that nothing
// uses. kInvalidArgument "LINE: what": an unknown name, a value that is not a scalar
// inside longer text, an unused name in `given`, too many values.
absl::StatusOr<std::vector<std::string>> FillPlaceholders(
    Node& root, const std::map<std::string, std::string>& given);

}  // namespace llmc

#endif  // LLMC_RECIPE_PLACEHOLDERS_H_
