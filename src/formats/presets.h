// The preset schemes of compressed-tensors, by name: W4A16, FP8_DYNAMIC, ...
#ifndef LLMC_FORMATS_PRESETS_H_
#define LLMC_FORMATS_PRESETS_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "llmc/scheme.h"
#include "llmc/status.h"

namespace llmc {

// All names, upper case, sorted: FP8 ... W8A8, with UNQUANTIZED (a scheme with no
// parts) and INT8 (the same scheme as W8A8).
const std::vector<std::string>& PresetNames();

bool IsPresetName(absl::string_view name);  // Case-insensitive.

// The scheme as the preset defines it: observers are those the preset names
// itself (static_minmax of FP8 and NVFP4 inputs), other observers are empty;
// `format` is InferFormat's. kInvalidArgument with the nearest name if unknown.
absl::StatusOr<Scheme> PresetScheme(absl::string_view name);

}  // namespace llmc

#endif  // LLMC_FORMATS_PRESETS_H_
