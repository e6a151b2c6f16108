#include "checkpoint/output_directory.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "checkpoint/checkpoint_writer.h"
#include "checkpoint/strict_json.h"
#include "llmc/failpoint.h"
#include "llmc/file.h"

namespace llmc {
namespace {

namespace fs = std::filesystem;

constexpr JsonLimits kManifestLimits{512 << 20, 32};

bool IsWithin(const fs::path& path, const fs::path& root) {
  return std::mismatch(root.begin(), root.end(), path.begin(), path.end()).first == root.end();
}

absl::StatusOr<fs::path> Resolved(const fs::path& path) {
  std::error_code error;
  const fs::path resolved = fs::weakly_canonical(path, error);
  if (!error) return resolved;
  return absl::InvalidArgumentError(absl::StrCat(path.string(), ": ", error.message()));
}

bool HasManifest(const fs::path& dir) {
  std::error_code error;
  return fs::is_regular_file(fs::symlink_status(dir / std::string(kManifestFileName), error));
}

absl::StatusOr<Fingerprint> ManifestFingerprint(const fs::path& dir) {
  LLMC_ASSIGN_OR_RETURN(const nlohmann::json manifest,
                        ReadStrictJson(dir / std::string(kManifestFileName), kManifestLimits));
  Fingerprint fingerprint;
  if (!manifest.is_object() || !manifest.contains("fingerprint")) return fingerprint;
  for (const auto& [key, value] : manifest["fingerprint"].items())
    if (value.is_string()) fingerprint[key] = value.get<std::string>();
  return fingerprint;
}

fs::path ReplacedPath(const fs::path& output) {
  return absl::StrCat(output.string(), ".llmc-replaced");
}

absl::Status RemoveTree(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (!error) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(path.string(), ": remove: ", error.message()));
}

absl::Status Rename(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) == 0) return absl::OkStatus();
  if (errno == ENOTEMPTY || errno == EEXIST || errno == ENOTDIR) {
    return absl::FailedPreconditionError(
        absl::StrCat(to.string(),
                     ": appeared while the run was working, it is left alone; the "
                     "finished output is in ",
                     from.string()));
  }
  return ErrnoStatus(errno, to, absl::StrCat("rename ", from.string(), " to"));
}

// Swaps the two names at once where the file system can; else the old output
// steps aside first, and for a moment there is none.
absl::Status Replace(const fs::path& staging, const fs::path& output) {
  if (::renameat2(AT_FDCWD, staging.c_str(), AT_FDCWD, output.c_str(), RENAME_EXCHANGE) == 0)
    return absl::OkStatus();
  LLMC_RETURN_IF_ERROR(RemoveTree(ReplacedPath(output)));
  LLMC_RETURN_IF_ERROR(Rename(output, ReplacedPath(output)));
  return Rename(staging, output);
}

absl::Status FsyncFile(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return ErrnoStatus(errno, path, "open");
  const absl::Status status =
      ::fsync(fd) == 0 ? absl::OkStatus() : ErrnoStatus(errno, path, "fsync");
  ::close(fd);
  return status;
}

std::string Shortened(const Fingerprint& fingerprint, const std::string& key) {
  const auto it = fingerprint.find(key);
  return it == fingerprint.end() ? "nothing" : Quoted(it->second);
}

}  // namespace

absl::StatusOr<fs::path> NormalizeOutput(const fs::path& output) {
  std::error_code error;
  fs::path path = fs::absolute(output, error).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  if (output.empty() || error || !path.has_filename()) {
    return absl::InvalidArgumentError(
        absl::StrCat("output ", Quoted(output.string()), ": expected a directory name"));
  }
  return path;
}

absl::Status CheckOutsideModel(const fs::path& output, const fs::path& model) {
  LLMC_ASSIGN_OR_RETURN(const fs::path resolved_output, Resolved(output));
  LLMC_ASSIGN_OR_RETURN(const fs::path resolved_model, Resolved(model));
  if (!IsWithin(resolved_output, resolved_model) && !IsWithin(resolved_model, resolved_output))
    return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("output ", output.string(), ": is, lies in, or holds the model directory ",
                   resolved_model.string(), ", expected a place of its own"));
}

absl::StatusOr<ExistingOutput> InspectOutput(const fs::path& output) {
  ExistingOutput existing;
  std::error_code error;
  const fs::file_status status = fs::symlink_status(output, error);
  if (status.type() == fs::file_type::not_found) return existing;
  existing.state = OutputState::kForeign;
  if (!fs::is_directory(status)) return existing;
  if (fs::is_empty(output, error)) {
    existing.state = OutputState::kAbsent;
    return existing;
  }
  if (error) return ErrnoStatus(error.value(), output, "list");
  if (!HasManifest(output)) return existing;
  LLMC_ASSIGN_OR_RETURN(existing.fingerprint, ManifestFingerprint(output));
  const bool has_journal = fs::exists(output / kJournalFileName, error);
  existing.state = has_journal ? OutputState::kInterrupted : OutputState::kFinished;
  return existing;
}

std::string FingerprintDifference(const Fingerprint& there, const Fingerprint& here) {
  Fingerprint all = there;
  all.insert(here.begin(), here.end());
  std::vector<std::string> differences;
  for (const auto& [key, unused] : all) {
    const std::string a = Shortened(there, key);
    const std::string b = Shortened(here, key);
    const auto it_a = there.find(key);
    const auto it_b = here.find(key);
    if (it_a != there.end() && it_b != here.end() && it_a->second == it_b->second) continue;
    differences.push_back(absl::StrCat(key, " (", a, " there, ", b, " here)"));
  }
  return absl::StrJoin(differences, ", ");
}

absl::Status PutInPlace(const fs::path& staging, const fs::path& output) {
  LLMC_ASSIGN_OR_RETURN(const ExistingOutput existing, InspectOutput(output));
  if (existing.state == OutputState::kForeign) {
    return absl::FailedPreconditionError(
        absl::StrCat(output.string(),
                     ": appeared while the run was working, it is left alone; the "
                     "finished output is in ",
                     staging.string()));
  }
  const bool replaces = existing.state != OutputState::kAbsent;
  LLMC_RETURN_IF_ERROR(replaces ? Replace(staging, output) : Rename(staging, output));
  LLMC_RETURN_IF_ERROR(FsyncDirectory(output.parent_path()));
  LLMC_RETURN_IF_ERROR(Failpoint("commit.after_rename"));
  return CleanUpAfter(staging, output);
}

absl::Status CleanUpAfter(const fs::path& staging, const fs::path& output) {
  std::error_code error;
  fs::remove(output / kJournalFileName, error);
  if (error) return ErrnoStatus(error.value(), output / kJournalFileName, "remove");
  LLMC_RETURN_IF_ERROR(FsyncDirectory(output));
  // After an exchange the staging name holds the replaced output: it has a
  // manifest, and no journal, which every unfinished run has.
  if (HasManifest(staging) && !fs::exists(staging / kJournalFileName, error))
    LLMC_RETURN_IF_ERROR(RemoveTree(staging));
  if (HasManifest(ReplacedPath(output))) LLMC_RETURN_IF_ERROR(RemoveTree(ReplacedPath(output)));
  return FsyncDirectory(output.parent_path());
}

absl::Status FsyncTree(const fs::path& directory) {
  std::error_code error;
  for (fs::recursive_directory_iterator it(directory, error), end; !error && it != end;
       it.increment(error)) {
    std::error_code ignored;
    if (it->is_directory(ignored))
      LLMC_RETURN_IF_ERROR(FsyncDirectory(it->path()));
    else
      LLMC_RETURN_IF_ERROR(FsyncFile(it->path()));
  }
  if (error) return ErrnoStatus(error.value(), directory, "list");
  return FsyncDirectory(directory);
}

}  // namespace llmc
