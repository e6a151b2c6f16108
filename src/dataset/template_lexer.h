// Cuts template source into tokens and applies Jinja's white space rules.
#ifndef LLMC_DATASET_TEMPLATE_LEXER_H_
#define LLMC_DATASET_TEMPLATE_LEXER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "llmc/status.h"

namespace llmc::dataset {

enum class TokenKind : uint8_t {
  kText,        // Template text between tags.
  kBlockBegin,  // {%
  kBlockEnd,
  kOutputBegin,  // {{
  kOutputEnd,
  kName,
  kString,  // `text` is unescaped.
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;
  int line = 1;
};

// As jinja2 with trim_blocks and lstrip_blocks: the newline after a block or comment
// tag is dropped, and so is white space before one that starts its line; "-" strips
// all white space on its side, "+" keeps it; one newline at the end of the source is
// dropped; line ends become "\n". The last token is kEnd. kInvalidArgument
// "line: what" for an unclosed tag or text that is no token.
absl::StatusOr<std::vector<Token>> LexTemplate(absl::string_view source);

}  // namespace llmc::dataset

#endif  // LLMC_DATASET_TEMPLATE_LEXER_H_
