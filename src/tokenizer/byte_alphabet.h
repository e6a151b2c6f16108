// GPT-2's alphabet: each of the 256 bytes as one printable character, so that
// byte-level tokens are readable strings.
#ifndef LLMC_TOKENIZER_BYTE_ALPHABET_H_
#define LLMC_TOKENIZER_BYTE_ALPHABET_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace llmc {

// The character, in UTF-8, for `byte`: itself for '!'..'~', U+00A1..U+00AC and
// U+00AE..U+00FF, otherwise the next one from U+0100 on.
absl::string_view ByteCharacter(uint8_t byte);

// Every byte of `bytes` by its character.
std::string ToByteAlphabet(absl::string_view bytes);

}  // namespace llmc

#endif  // LLMC_TOKENIZER_BYTE_ALPHABET_H_
