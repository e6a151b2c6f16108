// Character classes of Oniguruma as PCRE2 atoms; part of the translation of
// regular expressions.
#ifndef LLMC_TOKENIZER_CHARACTER_CLASS_H_
#define LLMC_TOKENIZER_CHARACTER_CLASS_H_

#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "llmc/status.h"

namespace llmc {

// \w as items of a PCRE2 class: Alphabetic, marks, decimal digits, connectors and
// the Latin-1 superscripts and fractions.
extern const absl::string_view kOnigurumaWordItems;

// One escape that stands for a character or for a set of characters.
struct ClassEscape {
  std::string items;                  // The set, as items of a PCRE2 class.
  bool negated = false;               // The escape is the complement of `items`.
  std::optional<char32_t> character;  // The one character, when it is one.

  // A PCRE2 atom that matches exactly one character of the set.
  std::string Atom() const;
};

// Reads the escape whose backslash is at `*pos` and moves `*pos` behind it.
absl::StatusOr<ClassEscape> ParseClassEscape(absl::string_view pattern, size_t* pos);

// Reads the class whose '[' is at `*pos`, moves `*pos` behind its ']' and returns
// an atom that matches exactly one character. Classes may nest and intersect.
absl::StatusOr<std::string> ParseCharacterClass(absl::string_view pattern, size_t* pos);

}  // namespace llmc

#endif  // LLMC_TOKENIZER_CHARACTER_CLASS_H_
