#include "tokenizer/split_pattern.h"

#include "absl/strings/str_cat.h"

namespace llmc {

absl::StatusOr<Regex> ParseSplitPattern(const Json& json, absl::string_view where) {
  const std::string at = absl::StrCat(where, ".pattern");
  const Json& pattern = Member(json, "pattern");
  const Json& text = Member(pattern, "String");
  absl::StatusOr<Regex> regex = absl::InvalidArgumentError("expected a String or a Regex");
  if (text.is_string()) {
    regex = Regex::CompileLiteral(text.get_ref<const std::string&>());
  } else if (const Json& source = Member(pattern, "Regex"); source.is_string()) {
    regex = Regex::Compile(source.get_ref<const std::string&>());
  }
  if (!regex.ok()) return At(at, regex.status());
  return regex;
}

}  // namespace llmc
