// JSON from files that nobody vouches for.
#ifndef LLMC_CHECKPOINT_STRICT_JSON_H_
#define LLMC_CHECKPOINT_STRICT_JSON_H_

#include <filesystem>
#include <string>

#include "absl/strings/string_view.h"
#include "llmc/status.h"
#include "nlohmann/json.hpp"

namespace llmc {

struct JsonLimits {
  int64_t max_bytes = 16 << 20;
  int max_depth = 64;  // Nested objects and arrays.
};

// One JSON value and nothing after it. kInvalidArgument with line and column
// when malformed, too large, too deep, or when an object has a key twice
// (parsers disagree about which one counts). `where` begins the message.
absl::StatusOr<nlohmann::json> ParseStrictJson(absl::string_view text, absl::string_view where,
                                               const JsonLimits& limits = {});

// The same for a file. kNotFound when it does not exist.
absl::StatusOr<nlohmann::json> ReadStrictJson(const std::filesystem::path& path,
                                              const JsonLimits& limits = {});

// `text` for a message: in double quotes, everything but printable ASCII as
// \xNN, cut to 200 characters. Names in checkpoints are hostile.
std::string Quoted(absl::string_view text);

}  // namespace llmc

#endif  // LLMC_CHECKPOINT_STRICT_JSON_H_
