// UTF-8, one character at a time, for text that may not be UTF-8 at all.
#ifndef LLMC_SRC_REPORT_UTF8_H_
#define LLMC_SRC_REPORT_UTF8_H_

#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace llmc {

struct CodePoint {
  char32_t value = 0;
  size_t length = 1;   // Bytes taken, >= 1.
  bool valid = false;  // False: one byte that starts no well-formed sequence.
};

// The character at `text[position]`, position < text.size(). Overlong forms,
// surrogates and values above U+10FFFF are not valid.
CodePoint DecodeAt(absl::string_view text, size_t position);

// Control, line separator, zero-width or direction-changing: must not be shown raw.
bool IsUnsafe(char32_t c);

// Columns on a terminal: 0, 1 or 2.
int ColumnsOf(char32_t c);

}  // namespace llmc

#endif  // LLMC_SRC_REPORT_UTF8_H_
