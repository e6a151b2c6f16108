#include "report/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "report/utf8.h"

namespace llmc {
namespace {

constexpr int kMinColumns = 20;
constexpr int kDefaultColumns = 80;
constexpr int kMaxColumns = 1000;

absl::string_view Env(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? absl::string_view() : absl::string_view(value);
}

bool LocaleIsUtf8() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const absl::string_view value = Env(name);
    if (value.empty()) continue;
    const std::string lower = absl::AsciiStrToLower(value);
    return absl::StrContains(lower, "utf-8") || absl::StrContains(lower, "utf8");
  }
  return false;
}

bool WantsColor(ColorMode mode, bool is_live) {
  if (mode == ColorMode::kAlways) return true;
  if (mode == ColorMode::kNever) return false;
  return is_live && Env("NO_COLOR").empty();
}

std::string Escaped(const CodePoint& c) {
  if (!c.valid) return absl::StrFormat("\\x%02x", static_cast<unsigned>(c.value));
  if (c.value == '\n') return "\\n";
  if (c.value == '\t') return "\\t";
  if (c.value == '\r') return "\\r";
  if (c.value < 0x100) return absl::StrFormat("\\x%02x", static_cast<unsigned>(c.value));
  return absl::StrFormat("\\u{%04x}", static_cast<unsigned>(c.value));
}

// Length of the colour sequence ESC [ ... m at the start of `text`, else 0.
size_t ColorSequenceLength(absl::string_view text) {
  if (!absl::StartsWith(text, "\x1b[")) return 0;
  const size_t end = text.find_first_not_of("0123456789;", 2);
  return end != absl::string_view::npos && text[end] == 'm' ? end + 1 : 0;
}

// Bytes of the longest start of `text` that takes at most `columns` columns.
size_t BytesWithin(absl::string_view text, int columns) {
  size_t position = 0;
  while (position < text.size()) {
    const CodePoint c = DecodeAt(text, position);
    columns -= ColumnsOf(c.value);
    if (columns < 0) break;
    position += c.length;
  }
  return position;
}

// Bytes of the longest end of `text` that takes at most `columns` columns.
size_t TailBytesWithin(absl::string_view text, int columns) {
  int surplus = DisplayWidth(text) - columns;
  size_t position = 0;
  while (surplus > 0 && position < text.size()) {
    const CodePoint c = DecodeAt(text, position);
    surplus -= ColumnsOf(c.value);
    position += c.length;
  }
  return text.size() - position;
}

absl::string_view Ellipsis(bool unicode) { return unicode ? "…" : "..."; }

}  // namespace

int TerminalColumns(int fd) {
  winsize size{};
  int columns = 0;
  if (ioctl(fd, TIOCGWINSZ, &size) == 0) columns = size.ws_col;
  if (columns == 0 && !absl::SimpleAtoi(Env("COLUMNS"), &columns)) columns = kDefaultColumns;
  if (columns <= 0) columns = kDefaultColumns;
  return std::clamp(columns, kMinColumns, kMaxColumns);
}

Terminal DetectTerminal(int fd, ColorMode mode) {
  Terminal terminal;
  const absl::string_view term = Env("TERM");
  terminal.is_live = isatty(fd) == 1 && term != "dumb" && !term.empty();
  terminal.color = WantsColor(mode, terminal.is_live);
  terminal.unicode = LocaleIsUtf8();
  terminal.columns = TerminalColumns(fd);
  return terminal;
}

std::string EscapeForTerminal(absl::string_view text) {
  std::string out;
  for (size_t position = 0; position < text.size();) {
    const CodePoint c = DecodeAt(text, position);
    if (c.valid && !IsUnsafe(c.value)) {
      absl::StrAppend(&out, text.substr(position, c.length));
    } else {
      absl::StrAppend(&out, Escaped(c));
    }
    position += c.length;
  }
  return out;
}

int DisplayWidth(absl::string_view text) {
  int width = 0;
  for (size_t position = 0; position < text.size();) {
    if (const size_t skip = ColorSequenceLength(text.substr(position)); skip > 0) {
      position += skip;
      continue;
    }
    const CodePoint c = DecodeAt(text, position);
    width += ColumnsOf(c.value);
    position += c.length;
  }
  return width;
}

std::string TruncateToWidth(absl::string_view text, int columns, bool unicode) {
  if (DisplayWidth(text) <= columns) return std::string(text);
  const int dots = unicode ? 1 : 3;
  if (columns < dots) return std::string(text.substr(0, BytesWithin(text, columns)));
  return absl::StrCat(text.substr(0, BytesWithin(text, columns - dots)), Ellipsis(unicode));
}

std::string ShortenMiddle(absl::string_view text, int columns, bool unicode) {
  const int dots = unicode ? 1 : 3;
  if (DisplayWidth(text) <= columns) return std::string(text);
  if (columns < dots + 2) return TruncateToWidth(text, columns, unicode);
  const int head = (columns - dots) / 3;
  const size_t tail_bytes = TailBytesWithin(text, columns - dots - head);
  return absl::StrCat(text.substr(0, BytesWithin(text, head)), Ellipsis(unicode),
                      text.substr(text.size() - tail_bytes));
}

}  // namespace llmc
