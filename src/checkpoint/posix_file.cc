#include "checkpoint/posix_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "llmc/file.h"

namespace llmc {
namespace {

// The kernel moves at most this much in one call.
constexpr size_t kMaxTransfer = size_t{1} << 30;

absl::Status CheckRegular(int fd, const std::filesystem::path& path) {
  struct stat st {};
  if (::fstat(fd, &st) != 0) return ErrnoStatus(errno, path, "stat");
  if (S_ISREG(st.st_mode)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(path.string(), ": expected a regular file"));
}

}  // namespace

PosixFile::~PosixFile() {
  if (fd_ >= 0) ::close(fd_);
}

PosixFile& PosixFile::operator=(PosixFile&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(path_, other.path_);
  return *this;
}

absl::StatusOr<PosixFile> PosixFile::OpenForReading(const std::filesystem::path& path) {
  PosixFile file;
  file.path_ = path;
  // Without O_NONBLOCK opening a FIFO would wait for a writer.
  file.fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (file.fd_ < 0 && errno == ELOOP)
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": a cycle of symbolic links"));
  if (file.fd_ < 0) return ErrnoStatus(errno, path, "open");
  LLMC_RETURN_IF_ERROR(CheckRegular(file.fd_, path));
  return file;
}

absl::StatusOr<PosixFile> PosixFile::OpenForWriting(const std::filesystem::path& path,
                                                    bool create) {
  PosixFile file;
  file.path_ = path;
  const int flags = O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW | (create ? O_CREAT : 0);
  file.fd_ = ::open(path.c_str(), flags, 0644);
  if (file.fd_ < 0) return ErrnoStatus(errno, path, "open for writing");
  LLMC_RETURN_IF_ERROR(CheckRegular(file.fd_, path));
  return file;
}

absl::Status PosixFile::ReadAt(int64_t offset, std::span<std::byte> bytes) const {
  while (!bytes.empty()) {
    const ssize_t n = ::pread(fd_, bytes.data(), std::min(bytes.size(), kMaxTransfer), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, path_, "read");
    if (n == 0) {
      return absl::DataLossError(absl::StrCat(path_.string(), ": ends at byte ", offset,
                                              ", expected ", bytes.size(), " more"));
    }
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += n;
  }
  return absl::OkStatus();
}

absl::Status PosixFile::WriteAt(int64_t offset, std::span<const std::byte> bytes) const {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd_, bytes.data(), std::min(bytes.size(), kMaxTransfer), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, path_, "write");
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += n;
  }
  return absl::OkStatus();
}

absl::Status PosixFile::Truncate(int64_t num_bytes) const {
  if (::ftruncate(fd_, num_bytes) != 0) return ErrnoStatus(errno, path_, "set file size");
  return absl::OkStatus();
}

absl::Status PosixFile::Sync() const {
  if (::fsync(fd_) != 0) return ErrnoStatus(errno, path_, "fsync");
  return absl::OkStatus();
}

absl::StatusOr<int64_t> PosixFile::Size() const {
  struct stat st {};
  if (::fstat(fd_, &st) != 0) return ErrnoStatus(errno, path_, "stat");
  return static_cast<int64_t>(st.st_size);
}

absl::StatusOr<std::string> PosixFile::ReadAll(int64_t max_bytes) const {
  LLMC_ASSIGN_OR_RETURN(const int64_t size, Size());
  if (size > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_.string(), ": ", size, " bytes, expected at most ", max_bytes));
  }
  std::string text(static_cast<size_t>(size), '\0');
  LLMC_RETURN_IF_ERROR(ReadAt(0, std::as_writable_bytes(std::span<char>(text))));
  return text;
}

absl::StatusOr<int64_t> FreeBytes(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::path existing = std::filesystem::absolute(path, error);
  while (!std::filesystem::exists(existing, error) && existing.has_relative_path())
    existing = existing.parent_path();
  struct statvfs fs {};
  if (::statvfs(existing.c_str(), &fs) != 0) return ErrnoStatus(errno, existing, "statvfs");
  return static_cast<int64_t>(fs.f_bavail) * static_cast<int64_t>(fs.f_frsize);
}

}  // namespace llmc
