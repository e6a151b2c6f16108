#include "report/html_text.h"

#include <cmath>

#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "report/terminal.h"

namespace llmc {

std::string EscapeHtml(absl::string_view text) {
  return absl::StrReplaceAll(
      EscapeForTerminal(text),
      {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}, {"'", "&#39;"}});
}

std::string EscapeHtmlBlock(absl::string_view text) {
  std::string out;
  absl::string_view line_end;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    out.append(line_end.data(), line_end.size());
    line_end = "\n";
    absl::string_view cell_end;
    for (absl::string_view cell : absl::StrSplit(line, '\t')) {
      out.append(cell_end.data(), cell_end.size());
      cell_end = "\t";
      out += EscapeHtml(cell);
    }
  }
  return out;
}

std::string Coord(double value) {
  if (!std::isfinite(value) || std::fabs(value) > 1e9) return "0";
  std::string text = absl::StrFormat("%.2f", value);
  while (text.back() == '0') text.pop_back();
  if (text.back() == '.') text.pop_back();
  return text == "-0" ? "0" : text;
}

std::string EscapeJsonForScript(absl::string_view json) {
  return absl::StrReplaceAll(json, {{"<", "\\u003c"}, {">", "\\u003e"}, {"&", "\\u0026"}});
}

}  // namespace llmc
