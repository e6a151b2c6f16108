// Sizes as people write them.
#ifndef LLMC_BYTE_SIZE_H_
#define LLMC_BYTE_SIZE_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "llmc/status.h"

namespace llmc {

// "5GB" (10^9), "24GiB" (2^30), "512MiB", "1.5TB", "4096" (bytes). Case does not
// matter. kInvalidArgument for anything else, for zero and above 2^62.
absl::StatusOr<int64_t> ParseByteSize(absl::string_view text);

// "1.34 GB", decimal units, three significant digits.
std::string FormatByteSize(int64_t bytes);

}  // namespace llmc

#endif  // LLMC_BYTE_SIZE_H_
