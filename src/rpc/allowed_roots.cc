#include "rpc/allowed_roots.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "llmc/file.h"

namespace llmc {
namespace {

namespace fs = std::filesystem;

// O_PATH descriptor of `relative` beneath `root`; -1 and errno on failure.
int OpenBeneath(int root, const std::string& relative) {
  struct open_how how {};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  return static_cast<int>(
      syscall(SYS_openat2, root, relative.empty() ? "." : relative.c_str(), &how, sizeof(how)));
}

absl::Status CheckText(const std::string& path) {
  if (path.empty()) return absl::InvalidArgumentError("is required");
  if (path[0] != '/' || path.find('\0') != std::string::npos || path.size() > 4000) {
    return absl::InvalidArgumentError("expected an absolute path of at most 4000 bytes");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<AllowedRoots> AllowedRoots::Open(const std::vector<std::string>& roots) {
  AllowedRoots allowed;
  for (const std::string& text : roots) {
    std::error_code error;
    Root root;
    root.path = fs::canonical(text, error);
    if (error) return ErrnoStatus(error.value(), text, "--allow-root");
    root.descriptor = open(root.path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root.descriptor < 0) return ErrnoStatus(errno, text, "--allow-root");
    allowed.roots_.push_back(root);
  }
  return allowed;
}

AllowedRoots::~AllowedRoots() {
  for (const Root& root : roots_) close(root.descriptor);
}

absl::StatusOr<fs::path> AllowedRoots::Existing(const std::string& path) const {
  LLMC_RETURN_IF_ERROR(CheckText(path));
  bool below_a_root = false;
  for (const Root& root : roots_) {
    // As text, so that links above a root do not matter: the kernel decides below it.
    const fs::path relative = fs::path(path).lexically_relative(root.path);
    if (relative.empty() || *relative.begin() == "..") continue;
    const int descriptor = OpenBeneath(root.descriptor, relative.string());
    if (descriptor < 0) {
      below_a_root |= errno == ENOENT || errno == ENOTDIR;
      continue;
    }
    std::error_code error;
    const fs::path opened = fs::read_symlink(absl::StrCat("/proc/self/fd/", descriptor), error);
    close(descriptor);
    if (!error) return opened;
  }
  if (below_a_root) return absl::NotFoundError(absl::StrCat(path, ": no such file or directory"));
  return absl::PermissionDeniedError(absl::StrCat(path, ": outside every --allow-root"));
}

absl::StatusOr<fs::path> AllowedRoots::ExistingTree(const std::string& path) const {
  LLMC_ASSIGN_OR_RETURN(const fs::path top, Existing(path));
  std::error_code error;
  if (!fs::is_directory(top, error)) return top;
  int entries = 0;
  for (auto it = fs::recursive_directory_iterator(top, error);
       !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    if (++entries > 100'000) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": more than 100,000 entries"));
    }
    if (!it->is_symlink()) continue;
    const fs::path target = fs::canonical(it->path(), error);
    if (error) return absl::NotFoundError(absl::StrCat(it->path().string(), ": a broken link"));
    LLMC_RETURN_IF_ERROR(At(it->path().string(), Existing(target).status()));
  }
  if (error) return ErrnoStatus(error.value(), path, "read");
  return top;
}

absl::StatusOr<fs::path> AllowedRoots::Creatable(const std::string& path) const {
  LLMC_RETURN_IF_ERROR(CheckText(path));
  fs::path wanted(path);
  if (!wanted.has_filename()) wanted = wanted.parent_path();
  const std::string name = wanted.filename();
  if (name.empty() || name == "." || name == "..") {
    return absl::InvalidArgumentError(absl::StrCat(path, ": expected a name at the end"));
  }
  LLMC_ASSIGN_OR_RETURN(const fs::path parent, Existing(wanted.parent_path()));
  std::error_code error;
  if (!fs::is_directory(parent, error)) {
    return absl::InvalidArgumentError(absl::StrCat(parent.string(), ": not a directory"));
  }
  if (fs::is_symlink(parent / name, error)) {
    return absl::PermissionDeniedError(absl::StrCat(path, ": is a link"));
  }
  return parent / name;
}

}  // namespace llmc
