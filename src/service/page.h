// The page's files, as text in the program.
#ifndef LLMC_SERVICE_PAGE_H_
#define LLMC_SERVICE_PAGE_H_

#include "absl/strings/string_view.h"

namespace llmc {

absl::string_view PageHtml();
absl::string_view PageStyle();
absl::string_view PageScript();

}  // namespace llmc

#endif  // LLMC_SERVICE_PAGE_H_
