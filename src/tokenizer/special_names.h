// What tokenizer_config.json adds to tokenizer.json.
#ifndef LLMC_TOKENIZER_SPECIAL_NAMES_H_
#define LLMC_TOKENIZER_SPECIAL_NAMES_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "llmc/status.h"
#include "tokenizer/json_fields.h"

namespace llmc {

struct SpecialNames {
  std::optional<std::string> bos_token;
  std::optional<std::string> eos_token;
  std::optional<std::string> pad_token;
  std::optional<std::string> unk_token;
  std::optional<int64_t> model_max_length;  // In tokens.
  std::optional<std::string> chat_template;
};

// Fills what `names` lacks from the text of a tokenizer_config.json or
// special_tokens_map.json. kInvalidArgument when it is not a JSON object.
absl::Status MergeSpecialNames(absl::string_view text, absl::string_view where,
                               SpecialNames* names);

}  // namespace llmc

#endif  // LLMC_TOKENIZER_SPECIAL_NAMES_H_
