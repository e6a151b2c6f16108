// The style sheet of the report page.
#ifndef LLMC_SRC_REPORT_PAGE_STYLE_H_
#define LLMC_SRC_REPORT_PAGE_STYLE_H_

#include "absl/strings/string_view.h"

namespace llmc {

// Light and dark by prefers-color-scheme, print, and widths from 320 px. Colours
// that carry meaning are the colour-blind-safe set of Okabe and Ito (2008); the
// error scale rises in lightness only one way, so it also reads in grey.
absl::string_view PageStyle();

}  // namespace llmc

#endif  // LLMC_SRC_REPORT_PAGE_STYLE_H_
