// What the other end of a file descriptor can show, and text that is safe there.
#ifndef LLMC_SRC_REPORT_TERMINAL_H_
#define LLMC_SRC_REPORT_TERMINAL_H_

#include <string>

#include "absl/strings/string_view.h"

namespace llmc {

// --color=auto|always|never.
enum class ColorMode : uint8_t { kAuto, kAlways, kNever };

struct Terminal {
  bool is_live = false;  // A terminal that can move its cursor (TERM is not "dumb").
  bool color = false;    // Escape sequences for colour may be written.
  bool unicode = false;  // The locale is UTF-8.
  int columns = 80;      // >= 20.
};

// Looks at `fd` and the environment. kAuto: colour on a live terminal unless
// NO_COLOR is set and not empty. kAlways: colour even into a file. kNever: none.
// The width is that of the terminal, else COLUMNS, else 80.
Terminal DetectTerminal(int fd, ColorMode mode);

// The width of the terminal behind `fd` now: TIOCGWINSZ, else COLUMNS, else 80.
int TerminalColumns(int fd);

// `text` on one line and without anything a terminal would act on: control
// characters, invalid UTF-8, and characters that are invisible or turn the
// reading direction become \n, \t, \xNN or \u{NNNN}.
std::string EscapeForTerminal(absl::string_view text);

// Columns that `text` takes: wide characters (CJK, emoji) count two, combining
// marks none, escape sequences for colour none.
int DisplayWidth(absl::string_view text);

// The longest start of `text` that takes at most `columns` columns, ending in
// an ellipsis ("..." unless `unicode`) when something was cut. `text` holds no
// escape sequences.
std::string TruncateToWidth(absl::string_view text, int columns, bool unicode);

// A long name with its middle cut out, since both ends of a module name matter.
std::string ShortenMiddle(absl::string_view text, int columns, bool unicode);

}  // namespace llmc

#endif  // LLMC_SRC_REPORT_TERMINAL_H_
