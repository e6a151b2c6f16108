// Who may do what.
#ifndef LLMC_SERVICE_ACCESS_H_
#define LLMC_SERVICE_ACCESS_H_

#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "llmc/reason.h"
#include "llmc/status.h"

namespace llmc {

enum class AccessRole : uint8_t { kWatch, kSubmit, kWork, kAdmin };

struct Principal {
  std::string name;
  std::set<AccessRole> roles;

  // Admin has every role; submit includes watch.
  bool Has(AccessRole role) const;
};

// Bearer tokens from a file, read again when it changes. A line is
//   <64 hex digits: SHA-256 of the token> <name> <role>[,<role>...]
// or empty, or begins with '#'. Roles: watch, submit, work, admin.
class TokenFile {
 public:
  // kNotFound; kInvalidArgument with the line; kPermissionDenied when others than
  // the owner may write it.
  static absl::StatusOr<std::unique_ptr<TokenFile>> Load(const std::filesystem::path& path);

  // `authorization`: the header's value, "Bearer x" or, for browsers, "Basic x"
  // with the token as password. kUnauthenticated.
  absl::StatusOr<Principal> Authenticate(absl::string_view authorization);

 private:
  struct Entry {
    std::string digest;  // 32 bytes.
    Principal principal;
  };
  explicit TokenFile(std::filesystem::path path) : path_(std::move(path)) {}
  static absl::StatusOr<std::vector<Entry>> Read(const std::filesystem::path& path);
  void ReloadWhenChanged();

  const std::filesystem::path path_;
  std::mutex mutex_;
  std::vector<Entry> entries_;
  std::filesystem::file_time_type read_at_;
};

// 32 bytes.
std::string Sha256(absl::string_view bytes);
std::string HmacSha256(absl::string_view key, absl::string_view bytes);
bool EqualInConstantTime(absl::string_view a, absl::string_view b);

// True for 127.0.0.0/8, ::1, localhost and unix sockets. `address`: "host:port".
bool IsLoopback(const std::string& address);

// So many calls a second for each name; bursts of twice as many.
class RateLimit {
 public:
  explicit RateLimit(double per_second) : per_second_(per_second) {}
  bool Allow(const std::string& name, double now_s);

 private:
  struct Bucket {
    double tokens = 0;
    double at_s = 0;
  };
  const double per_second_;
  std::mutex mutex_;
  std::map<std::string, Bucket> buckets_;
};

}  // namespace llmc

#endif  // LLMC_SERVICE_ACCESS_H_
