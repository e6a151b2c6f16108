#include "dataset/python_text.h"

#include <locale.h>
#include <string.h>
#include <wctype.h>

#include <algorithm>

#include "absl/strings/str_format.h"

namespace llmc::dataset {
namespace {

// A locale of our own: the process's setlocale() must not change token ids.
locale_t Unicode() {
  static const locale_t kLocale = newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  return kLocale;
}

char32_t ToUpper(char32_t code) {
  if (code < 0x80) return code >= 'a' && code <= 'z' ? code - 32 : code;
  return Unicode() == nullptr ? code : towupper_l(static_cast<wint_t>(code), Unicode());
}

char32_t ToLower(char32_t code) {
  if (code < 0x80) return code >= 'A' && code <= 'Z' ? code + 32 : code;
  return Unicode() == nullptr ? code : towlower_l(static_cast<wint_t>(code), Unicode());
}

void AppendUpper(char32_t code, std::string* out) {
  if (code == 0xdf) {
    *out += "SS";
  } else {
    AppendUtf8(ToUpper(code), out);
  }
}

void AppendTitle(char32_t code, std::string* out) {
  if (code == 0xdf) {
    *out += "Ss";
  } else {
    AppendUtf8(ToUpper(code), out);
  }
}

bool IsLineEnd(char32_t code) {
  return (code >= 0x0a && code <= 0x0d) || (code >= 0x1c && code <= 0x1e) || code == 0x85 ||
         code == 0x2028 || code == 0x2029;
}

struct Word {
  size_t start;
  size_t end;
};

std::vector<Word> FindWords(absl::string_view text) {
  std::vector<Word> words;
  bool inside = false;
  for (size_t i = 0; i < text.size();) {
    const size_t start = i;
    const bool space = IsPythonSpace(NextCodePoint(text, &i));
    if (!space && !inside) words.push_back({start, i});
    if (!space) words.back().end = i;
    inside = !space;
  }
  return words;
}

// The uncut rest keeps the white space at its far end, as in Python.
std::vector<std::string> SplitAtSpace(absl::string_view text, const SplitOptions& options) {
  std::vector<Word> words = FindWords(text);
  if (options.from_right) std::reverse(words.begin(), words.end());
  std::vector<std::string> parts;
  for (const Word& word : words) {
    if (options.max_split >= 0 && static_cast<int64_t>(parts.size()) == options.max_split) {
      parts.emplace_back(options.from_right ? text.substr(0, word.end) : text.substr(word.start));
      break;
    }
    parts.emplace_back(text.substr(word.start, word.end - word.start));
  }
  return parts;
}

std::vector<std::string> SplitAtText(absl::string_view text, absl::string_view separator,
                                     const SplitOptions& options) {
  std::vector<std::string> parts;
  while (options.max_split < 0 || static_cast<int64_t>(parts.size()) < options.max_split) {
    const size_t at = options.from_right ? text.rfind(separator) : FindText(text, separator);
    if (at == absl::string_view::npos) break;
    if (options.from_right) {
      parts.emplace_back(text.substr(at + separator.size()));
      text = text.substr(0, at);
    } else {
      parts.emplace_back(text.substr(0, at));
      text.remove_prefix(at + separator.size());
    }
  }
  parts.emplace_back(text);
  return parts;
}

}  // namespace

char32_t NextCodePoint(absl::string_view text, size_t* position) {
  const auto lead = static_cast<unsigned char>(text[*position]);
  const size_t length = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  char32_t code = length == 1 ? lead : lead & (0xff >> (length + 1));
  for (size_t i = 1; i < length && *position + i < text.size(); ++i) {
    code = (code << 6) | (static_cast<unsigned char>(text[*position + i]) & 0x3f);
  }
  *position = std::min(*position + length, text.size());
  return code;
}

std::u32string ToCodePoints(absl::string_view text) {
  std::u32string codes;
  codes.reserve(text.size());
  for (size_t i = 0; i < text.size();) codes.push_back(NextCodePoint(text, &i));
  return codes;
}

std::string ToUtf8(const std::u32string& codes) {
  std::string text;
  for (const char32_t code : codes) AppendUtf8(code, &text);
  return text;
}

int64_t CodePointCount(absl::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; });
}

bool IsPythonSpace(char32_t code) {
  return (code >= 0x09 && code <= 0x0d) || (code >= 0x1c && code <= 0x20) || code == 0x85 ||
         code == 0xa0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 ||
         code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}

bool IsPrintable(char32_t code) {
  if (code < 0x7f) return code >= 0x20;
  if (code < 0xa1 || code == 0xad || IsPythonSpace(code)) return false;
  const bool format_character = (code >= 0x200b && code <= 0x200f) ||
                                (code >= 0x202a && code <= 0x202e) ||
                                (code >= 0x2060 && code <= 0x206f) || code == 0xfeff;
  if (format_character) return false;
  return Unicode() == nullptr || iswprint_l(static_cast<wint_t>(code), Unicode()) != 0;
}

absl::string_view Strip(absl::string_view text, StripSides sides,
                        std::optional<absl::string_view> chars) {
  const std::u32string set = chars ? ToCodePoints(*chars) : std::u32string();
  const auto strips = [&](char32_t code) {
    return chars ? set.find(code) != std::u32string::npos : IsPythonSpace(code);
  };
  while (sides.left && !text.empty()) {
    size_t next = 0;
    if (!strips(NextCodePoint(text, &next))) break;
    text.remove_prefix(next);
  }
  while (sides.right && !text.empty()) {
    size_t start = text.size() - 1;
    while (start > 0 && (text[start] & 0xc0) == 0x80) --start;
    size_t next = start;
    if (!strips(NextCodePoint(text, &next))) break;
    text = text.substr(0, start);
  }
  return text;
}

std::string Upper(absl::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) AppendUpper(NextCodePoint(text, &i), &out);
  return out;
}

std::string Lower(absl::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) AppendUtf8(ToLower(NextCodePoint(text, &i)), &out);
  return out;
}

std::string Capitalize(absl::string_view text) {
  if (text.empty()) return "";
  std::string out;
  size_t next = 0;
  AppendTitle(NextCodePoint(text, &next), &out);
  return out + Lower(text.substr(next));
}

std::string Title(absl::string_view text) {
  std::string out;
  bool inside_word = false;
  for (size_t i = 0; i < text.size();) {
    const char32_t code = NextCodePoint(text, &i);
    if (inside_word) {
      AppendUtf8(ToLower(code), &out);
    } else {
      AppendTitle(code, &out);
    }
    inside_word = IsUpper(code) || IsLower(code);
  }
  return out;
}

bool IsAlphabetic(char32_t code) {
  if (code < 0x80) return (code >= 'a' && code <= 'z') || (code >= 'A' && code <= 'Z');
  return Unicode() != nullptr && iswalpha_l(static_cast<wint_t>(code), Unicode()) != 0;
}

bool IsUpper(char32_t code) { return ToLower(code) != code; }

bool IsLower(char32_t code) { return ToUpper(code) != code || code == 0xdf; }

std::string StringRepr(absl::string_view text) {
  const bool has_single = text.find('\'') != absl::string_view::npos;
  const bool has_double = text.find('"') != absl::string_view::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  std::string out(1, quote);
  for (size_t i = 0; i < text.size();) {
    const char32_t code = NextCodePoint(text, &i);
    if (code == static_cast<char32_t>(quote) || code == '\\') {
      out += '\\';
      out += static_cast<char>(code);
    } else if (code == '\n' || code == '\r' || code == '\t') {
      out += code == '\n' ? "\\n" : code == '\r' ? "\\r" : "\\t";
    } else if (IsPrintable(code)) {
      AppendUtf8(code, &out);
    } else if (code < 0x100) {
      out += absl::StrFormat("\\x%02x", static_cast<uint32_t>(code));
    } else if (code < 0x10000) {
      out += absl::StrFormat("\\u%04x", static_cast<uint32_t>(code));
    } else {
      out += absl::StrFormat("\\U%08x", static_cast<uint32_t>(code));
    }
  }
  return out + quote;
}

size_t FindText(absl::string_view text, absl::string_view part) {
  if (part.size() == 1) return text.find(part[0]);
  const void* found = memmem(text.data(), text.size(), part.data(), part.size());
  if (found == nullptr) return absl::string_view::npos;
  return static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

std::vector<std::string> Split(absl::string_view text, const SplitOptions& options) {
  std::vector<std::string> parts = options.separator
                                       ? SplitAtText(text, *options.separator, options)
                                       : SplitAtSpace(text, options);
  if (options.from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string> SplitLines(absl::string_view text, bool keep_ends) {
  std::vector<std::string> lines;
  size_t line = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t end = i;
    const char32_t code = NextCodePoint(text, &i);
    if (!IsLineEnd(code)) continue;
    if (code == '\r' && i < text.size() && text[i] == '\n') ++i;
    lines.emplace_back(text.substr(line, (keep_ends ? i : end) - line));
    line = i;
  }
  if (line < text.size()) lines.emplace_back(text.substr(line));
  return lines;
}

std::string Replace(absl::string_view text, absl::string_view from, absl::string_view to,
                    int64_t count) {
  std::string out;
  int64_t done = 0;
  if (from.empty()) {
    for (size_t i = 0; i < text.size();) {
      if (count < 0 || done++ < count) out += std::string(to);
      const size_t start = i;
      NextCodePoint(text, &i);
      out += std::string(text.substr(start, i - start));
    }
    if (count < 0 || done < count) out += std::string(to);
    return out;
  }
  while (count < 0 || done < count) {
    const size_t at = FindText(text, from);
    if (at == absl::string_view::npos) break;
    out.append(text.data(), at);
    out.append(to.data(), to.size());
    text.remove_prefix(at + from.size());
    ++done;
  }
  out.append(text.data(), text.size());
  return out;
}

std::vector<int64_t> SliceIndices(const SliceBounds& bounds, int64_t length) {
  const bool forward = bounds.step > 0;
  const int64_t low = forward ? 0 : -1;
  const int64_t high = forward ? length : length - 1;
  const auto resolve = [&](std::optional<int64_t> bound, int64_t fallback) {
    if (!bound) return fallback;
    return std::clamp(*bound < 0 ? *bound + length : *bound, low, high);
  };
  const int64_t start = resolve(bounds.start, forward ? low : high);
  const int64_t stop = resolve(bounds.stop, forward ? high : low);
  const int64_t distance = forward ? stop - start : start - stop;
  std::vector<int64_t> indices;
  if (distance <= 0) return indices;
  // The magnitude in unsigned form: -INT64_MIN does not exist.
  const uint64_t step = forward ? static_cast<uint64_t>(bounds.step)
                                : uint64_t{0} - static_cast<uint64_t>(bounds.step);
  const uint64_t count = (static_cast<uint64_t>(distance) - 1) / step + 1;
  for (uint64_t i = 0; i < count; ++i) {
    const auto offset = static_cast<int64_t>(i * step);
    indices.push_back(forward ? start + offset : start - offset);
  }
  return indices;
}

}  // namespace llmc::dataset
