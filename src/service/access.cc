#include "service/access.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "llmc/file.h"
#include "service/json_log.h"

namespace llmc {
namespace {

namespace fs = std::filesystem;

absl::StatusOr<AccessRole> ParseRole(absl::string_view text) {
  static const std::map<std::string, AccessRole> kRoles = {{"watch", AccessRole::kWatch},
                                                           {"submit", AccessRole::kSubmit},
                                                           {"work", AccessRole::kWork},
                                                           {"admin", AccessRole::kAdmin}};
  const auto role = kRoles.find(std::string(text));
  if (role != kRoles.end()) return role->second;
  return absl::InvalidArgumentError(absl::StrCat(text, ": expected watch, submit, work or admin"));
}

// "" when the header holds no token.
std::string TokenOf(absl::string_view authorization) {
  if (absl::ConsumePrefix(&authorization, "Bearer ")) return std::string(authorization);
  std::string decoded;
  if (!absl::ConsumePrefix(&authorization, "Basic ") ||
      !absl::Base64Unescape(authorization, &decoded)) {
    return "";
  }
  const size_t colon = decoded.find(':');
  return colon == std::string::npos ? "" : decoded.substr(colon + 1);
}

}  // namespace

bool Principal::Has(AccessRole role) const {
  if (roles.contains(AccessRole::kAdmin) || roles.contains(role)) return true;
  return role == AccessRole::kWatch && roles.contains(AccessRole::kSubmit);
}

std::string Sha256(absl::string_view bytes) {
  std::string digest(32, '\0');
  unsigned int size = 0;
  EVP_Digest(bytes.data(), bytes.size(), reinterpret_cast<unsigned char*>(digest.data()), &size,
             EVP_sha256(), nullptr);
  return digest;
}

std::string HmacSha256(absl::string_view key, absl::string_view bytes) {
  std::string digest(32, '\0');
  unsigned int size = 0;
  HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
       reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(),
       reinterpret_cast<unsigned char*>(digest.data()), &size);
  return digest;
}

bool EqualInConstantTime(absl::string_view a, absl::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

absl::StatusOr<std::vector<TokenFile::Entry>> TokenFile::Read(const fs::path& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) == 0 && (status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return absl::PermissionDeniedError(
        absl::StrCat(path.string(), ": others may write it; expected mode 0600"));
  }
  LLMC_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, 1 << 20));
  std::vector<Entry> entries;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    if (line.empty() || line[0] == '#') continue;
    const std::vector<std::string> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    const bool is_digest = words.size() == 3 && words[0].size() == 64 &&
                           words[0].find_first_not_of("0123456789abcdef") == std::string::npos;
    if (!is_digest) {
      // The line is not repeated: it may hold a token in clear.
      return absl::InvalidArgumentError(absl::StrCat(
          path.string(), ":", number, ": expected \"<sha256 of the token> <name> <roles>\""));
    }
    Entry& entry = entries.emplace_back();
    entry.digest = absl::HexStringToBytes(words[0]);
    entry.principal.name = words[1];
    for (absl::string_view role : absl::StrSplit(words[2], ',')) {
      absl::StatusOr<AccessRole> parsed = ParseRole(role);
      if (!parsed.ok()) return At(absl::StrCat(path.string(), ":", number), parsed.status());
      entry.principal.roles.insert(*parsed);
    }
  }
  return entries;
}

absl::StatusOr<std::unique_ptr<TokenFile>> TokenFile::Load(const fs::path& path) {
  std::unique_ptr<TokenFile> file(new TokenFile(path));
  std::error_code ignored;
  file->read_at_ = fs::last_write_time(path, ignored);
  LLMC_ASSIGN_OR_RETURN(file->entries_, Read(path));
  return file;
}

void TokenFile::ReloadWhenChanged() {
  std::error_code error;
  const auto written_at = fs::last_write_time(path_, error);
  if (error || written_at == read_at_) return;
  read_at_ = written_at;
  absl::StatusOr<std::vector<Entry>> entries = Read(path_);
  if (entries.ok()) {
    entries_ = *std::move(entries);
    LogJson("info", "the token file was read again");
  } else {
    LogJson("warning", absl::StrCat("the old tokens are kept: ", entries.status().message()));
  }
}

absl::StatusOr<Principal> TokenFile::Authenticate(absl::string_view authorization) {
  const std::string token = TokenOf(authorization);
  if (token.empty()) {
    return WithReason("TOKEN_MISSING", absl::UnauthenticatedError("a bearer token is required"));
  }
  const std::string digest = Sha256(token);
  std::lock_guard<std::mutex> lock(mutex_);
  ReloadWhenChanged();
  const Entry* found = nullptr;
  for (const Entry& entry : entries_) {
    if (EqualInConstantTime(entry.digest, digest)) found = &entry;
  }
  if (found != nullptr) return found->principal;
  return WithReason("TOKEN_UNKNOWN", absl::UnauthenticatedError("this token is not known"));
}

bool IsLoopback(const std::string& address) {
  if (absl::StartsWith(address, "unix:")) return true;
  std::string host = address.substr(0, address.rfind(':'));
  if (!host.empty() && host.front() == '[') host = host.substr(1, host.size() - 2);
  return host == "localhost" || host == "::1" ||
         (absl::StartsWith(host, "127.") &&
          host.find_first_not_of("0123456789.") == std::string::npos);
}

bool RateLimit::Allow(const std::string& name, double now_s) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto [it, is_new] = buckets_.try_emplace(name, Bucket{2 * per_second_, now_s});
  Bucket& bucket = it->second;
  bucket.tokens = std::min(2 * per_second_, bucket.tokens + (now_s - bucket.at_s) * per_second_);
  bucket.at_s = now_s;
  if (bucket.tokens < 1) return false;
  bucket.tokens -= 1;
  return true;
}

}  // namespace llmc
