// Unicode text as the `tokenizers` package sees it.
//
// The package mixes tables of several Unicode versions: its regular expressions
// follow Unicode 16, its normal forms and accents Unicode 9, its punctuation
// Unicode 8, its lower case Unicode 17. utf8proc follows Unicode 15; the
// functions here bridge the difference. All text is valid UTF-8 unless said.
#ifndef LLMC_TOKENIZER_UNICODE_H_
#define LLMC_TOKENIZER_UNICODE_H_

#include <cstddef>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace llmc {

// Offset of the first byte that is not part of well-formed UTF-8 (surrogates and
// overlong forms are not well-formed); nullopt when there is none.
std::optional<size_t> FirstInvalidUtf8(absl::string_view text);

// Bytes of the character that begins with `lead`: 1 to 4.
inline size_t Utf8Length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

// The character at `text[offset]`, the first byte of one.
char32_t DecodeUtf8(absl::string_view text, size_t offset);

// Offset of the character that ends just before `end`, > 0.
size_t PreviousCharacter(absl::string_view text, size_t end);

// The first boundary between characters at or after `offset`.
size_t CharacterEnd(absl::string_view text, size_t offset);

void AppendUtf8(char32_t c, std::string* out);

// Property White_Space.
bool IsWhiteSpace(char32_t c);

// General category N (Unicode 17).
bool IsNumeric(char32_t c);

// ASCII punctuation and symbols, or general category P (Unicode 8).
bool IsPunctuation(char32_t c);

// General category M (Unicode 9).
bool IsCombiningMark(char32_t c);

// Full lower case of one character, without context.
void AppendLowercase(char32_t c, std::string* out);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

// Unicode Standard Annex 15. Linear in the length of `text`, but for sorting
// each run of combining marks.
std::string ToNormalForm(absl::string_view text, NormalForm form);

// True when `text` has characters that PCRE2's Unicode tables do not know.
bool HasNewerCharacters(absl::string_view text);

// `text` with each such character replaced by an older one of the same general
// category and the same number of bytes, so that offsets stay valid.
std::string WithOlderCharacters(absl::string_view text);

}  // namespace llmc

#endif  // LLMC_TOKENIZER_UNICODE_H_
