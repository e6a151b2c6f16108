// One modifier from its node in the recipe.
#ifndef LLMC_RECIPE_MODIFIER_READER_H_
#define LLMC_RECIPE_MODIFIER_READER_H_

#include <string>
#include <utility>
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

// The readers of single classes, by file: quantization_reader.cc,
// smoothing_reader.cc, pruning_reader.cc.
// `fields` are the entries of `body`.
using FieldEntries = std::vector<std::pair<std::string, Value>>;
absl::StatusOr<Modifier> ReadQuantizationModifier(const Value& body, const FieldEntries& fields);
absl::StatusOr<Modifier> ReadGptqModifier(const Value& body, const FieldEntries& fields);
absl::StatusOr<Modifier> ReadSmoothQuantModifier(const Value& body, const FieldEntries& fields);
absl::StatusOr<Modifier> ReadLogEqualizationModifier(const Value& body, const FieldEntries& fields);
absl::StatusOr<Modifier> ReadAwqModifier(const Value& body, const FieldEntries& fields);
absl::StatusOr<Modifier> ReadSparseGptModifier(const Value& body, const FieldEntries& fields);
absl::StatusOr<Modifier> ReadWandaModifier(const Value& body, const FieldEntries& fields);
absl::StatusOr<Modifier> ReadMagnitudeModifier(const Value& body, const FieldEntries& fields);
absl::StatusOr<Modifier> ReadConstantPruningModifier(const Value& body, const FieldEntries& fields);

// Fields of a training past that every class has: index, group, start, end, update,
// requires_calibration_data. Checked for their type; without effect.
const std::vector<std::string>& LegacyKeys();
absl::Status CheckLegacyField(absl::string_view key, const Value& value);

}  // namespace llmc

#endif  // LLMC_RECIPE_MODIFIER_READER_H_
