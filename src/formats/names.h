// Names of the formats' enums as compressed-tensors spells them in JSON and YAML.
#ifndef LLMC_FORMATS_NAMES_H_
#define LLMC_FORMATS_NAMES_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "llmc/scheme.h"
#include "llmc/status.h"

namespace llmc {

absl::string_view NumberTypeName(NumberType type);        // "int", "float"
absl::string_view StrategyName(Strategy strategy);        // "tensor", "tensor_group", ...
absl::string_view ActOrderName(ActOrder actorder);        // "weight", "static"
absl::string_view FormatName(Format format);              // "pack-quantized", "dense", ...
absl::string_view SparseFormatName(SparseFormat format);  // "sparse-24-bitmask", "dense", ...

// Case-insensitive, as the reference reads them; those of formats are exact.
// kInvalidArgument lists the known names.
absl::StatusOr<NumberType> NumberTypeFromName(absl::string_view name);
absl::StatusOr<Strategy> StrategyFromName(absl::string_view name);
absl::StatusOr<Format> FormatFromName(absl::string_view name);
absl::StatusOr<SparseFormat> SparseFormatFromName(absl::string_view name);

// "weight" and "static". kInvalidArgument for the removed orders "group" and
// "dynamic", with what to write instead.
absl::StatusOr<ActOrder> ActOrderFromName(absl::string_view name);

// The candidate with the smallest edit distance to `word` (case ignored), or ""
// when none is near enough to be a likely misspelling.
std::string NearestName(absl::string_view word, const std::vector<std::string>& candidates);

// ", did you mean 'NAME'?" or "", to end a message about an unknown name.
std::string DidYouMean(absl::string_view word, const std::vector<std::string>& candidates);

}  // namespace llmc

#endif  // LLMC_FORMATS_NAMES_H_
