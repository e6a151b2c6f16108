// Where the Unicode versions inside the `tokenizers` package differ from those of
// utf8proc 2.8 (Unicode 15) and PCRE2 10.42 (Unicode 14). Every table is sorted.
#ifndef LLMC_TOKENIZER_UNICODE_RANGES_H_
#define LLMC_TOKENIZER_UNICODE_RANGES_H_

#include <span>

namespace llmc {

struct CodePointRange {
  char32_t first;
  char32_t last;
};

// Characters that PCRE2 10.42 does not know, or files under another category,
// and an older character of the same category and length to stand for them.
struct CodePointStandIn {
  char32_t first;
  char32_t last;
  char32_t stand_in;
};
std::span<const CodePointStandIn> NewerCharacters();

// Marks assigned after Unicode 9: not accents to the package, and inert in its
// normal forms (no reordering, no composition).
std::span<const CodePointRange> NewerMarks();

// Characters that decompose in utf8proc but not in the package.
std::span<const CodePointRange> NewerDecompositions();

// Punctuation assigned after Unicode 8.
std::span<const CodePointRange> NewerPunctuation();

// Numbers assigned after Unicode 15.
std::span<const CodePointRange> NewerNumbers();

// Upper-case letters assigned after Unicode 15; `stand_in` is the lower case of
// `first`, and the rest of the range follows it one to one.
std::span<const CodePointStandIn> NewerLowercase();

}  // namespace llmc

#endif  // LLMC_TOKENIZER_UNICODE_RANGES_H_
