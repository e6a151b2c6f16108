// The {"String": ...} or {"Regex": ...} of Split and Replace.
#ifndef LLMC_TOKENIZER_SPLIT_PATTERN_H_
#define LLMC_TOKENIZER_SPLIT_PATTERN_H_

#include <string>

#include "llmc/status.h"
#include "tokenizer/json_fields.h"
#include "tokenizer/regex.h"

namespace llmc {

// Reads the member "pattern" of `json`.
absl::StatusOr<Regex> ParseSplitPattern(const Json& json, absl::string_view where);

}  // namespace llmc

#endif  // LLMC_TOKENIZER_SPLIT_PATTERN_H_
