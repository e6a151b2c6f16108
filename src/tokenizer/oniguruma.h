// Translation of regular expressions from Oniguruma's syntax to PCRE2's.
#ifndef LLMC_TOKENIZER_ONIGURUMA_H_
#define LLMC_TOKENIZER_ONIGURUMA_H_

#include <string>

#include "absl/strings/string_view.h"
#include "llmc/status.h"

namespace llmc {

// A pattern for PCRE2 (UTF, UCP, MULTILINE, newline LF) that matches what
// Oniguruma's default syntax matches with `pattern`, given Unicode text. Where
// the two differ: \s, \w, \h, \v, \b and POSIX brackets mean other sets; {n,m}+
// repeats instead of being possessive; (?m) makes the dot match a newline;
// classes nest and intersect (&&); \p{Script} is the script, not the script
// extensions. Groups do not capture. kInvalidArgument for what has no
// counterpart, saying what it is.
absl::StatusOr<std::string> PatternFromOniguruma(absl::string_view pattern);

}  // namespace llmc

#endif  // LLMC_TOKENIZER_ONIGURUMA_H_
