// Directories that job paths may not leave.
#ifndef LLMC_RPC_ALLOWED_ROOTS_H_
#define LLMC_RPC_ALLOWED_ROOTS_H_

#include <filesystem>
#include <string>
#include <vector>

#include "llmc/status.h"

namespace llmc {

// Paths are opened relative to a root's descriptor with openat2(RESOLVE_BENEATH |
// RESOLVE_NO_MAGICLINKS): "..", absolute links and links that leave the root are
// refused by the kernel, not by looking at text. The path given back is read from
// the opened descriptor and so holds no link.
class AllowedRoots {
 public:
  // kNotFound: a root is not a directory. Links in `roots` themselves are followed.
  static absl::StatusOr<AllowedRoots> Open(const std::vector<std::string>& roots);
  AllowedRoots(AllowedRoots&& other) noexcept { roots_.swap(other.roots_); }
  AllowedRoots& operator=(AllowedRoots&& other) noexcept {
    roots_.swap(other.roots_);
    return *this;
  }
  ~AllowedRoots();

  // A file or directory that exists. kPermissionDenied: not below a root (also when
  // it does not exist there); kNotFound; kInvalidArgument: not absolute, or a NUL.
  absl::StatusOr<std::filesystem::path> Existing(const std::string& path) const;
  // The same for a directory and everything in it that is a link: every target must
  // be below a root too.
  absl::StatusOr<std::filesystem::path> ExistingTree(const std::string& path) const;
  // A name that need not exist in a directory that does.
  absl::StatusOr<std::filesystem::path> Creatable(const std::string& path) const;

 private:
  struct Root {
    std::filesystem::path path;  // Canonical.
    int descriptor = -1;
  };
  AllowedRoots() = default;
  std::vector<Root> roots_;
};

}  // namespace llmc

#endif  // LLMC_RPC_ALLOWED_ROOTS_H_
