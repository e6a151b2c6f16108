// JSON text to Value, and Value to JSON as Python's json.dumps writes it.
#ifndef LLMC_DATASET_JSON_TEXT_H_
#define LLMC_DATASET_JSON_TEXT_H_

#include <string>

#include "absl/strings/string_view.h"
#include "dataset/value.h"
#include "llmc/status.h"

namespace llmc::dataset {

// One JSON value (strict RFC 8259, UTF-8). kInvalidArgument "byte N: what" when it is
// broken, nested deeper than 100 or made of more than 4 million values.
absl::StatusOr<Value> ParseJson(absl::string_view text);

// The keyword arguments of json.dumps.
struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  bool has_indent = false;  // False: one line.
  std::string indent;       // What one level is indented by.
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};

// kInvalidArgument when `value` holds something JSON has no form for (undefined,
// functions); kResourceExhausted beyond `max_bytes`.
absl::StatusOr<std::string> DumpJson(const Value& value, const JsonStyle& style, size_t max_bytes);

// Python's repr(float): the shortest digits that read back the same.
std::string FloatRepr(double value);

}  // namespace llmc::dataset

#endif  // LLMC_DATASET_JSON_TEXT_H_
