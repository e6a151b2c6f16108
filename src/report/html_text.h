// Text and numbers inside HTML and SVG.
#ifndef LLMC_SRC_REPORT_HTML_TEXT_H_
#define LLMC_SRC_REPORT_HTML_TEXT_H_

#include <string>

#include "absl/strings/string_view.h"

namespace llmc {

// `text` for element content or a quoted attribute. Control, invisible and
// direction-changing characters and invalid UTF-8 are shown as escapes.
std::string EscapeHtml(absl::string_view text);

// The same, but line feeds and tabs stay: for <pre>.
std::string EscapeHtmlBlock(absl::string_view text);

// A coordinate: at most two decimals, no exponent; 0 when not finite.
std::string Coord(double value);

// JSON for the inside of a <script> element: "<" becomes \u003c, so that no
// string ends the element or opens a comment.
std::string EscapeJsonForScript(absl::string_view json);

}  // namespace llmc

#endif  // LLMC_SRC_REPORT_HTML_TEXT_H_
