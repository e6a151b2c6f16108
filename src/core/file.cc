#include "llmc/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace llmc {
namespace {

// Closes a descriptor on every path out.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

absl::Status WriteAll(int fd, const std::filesystem::path& path, absl::string_view contents) {
  while (!contents.empty()) {
    const ssize_t written = ::write(fd, contents.data(), contents.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return ErrnoStatus(errno, path, "write");
    contents.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status WriteAndSync(const std::filesystem::path& path, absl::string_view contents) {
  Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (file.get() < 0) return ErrnoStatus(errno, path, "open for writing");
  LLMC_RETURN_IF_ERROR(WriteAll(file.get(), path, contents));
  if (::fsync(file.get()) != 0) return ErrnoStatus(errno, path, "fsync");
  return absl::OkStatus();
}

}  // namespace

absl::Status ErrnoStatus(int error, const std::filesystem::path& path, absl::string_view what) {
  const std::string message = absl::StrCat(path.string(), ": ", what, ": ", std::strerror(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(message);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(message);
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return absl::ResourceExhaustedError(message);
    default:
      return absl::UnknownError(message);
  }
}

absl::StatusOr<std::string> ReadFile(const std::filesystem::path& path, int64_t max_bytes) {
  // Not blocking: the open of a pipe that nobody writes would wait for ever.
  Descriptor file(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (file.get() < 0) return ErrnoStatus(errno, path, "open");
  struct stat st {};
  if (::fstat(file.get(), &st) != 0) return ErrnoStatus(errno, path, "stat");
  if (!S_ISREG(st.st_mode))
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": not a regular file"));
  if (st.st_size > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), ": ", st.st_size, " bytes, expected at most ", max_bytes));
  }
  std::string contents(static_cast<size_t>(st.st_size), '\0');
  size_t filled = 0;
  while (filled < contents.size()) {
    const ssize_t n = ::read(file.get(), contents.data() + filled, contents.size() - filled);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, path, "read");
    if (n == 0) break;
    filled += static_cast<size_t>(n);
  }
  contents.resize(filled);
  return contents;
}

absl::Status FsyncDirectory(const std::filesystem::path& directory) {
  Descriptor dir(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (dir.get() < 0) return ErrnoStatus(errno, directory, "open directory");
  if (::fsync(dir.get()) != 0) return ErrnoStatus(errno, directory, "fsync directory");
  return absl::OkStatus();
}

absl::Status WriteFileDurably(const std::filesystem::path& path, absl::string_view contents) {
  const std::filesystem::path temporary = absl::StrCat(path.string(), ".tmp.", ::getpid());
  absl::Status status = WriteAndSync(temporary, contents);
  if (status.ok() && ::rename(temporary.c_str(), path.c_str()) != 0)
    status = ErrnoStatus(errno, path, "rename to");
  if (!status.ok()) {
    ::unlink(temporary.c_str());
    return status;
  }
  const std::filesystem::path parent = path.parent_path();
  return FsyncDirectory(parent.empty() ? "." : parent);
}

}  // namespace llmc
