#include "checkpoint/model_directory.h"

#include <algorithm>
#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "checkpoint/posix_file.h"
#include "checkpoint/strict_json.h"

namespace llmc {
namespace {

namespace fs = std::filesystem;

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// One component of a repository id: what the hub allows, and no path tricks.
bool IsHubName(absl::string_view part) {
  if (part.empty() || part.size() > 96 || part[0] == '.' || part[0] == '-') return false;
  if (absl::StrContains(part, "..") || absl::StrContains(part, "--")) return false;
  return std::all_of(part.begin(), part.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.';
  });
}

// Branches may contain '/': each part must be a plain name.
bool IsRevision(absl::string_view revision) {
  if (revision.empty() || revision.size() > 250) return false;
  for (absl::string_view part : absl::StrSplit(revision, '/')) {
    if (part.empty() || part == "." || part == ".." || part[0] == '-') return false;
    if (!std::all_of(part.begin(), part.end(), [](unsigned char c) {
          return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.' || c == '+';
        }))
      return false;
  }
  return true;
}

bool IsCommit(absl::string_view text) {
  return text.size() == 40 && std::all_of(text.begin(), text.end(), absl::ascii_isxdigit);
}

struct HubModel {
  std::string id;        // "org/name"; old models have no organisation.
  std::string revision;  // "main" when not given.
  bool has_revision = false;
};

absl::StatusOr<HubModel> ParseHubModel(const std::string& model) {
  HubModel hub;
  const std::pair<std::string, std::string> halves = absl::StrSplit(model, absl::MaxSplits('@', 1));
  hub.id = halves.first;
  hub.has_revision = model.find('@') != std::string::npos;
  hub.revision = hub.has_revision ? halves.second : "main";
  const std::vector<std::string> parts = absl::StrSplit(hub.id, '/');
  if (parts.size() > 2 || !std::all_of(parts.begin(), parts.end(), IsHubName) ||
      !IsRevision(hub.revision)) {
    return absl::NotFoundError(absl::StrCat("model ", Quoted(model),
                                            ": no such directory, expected one, or org/name or "
                                            "org/name@revision of the Hugging Face cache"));
  }
  return hub;
}

absl::Status Missing(const HubModel& hub, const fs::path& cache) {
  return absl::NotFoundError(absl::StrCat(
      "model ", hub.id, hub.has_revision ? absl::StrCat(" at revision ", hub.revision) : "",
      ": neither a directory nor in the cache ", cache.string(), "; get it with: hf download ",
      hub.id, hub.has_revision ? absl::StrCat(" --revision ", hub.revision) : ""));
}

absl::StatusOr<std::string> CommitOf(const HubModel& hub, const fs::path& folder,
                                     const fs::path& cache) {
  if (IsCommit(hub.revision)) return hub.revision;
  const absl::StatusOr<PosixFile> file = PosixFile::OpenForReading(folder / "refs" / hub.revision);
  if (!file.ok()) return Missing(hub, cache);
  LLMC_ASSIGN_OR_RETURN(const std::string text, file->ReadAll(1024));
  const absl::string_view commit = absl::StripAsciiWhitespace(text);
  if (IsCommit(commit)) return std::string(commit);
  return absl::InvalidArgumentError(
      absl::StrCat(file->path().string(), ": ", Quoted(text), ", expected a commit id"));
}

bool IsWithin(const fs::path& path, const fs::path& root) {
  return std::mismatch(root.begin(), root.end(), path.begin(), path.end()).first == root.end();
}

// A link in the cache may point at blobs of the cache and nowhere else.
absl::Status CheckLinks(const fs::path& snapshot, const fs::path& cache) {
  std::error_code error;
  const fs::path root = fs::canonical(cache, error);
  for (fs::recursive_directory_iterator it(snapshot, error), end; !error && it != end;
       it.increment(error)) {
    std::error_code broken;
    const fs::path target = fs::canonical(it->path(), broken);
    if (broken) {
      return absl::NotFoundError(
          absl::StrCat(it->path().string(), ": ", broken.message(), " (an unfinished download?)"));
    }
    if (!IsWithin(target, root)) {
      return absl::PermissionDeniedError(absl::StrCat(it->path().string(), ": a link to ",
                                                      target.string(), ", outside the cache ",
                                                      root.string()));
    }
  }
  if (error) return absl::InternalError(absl::StrCat(snapshot.string(), ": ", error.message()));
  return absl::OkStatus();
}

}  // namespace

fs::path HubCacheDirectory() {
  if (const std::string cache = Environment("HF_HUB_CACHE"); !cache.empty()) return cache;
  if (const std::string home = Environment("HF_HOME"); !home.empty()) return fs::path(home) / "hub";
  if (const std::string xdg = Environment("XDG_CACHE_HOME"); !xdg.empty())
    return fs::path(xdg) / "huggingface" / "hub";
  return fs::path(Environment("HOME")) / ".cache" / "huggingface" / "hub";
}

absl::StatusOr<fs::path> ResolveModelDirectory(const std::string& model) {
  std::error_code error;
  if (model.find('\0') == std::string::npos && fs::is_directory(model, error))
    return fs::path(model);
  LLMC_ASSIGN_OR_RETURN(const HubModel hub, ParseHubModel(model));
  const fs::path cache = HubCacheDirectory();
  const fs::path folder =
      cache / absl::StrCat("models--", absl::StrReplaceAll(hub.id, {{"/", "--"}}));
  LLMC_ASSIGN_OR_RETURN(const std::string commit, CommitOf(hub, folder, cache));
  const fs::path snapshot = folder / "snapshots" / commit;
  if (!fs::is_directory(snapshot, error)) return Missing(hub, cache);
  LLMC_RETURN_IF_ERROR(CheckLinks(snapshot, cache));
  return snapshot;
}

}  // namespace llmc
