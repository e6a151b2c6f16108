// Sizes as users write them.
#ifndef LLMC_CHECKPOINT_BYTE_SIZE_H_
#define LLMC_CHECKPOINT_BYTE_SIZE_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "llmc/status.h"

namespace llmc {

// "5GB" -> 5e9, "24GiB" -> 24 * 2^30, "1.5MB", "4096". Letters in either case;
// K, M, G, T with B (powers of 1000, also without the B) or iB (powers of 1024).
// kInvalidArgument when it is something else, not positive, or above 2^62.
absl::StatusOr<int64_t> ParseByteSize(absl::string_view text);

// "1.50 GB", "812 B": decimal units, for tables and messages.
std::string FormatByteSize(int64_t num_bytes);

}  // namespace llmc

#endif  // LLMC_CHECKPOINT_BYTE_SIZE_H_
