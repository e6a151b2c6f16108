// Regular expressions in the syntax of Oniguruma, run by PCRE2.
#ifndef LLMC_TOKENIZER_REGEX_H_
#define LLMC_TOKENIZER_REGEX_H_

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/strings/string_view.h"
#include "llmc/status.h"

namespace llmc {

// Bytes [begin, end) of a text.
struct Span {
  size_t begin = 0;
  size_t end = 0;
};

// A compiled pattern. Immutable; several threads may match at once.
class Regex {
 public:
  // Oniguruma syntax, its default (Ruby-like) flavour. kInvalidArgument when the
  // pattern is wrong or uses something that llmc does not translate
  // (back-references, calls, absent operators, variable look-behind).
  static absl::StatusOr<Regex> Compile(absl::string_view pattern);

  // Matches `text` itself.
  static absl::StatusOr<Regex> CompileLiteral(absl::string_view text);

  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;
  ~Regex();

  // Appends every match, leftmost first, none overlapping; an empty match right
  // after the previous match is skipped. `text` is valid UTF-8.
  // kResourceExhausted when the pattern backtracks beyond PCRE2's limits.
  absl::Status FindAll(absl::string_view text, std::vector<Span>* matches) const;

  // True when the pattern can match nothing, e.g. "x*".
  bool CanMatchEmpty() const;

 private:
  struct Program;
  explicit Regex(std::unique_ptr<const Program> program);
  std::unique_ptr<const Program> program_;
};

}  // namespace llmc

#endif  // LLMC_TOKENIZER_REGEX_H_
