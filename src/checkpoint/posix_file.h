// A file descriptor with whole reads and writes at given offsets.
#ifndef LLMC_CHECKPOINT_POSIX_FILE_H_
#define LLMC_CHECKPOINT_POSIX_FILE_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>

#include "llmc/status.h"

namespace llmc {

// Owns one descriptor of a regular file. Move-only. ReadAt and WriteAt may be
// called from several threads at once.
class PosixFile {
 public:
  PosixFile() = default;
  ~PosixFile();
  PosixFile(PosixFile&& other) noexcept { *this = std::move(other); }
  PosixFile& operator=(PosixFile&& other) noexcept;

  // Anything but a regular file (a FIFO, a directory, a cycle of links) is
  // kInvalidArgument; it never blocks.
  static absl::StatusOr<PosixFile> OpenForReading(const std::filesystem::path& path);
  // Read and write; `create` makes an empty file (mode 0644) where none is.
  static absl::StatusOr<PosixFile> OpenForWriting(const std::filesystem::path& path, bool create);

  // Fills `bytes` from `offset`. kDataLoss when the file ends before.
  absl::Status ReadAt(int64_t offset, std::span<std::byte> bytes) const;
  // kResourceExhausted when the disk is full or a size limit is met.
  absl::Status WriteAt(int64_t offset, std::span<const std::byte> bytes) const;
  absl::Status Truncate(int64_t num_bytes) const;
  absl::Status Sync() const;
  absl::StatusOr<int64_t> Size() const;
  absl::StatusOr<std::string> ReadAll(int64_t max_bytes) const;

  int descriptor() const { return fd_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  int fd_ = -1;
  std::filesystem::path path_;
};

// Bytes that an unprivileged process may still write to the file system that
// holds `path`, or its nearest existing parent.
absl::StatusOr<int64_t> FreeBytes(const std::filesystem::path& path);

}  // namespace llmc

#endif  // LLMC_CHECKPOINT_POSIX_FILE_H_
