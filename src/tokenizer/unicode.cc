#include "tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "tokenizer/unicode_ranges.h"

namespace llmc {
namespace {

template <typename Range>
const Range* FindRange(std::span<const Range> ranges, char32_t c) {
  const auto after = std::upper_bound(ranges.begin(), ranges.end(), c,
                                      [](char32_t v, const Range& r) { return v < r.first; });
  if (after == ranges.begin() || c > std::prev(after)->last) return nullptr;
  return &*std::prev(after);
}

bool IsContinuation(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

// Length of the well-formed character at `offset`, 0 when there is none (Unicode
// Standard, table 3-7).
size_t WellFormedLength(absl::string_view text, size_t offset) {
  const auto lead = static_cast<unsigned char>(text[offset]);
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  const size_t length = Utf8Length(text[offset]);
  if (text.size() - offset < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if (!IsContinuation(text[offset + i])) return 0;
  }
  const auto second = static_cast<unsigned char>(text[offset + 1]);
  const bool bad = (lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F) ||
                   (lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second > 0x8F);
  return bad ? 0 : length;
}

size_t SkipAscii(absl::string_view text, size_t offset) {
  while (offset + 8 <= text.size()) {
    uint64_t word;
    std::memcpy(&word, text.data() + offset, 8);
    if (word & 0x8080808080808080u) break;
    offset += 8;
  }
  while (offset < text.size() && static_cast<unsigned char>(text[offset]) < 0x80) ++offset;
  return offset;
}

// True when the package treats `c` as a character without any decomposition,
// combining class or composition, whatever utf8proc knows of it.
bool IsInert(char32_t c) {
  return FindRange(NewerMarks(), c) || FindRange(NewerDecompositions(), c);
}

int CombiningClass(int32_t c) { return utf8proc_get_property(c)->combining_class; }

// Canonical Ordering Algorithm. utf8proc's own is quadratic in a run of marks.
void SortMarks(std::vector<int32_t>* text) {
  for (size_t begin = 0; begin < text->size();) {
    size_t end = begin;
    while (end < text->size() && CombiningClass((*text)[end]) != 0) ++end;
    if (end - begin > 1) {
      std::stable_sort(text->begin() + begin, text->begin() + end,
                       [](int32_t a, int32_t b) { return CombiningClass(a) < CombiningClass(b); });
    }
    begin = std::max(end, begin + 1);
  }
}

void AppendDecomposition(char32_t c, bool compatible, std::vector<int32_t>* out) {
  // The longest decomposition, of U+FDFA, has 18 characters.
  std::array<int32_t, 32> buffer;
  const int options = UTF8PROC_DECOMPOSE | UTF8PROC_STABLE | (compatible ? UTF8PROC_COMPAT : 0);
  const auto length = utf8proc_decompose_char(static_cast<int32_t>(c), buffer.data(), buffer.size(),
                                              static_cast<utf8proc_option_t>(options), nullptr);
  out->insert(out->end(), buffer.begin(), buffer.begin() + length);
}

void Compose(std::vector<int32_t>* text) {
  const auto length =
      utf8proc_normalize_utf32(text->data(), static_cast<utf8proc_ssize_t>(text->size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  text->resize(static_cast<size_t>(length));
}

void FlushSegment(NormalForm form, std::vector<int32_t>* segment, std::string* out) {
  SortMarks(segment);
  if (form == NormalForm::kNfc || form == NormalForm::kNfkc) Compose(segment);
  for (const int32_t c : *segment) AppendUtf8(static_cast<char32_t>(c), out);
  segment->clear();
}

}  // namespace

std::optional<size_t> FirstInvalidUtf8(absl::string_view text) {
  for (size_t offset = SkipAscii(text, 0); offset < text.size();) {
    const size_t length = WellFormedLength(text, offset);
    if (length == 0) return offset;
    offset += length;
    if (offset < text.size() && static_cast<unsigned char>(text[offset]) < 0x80) {
      offset = SkipAscii(text, offset);
    }
  }
  return std::nullopt;
}

char32_t DecodeUtf8(absl::string_view text, size_t offset) {
  const auto byte = [&](size_t i) {
    return static_cast<char32_t>(static_cast<unsigned char>(text[offset + i]));
  };
  switch (Utf8Length(text[offset])) {
    case 1:
      return byte(0);
    case 2:
      return (byte(0) & 0x1F) << 6 | (byte(1) & 0x3F);
    case 3:
      return (byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    default:
      return (byte(0) & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 |
             (byte(3) & 0x3F);
  }
}

size_t PreviousCharacter(absl::string_view text, size_t end) {
  do {
    --end;
  } while (end > 0 && IsContinuation(text[end]));
  return end;
}

size_t CharacterEnd(absl::string_view text, size_t offset) {
  while (offset < text.size() && IsContinuation(text[offset])) ++offset;
  return offset;
}

void AppendUtf8(char32_t c, std::string* out) {
  std::array<utf8proc_uint8_t, 4> bytes;
  const auto length = utf8proc_encode_char(static_cast<int32_t>(c), bytes.data());
  out->append(reinterpret_cast<const char*>(bytes.data()), static_cast<size_t>(length));
}

bool IsWhiteSpace(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= '\t' && c <= '\r');
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool IsNumeric(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  return utf8proc_category_string(static_cast<int32_t>(c))[0] == 'N' ||
         FindRange(NewerNumbers(), c);
}

bool IsPunctuation(char32_t c) {
  if (c < 0x80) {
    return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
           (c >= '{' && c <= '~');
  }
  // Punctuation in Unicode 8, filed elsewhere since.
  if (c == 0x166D || c == 0x111C9) return true;
  return utf8proc_category_string(static_cast<int32_t>(c))[0] == 'P' &&
         !FindRange(NewerPunctuation(), c);
}

bool IsCombiningMark(char32_t c) {
  if (c < 0x300) return false;
  // Marks in Unicode 9, letters since.
  if (c == 0x1CF2 || c == 0x1CF3) return true;
  return utf8proc_category_string(static_cast<int32_t>(c))[0] == 'M' && !FindRange(NewerMarks(), c);
}

void AppendLowercase(char32_t c, std::string* out) {
  if (c < 0x80) {
    out->push_back(static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c));
  } else if (c == 0x130) {
    // The one character whose lower case is two: i and a dot above.
    out->append("i\xCC\x87");
  } else if (const CodePointStandIn* newer = FindRange(NewerLowercase(), c)) {
    AppendUtf8(newer->stand_in + (c - newer->first), out);
  } else {
    AppendUtf8(static_cast<char32_t>(utf8proc_tolower(static_cast<int32_t>(c))), out);
  }
}

std::string ToNormalForm(absl::string_view text, NormalForm form) {
  const bool compatible = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  std::string out;
  out.reserve(text.size());
  std::vector<int32_t> segment;
  for (size_t offset = 0; offset < text.size();) {
    const size_t ascii_end = SkipAscii(text, offset);
    // The last ASCII character may combine with what follows it.
    if (ascii_end > offset + 1) {
      FlushSegment(form, &segment, &out);
      out.append(text.data() + offset, ascii_end - 1 - offset);
      offset = ascii_end - 1;
    }
    const char32_t c = DecodeUtf8(text, offset);
    offset += Utf8Length(text[offset]);
    if (c >= 0x80 && IsInert(c)) {
      FlushSegment(form, &segment, &out);
      AppendUtf8(c, &out);
    } else {
      AppendDecomposition(c, compatible, &segment);
    }
  }
  FlushSegment(form, &segment, &out);
  return out;
}

bool HasNewerCharacters(absl::string_view text) {
  for (size_t offset = SkipAscii(text, 0); offset < text.size();) {
    const size_t length = Utf8Length(text[offset]);
    if (length >= 3 && FindRange(NewerCharacters(), DecodeUtf8(text, offset))) return true;
    offset = SkipAscii(text, offset + length);
  }
  return false;
}

std::string WithOlderCharacters(absl::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t offset = 0; offset < text.size();) {
    const size_t length = Utf8Length(text[offset]);
    const CodePointStandIn* newer = nullptr;
    if (length >= 3) newer = FindRange(NewerCharacters(), DecodeUtf8(text, offset));
    if (newer) {
      AppendUtf8(newer->stand_in, &out);
    } else {
      out.append(text.data() + offset, length);
    }
    offset += length;
  }
  return out;
}

}  // namespace llmc
