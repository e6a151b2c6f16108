// Writes an output directory so that it is absent or complete, whatever crashes.
//
// Work goes to the sibling `<output>.llmc-partial`; finished units (layers) are
// recorded in a journal there; Commit makes everything durable and renames the
// directory. Any number of processes on one or several hosts write parts of the
// same planned files; one of them, the leader, keeps the journal and commits.
// The order between processes is the caller's: the leader's Create returns
// before the others call Open; every rank's Sync returns before the leader's
// MarkDone of what they wrote, and before its Commit.
#ifndef LLMC_CHECKPOINT_CHECKPOINT_WRITER_H_
#define LLMC_CHECKPOINT_CHECKPOINT_WRITER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/journal.h"
#include "checkpoint/output_directory.h"
#include "checkpoint/output_layout.h"
#include "checkpoint/posix_file.h"
#include "llmc/status.h"
#include "llmc/tensor.h"
#include "nlohmann/json.hpp"

namespace llmc {

inline constexpr absl::string_view kManifestFileName = "llmc_manifest.json";
inline constexpr absl::string_view kPartialSuffix = ".llmc-partial";

struct WriterOptions {
  std::filesystem::path output_dir;
  std::filesystem::path model_dir;  // May be empty.
  OutputLayout layout;
  // What fixes the output: "recipe", "source", "calibration", "llmc_version",
  // ... A resume needs all of them equal.
  Fingerprint fingerprint;
  bool fresh = false;      // Discard an unfinished run's work.
  bool overwrite = false;  // Replace a finished output of llmc at Commit.
};

// A piece of work (a layer) whose tensors are written and synced.
struct DoneUnit {
  std::string name;
  std::vector<std::string> tensors;
  // ContentHash of tensors whose hash is known already; the others are read
  // back and hashed.
  std::map<std::string, std::string> hashes;
  nlohmann::json payload;  // What a resumed run wants to know (errors, times).
};

// Names are relative to the output and may have directories, but no "..".
struct CommitContents {
  std::string config_json;                   // Written as config.json.
  std::map<std::string, std::string> files;  // Name -> contents: recipe.yaml, README.md, ...
  // The same, but without a hash in the manifest: reports, whose times differ
  // from run to run.
  std::map<std::string, std::string> reports;
  std::filesystem::path source_dir;       // Where source_files lie.
  std::vector<std::string> source_files;  // Copied byte by byte: Checkpoint::SourceFiles().
  nlohmann::json manifest = nlohmann::json::object();  // More fields for llmc_manifest.json.
};

// Thread-safe where noted. One live leader per staging directory (flock).
class CheckpointWriter {
 public:
  // Leader: makes or re-opens the staging directory and its weight files.
  //   kFailedPrecondition  the output exists and is not llmc's, or is a finished
  //                        one of another job and neither fresh nor overwrite is
  //                        given; the staging belongs to another job (the message
  //                        names what differs) and fresh is not given; another
  //                        live run holds it.
  //   kInvalidArgument     the output lies in, is, or holds the model directory.
  //   kResourceExhausted   the disk is too small for the weight files.
  // When the output is finished and has the same fingerprint and neither fresh nor
  // overwrite asks for it again (a crash after the
  // rename, or the same command again) the result has committed() == true and
  // there is nothing left to do.
  // Done units whose bytes no longer have their recorded hashes are not done.
  static absl::StatusOr<std::unique_ptr<CheckpointWriter>> Create(WriterOptions options);
  // Every other rank, with the same options, after the leader's Create, unless the
  // leader's committed() is true. kFailedPrecondition when there is no staging
  // directory of this job.
  static absl::StatusOr<std::unique_ptr<CheckpointWriter>> Open(WriterOptions options);
  ~CheckpointWriter();

  bool committed() const { return committed_; }
  const OutputLayout& layout() const { return options_.layout; }
  const std::filesystem::path& staging_dir() const { return staging_; }
  // What the user should know: dropped journal tails, damaged units.
  const std::vector<std::string>& warnings() const { return warnings_; }

  // The whole tensor, any thread or rank. kInvalidArgument when the layout has
  // no such tensor or the size differs, kResourceExhausted when the disk is full.
  absl::Status Write(absl::string_view name, std::span<const std::byte> bytes);
  // A byte range of it.
  absl::Status WriteAt(absl::string_view name, int64_t byte_offset,
                       std::span<const std::byte> bytes);
  // Streams an untouched tensor; returns its ContentHash. Any thread or rank.
  absl::StatusOr<std::string> CopyTensor(const Checkpoint& source, absl::string_view source_name,
                                         absl::string_view name);
  // Bytes written so far (for resume); any thread or rank.
  absl::StatusOr<HostTensor> Read(absl::string_view name) const;
  absl::StatusOr<std::string> HashTensor(absl::string_view name) const;

  // Makes this process's writes since the last Sync durable. After a failure
  // nothing more can be written, marked or committed by this object.
  absl::Status Sync();

  // Leader only; not concurrent with itself. Durable when it returns.
  absl::Status MarkDone(const DoneUnit& unit);
  // Units done when this object was made, and on the leader those marked since.
  bool IsDone(absl::string_view unit) const;
  // The payload given to MarkDone; null when the unit is not done.
  nlohmann::json Payload(absl::string_view unit) const;

  // Leader only, after every rank's Sync: writes the other files, the index and
  // the manifest, makes all of it durable and renames. kFailedPrecondition when a
  // tensor of the layout belongs to no done unit. llmc_manifest.json then holds
  // {format, version, fingerprint, tensors: {name: {dtype, shape, file, xxh3_128}},
  // files: {name: {bytes, xxh3_128}}} and the fields of contents.manifest.
  absl::Status Commit(const CommitContents& contents);

 private:
  explicit CheckpointWriter(WriterOptions options);
  // Create, step by step.
  absl::Status CheckOutput();
  absl::Status OpenStaging();
  absl::Status AdoptJournal();
  absl::Status StartJournal();
  absl::Status MakeShards();
  absl::Status CheckDoneUnits();
  // Open.
  absl::Status JoinStaging();

  absl::Status CheckBegin(const nlohmann::json& begin) const;
  void Replay(const std::vector<nlohmann::json>& records);
  absl::StatusOr<const PlacedTensor*> Placed(absl::string_view name) const;
  absl::Status Usable() const;
  absl::StatusOr<std::vector<std::string>> HashTensors(const std::vector<std::string>& names) const;
  // Commit, step by step.
  absl::StatusOr<nlohmann::json> TensorManifest() const;
  absl::Status RemoveStrayFiles() const;
  absl::Status WriteOtherFiles(const CommitContents& contents, nlohmann::json* file_hashes) const;
  absl::Status WriteManifest(const CommitContents& contents, nlohmann::json files) const;

  WriterOptions options_;  // Paths normalised.
  std::filesystem::path staging_;
  std::unique_ptr<Journal> journal_;  // Leader only.
  std::vector<PosixFile> shards_;
  std::unique_ptr<std::atomic<bool>[]> written_;  // Per shard: bytes since the last Sync.
  std::atomic<bool> sync_failed_{false};
  std::map<std::string, nlohmann::json, std::less<>> done_;  // Unit -> its record.
  std::vector<std::string> warnings_;
  bool committed_ = false;
};

}  // namespace llmc

#endif  // LLMC_CHECKPOINT_CHECKPOINT_WRITER_H_
