// Python's str over UTF-8: code points, case, white space, slices.
#ifndef LLMC_DATASET_PYTHON_TEXT_H_
#define LLMC_DATASET_PYTHON_TEXT_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "tokenizer/unicode.h"

namespace llmc::dataset {

// The code point at `*position` of valid UTF-8; moves `*position` past it.
char32_t NextCodePoint(absl::string_view text, size_t* position);
std::u32string ToCodePoints(absl::string_view text);
std::string ToUtf8(const std::u32string& codes);
int64_t CodePointCount(absl::string_view text);

// str.isspace of one code point.
bool IsPythonSpace(char32_t code);
// str.isprintable of one code point, as repr() asks it.
bool IsPrintable(char32_t code);

// str.strip/lstrip/rstrip. `chars` absent: white space; else any of its code points.
struct StripSides {
  bool left = true;
  bool right = true;
};
absl::string_view Strip(absl::string_view text, StripSides sides = {},
                        std::optional<absl::string_view> chars = std::nullopt);

// Simple (one to one) case mappings of the C library's Unicode tables, plus the
// German sharp s; Python also has a few other one-to-many mappings.
std::string Upper(absl::string_view text);
std::string Lower(absl::string_view text);
std::string Capitalize(absl::string_view text);  // str.capitalize
std::string Title(absl::string_view text);       // str.title
bool IsAlphabetic(char32_t code);
bool IsUpper(char32_t code);
bool IsLower(char32_t code);

// repr(str): quotes and escapes.
std::string StringRepr(absl::string_view text);

// Byte offset of the first `part` in `text` or npos, in time linear in both lengths
// (a hostile template must not make a search quadratic).
size_t FindText(absl::string_view text, absl::string_view part);

// str.split: `separator` absent splits at runs of white space. At most `max_split`
// cuts when it is >= 0; `from_right` counts them from the end (rsplit).
struct SplitOptions {
  std::optional<absl::string_view> separator;
  int64_t max_split = -1;
  bool from_right = false;
};
std::vector<std::string> Split(absl::string_view text, const SplitOptions& options);

// str.splitlines(keepends).
std::vector<std::string> SplitLines(absl::string_view text, bool keep_ends);

// str.replace with at most `count` replacements when it is >= 0.
std::string Replace(absl::string_view text, absl::string_view from, absl::string_view to,
                    int64_t count);

// The elements that [start:stop:step] picks from `length`, as Python resolves it.
struct SliceBounds {
  std::optional<int64_t> start;
  std::optional<int64_t> stop;
  int64_t step = 1;  // Not 0.
};
std::vector<int64_t> SliceIndices(const SliceBounds& bounds, int64_t length);

}  // namespace llmc::dataset

#endif  // LLMC_DATASET_PYTHON_TEXT_H_
