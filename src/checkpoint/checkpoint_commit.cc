// The end of a CheckpointWriter's life: from written tensors to an output.
#include <fcntl.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "checkpoint/checkpoint_writer.h"
#include "checkpoint/content_hash.h"
#include "checkpoint/strict_json.h"
#include "llmc/failpoint.h"
#include "llmc/file.h"

namespace llmc {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr int kManifestVersion = 1;
constexpr int64_t kPieceBytes = 4 << 20;

// A relative path that stays below the output and takes no reserved name.
absl::Status CheckFileName(const std::string& name, const OutputLayout& layout) {
  bool good = !name.empty() && name.find('\0') == std::string::npos && name != kManifestFileName &&
              name != kJournalFileName && name != "model.safetensors.index.json";
  for (absl::string_view part : absl::StrSplit(name, '/'))
    good = good && !part.empty() && part != "." && part != "..";
  for (const ShardLayout& shard : layout.shards()) good = good && name != shard.file_name;
  if (good) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("output file ", Quoted(name), ": expected a relative name of its own"));
}

absl::Status MakeParent(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  if (error) return ErrnoStatus(error.value(), path.parent_path(), "create directory");
  return absl::OkStatus();
}

Json FileEntry(int64_t num_bytes, std::string hash) {
  return {{"bytes", num_bytes}, {"xxh3_128", std::move(hash)}};
}

absl::Status WriteText(const fs::path& path, const std::string& text) {
  LLMC_RETURN_IF_ERROR(MakeParent(path));
  return WriteFileDurably(path, text);
}

// Copies a file and returns its manifest entry.
absl::StatusOr<Json> CopyFile(const fs::path& from, const fs::path& to) {
  LLMC_RETURN_IF_ERROR(MakeParent(to));
  LLMC_ASSIGN_OR_RETURN(const PosixFile source, PosixFile::OpenForReading(from));
  LLMC_ASSIGN_OR_RETURN(const PosixFile target, PosixFile::OpenForWriting(to, /*create=*/true));
  LLMC_ASSIGN_OR_RETURN(const int64_t total, source.Size());
  LLMC_RETURN_IF_ERROR(target.Truncate(0));
  ContentHasher hasher;
  std::vector<std::byte> piece(static_cast<size_t>(std::min(total, kPieceBytes)));
  for (int64_t offset = 0; offset < total; offset += kPieceBytes) {
    const std::span<std::byte> part(piece.data(),
                                    static_cast<size_t>(std::min(kPieceBytes, total - offset)));
    LLMC_RETURN_IF_ERROR(source.ReadAt(offset, part));
    hasher.Add(part);
    LLMC_RETURN_IF_ERROR(target.WriteAt(offset, part));
  }
  return FileEntry(total, hasher.Finish());
}

}  // namespace

absl::StatusOr<Json> CheckpointWriter::TensorManifest() const {
  std::map<std::string, std::string> hashes;
  for (const auto& [unit, record] : done_)
    for (const auto& [name, hash] : record.at("hashes").items())
      hashes[name] = hash.get<std::string>();
  Json tensors = Json::object();
  for (const PlacedTensor& tensor : options_.layout.tensors()) {
    const auto it = hashes.find(tensor.spec.name);
    if (it == hashes.end()) {
      return absl::FailedPreconditionError(
          absl::StrCat("output tensor ", Quoted(tensor.spec.name),
                       ": belongs to no finished unit, the output would not be complete"));
    }
    tensors[tensor.spec.name] = {{"dtype", std::string(SafetensorsName(tensor.spec.dtype))},
                                 {"shape", tensor.spec.shape},
                                 {"file", options_.layout.shards()[tensor.shard].file_name},
                                 {"xxh3_128", it->second}};
  }
  return tensors;
}

absl::Status CheckpointWriter::RemoveStrayFiles() const {
  std::error_code error;
  std::vector<fs::path> stray;
  for (const auto& entry : fs::directory_iterator(staging_, error)) {
    const std::string name = entry.path().filename().string();
    const auto& shards = options_.layout.shards();
    const bool is_shard = std::any_of(shards.begin(), shards.end(), [&](const ShardLayout& shard) {
      return shard.file_name == name;
    });
    if (!is_shard && name != kJournalFileName) stray.push_back(entry.path());
  }
  for (const fs::path& path : stray) {
    fs::remove_all(path, error);
    if (error) return ErrnoStatus(error.value(), path, "remove");
  }
  return absl::OkStatus();
}

absl::Status CheckpointWriter::WriteOtherFiles(const CommitContents& contents,
                                               Json* file_hashes) const {
  for (const std::string& name : contents.source_files) {
    LLMC_RETURN_IF_ERROR(CheckFileName(name, options_.layout));
    LLMC_ASSIGN_OR_RETURN((*file_hashes)[name],
                          CopyFile(contents.source_dir / name, staging_ / name));
  }
  std::map<std::string, std::string> files = contents.files;
  files["config.json"] = contents.config_json;
  for (const auto& [name, text] : files) {
    LLMC_RETURN_IF_ERROR(CheckFileName(name, options_.layout));
    LLMC_RETURN_IF_ERROR(WriteText(staging_ / name, text));
    (*file_hashes)[name] = FileEntry(static_cast<int64_t>(text.size()), ContentHash(text));
  }
  for (const auto& [name, text] : contents.reports) {
    LLMC_RETURN_IF_ERROR(CheckFileName(name, options_.layout));
    LLMC_RETURN_IF_ERROR(WriteText(staging_ / name, text));
  }
  const std::string index = options_.layout.IndexJson();
  if (index.empty()) return absl::OkStatus();
  return WriteText(staging_ / "model.safetensors.index.json", index);
}

absl::Status CheckpointWriter::WriteManifest(const CommitContents& contents, Json files) const {
  Json manifest = contents.manifest.is_object() ? contents.manifest : Json::object();
  manifest["format"] = "llmc_manifest";
  manifest["version"] = kManifestVersion;
  manifest["fingerprint"] = options_.fingerprint;
  if (options_.fingerprint.empty()) manifest["fingerprint"] = Json::object();
  LLMC_ASSIGN_OR_RETURN(manifest["tensors"], TensorManifest());
  manifest["files"] = std::move(files);
  return WriteFileDurably(
      staging_ / std::string(kManifestFileName),
      manifest.dump(2, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace) + "\n");
}

absl::Status CheckpointWriter::Commit(const CommitContents& contents) {
  LLMC_RETURN_IF_ERROR(Usable());
  if (journal_ == nullptr) return absl::InternalError("commit: only the leading rank commits");
  LLMC_RETURN_IF_ERROR(Failpoint("commit.begin"));
  LLMC_RETURN_IF_ERROR(TensorManifest().status());
  LLMC_RETURN_IF_ERROR(RemoveStrayFiles());
  Json files = Json::object();
  LLMC_RETURN_IF_ERROR(WriteOtherFiles(contents, &files));
  LLMC_RETURN_IF_ERROR(Failpoint("commit.before_manifest"));
  LLMC_RETURN_IF_ERROR(FsyncTree(staging_));
  LLMC_RETURN_IF_ERROR(WriteManifest(contents, std::move(files)));
  LLMC_RETURN_IF_ERROR(Failpoint("commit.before_rename"));
  LLMC_RETURN_IF_ERROR(PutInPlace(staging_, options_.output_dir));
  committed_ = true;
  return absl::OkStatus();
}

}  // namespace llmc
