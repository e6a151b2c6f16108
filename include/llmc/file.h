// Small files and durable renames. Big tensor files belong to checkpoint/.
#ifndef LLMC_FILE_H_
#define LLMC_FILE_H_

#include <cstdint>
#include <filesystem>
#include <string>

#include "absl/strings/string_view.h"
#include "llmc/status.h"

namespace llmc {

// The whole file. kNotFound, kInvalidArgument when larger than `max_bytes`.
absl::StatusOr<std::string> ReadFile(const std::filesystem::path& path,
                                     int64_t max_bytes = int64_t{1} << 30);

// Writes a sibling temporary file, fsyncs it, renames it to `path` (mode 0644)
// and fsyncs the directory: after a crash `path` is old, new or absent, never
// half. kResourceExhausted when the disk is full.
absl::Status WriteFileDurably(const std::filesystem::path& path, absl::string_view contents);

// Makes the names in `directory` durable.
absl::Status FsyncDirectory(const std::filesystem::path& directory);

// A status for a failed system call: "path: what: strerror(error)". ENOENT
// gives kNotFound, EACCES kPermissionDenied, ENOSPC and EDQUOT
// kResourceExhausted.
absl::Status ErrnoStatus(int error, const std::filesystem::path& path, absl::string_view what);

}  // namespace llmc

#endif  // LLMC_FILE_H_
