// One modifier from its node in the recipe.
#ifndef LLMC_RECIPE_MODIFIER_READER_H_
#define LLMC_RECIPE_MODIFIER_READER_H_

#include <string>
#include <vector>

#include "llmc/status.h"
#include "recipe/fields.h"
#include "recipe/recipe.h"

namespace llmc {

// Class names that recipes of LLM Compressor may use, whether llmc has them or not.
const std::vector<std::string>& KnownModifierNames();

// Reads and resolves the modifier `class_name` with fields `body` (a map, or null
// for none). kInvalidArgument: an unknown class (with the nearest known one), an
// unknown field, a value out of range, a scheme that no format stores, neither
// scheme nor groups. kUnimplemented: a known class that llmc does not have.
absl::StatusOr<Modifier> ReadModifier(const std::string& class_name, const Value& body);

}  // namespace llmc

#endif  // LLMC_RECIPE_MODIFIER_READER_H_
