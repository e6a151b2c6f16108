#include "checkpoint/checkpoint_writer.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <utility>

#include "absl/strings/str_cat.h"
#include "checkpoint/content_hash.h"
#include "checkpoint/strict_json.h"
#include "llmc/counters.h"
#include "llmc/failpoint.h"
#include "llmc/file.h"
#include "llmc/parallel.h"

namespace llmc {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr int kJournalVersion = 1;
// Tensors are copied and hashed in pieces of this size.
constexpr int64_t kPieceBytes = 4 << 20;
// Key of the journal's fingerprint that stands for the planned files.
constexpr char kLayoutKey[] = "layout";

// A write beyond RLIMIT_FSIZE shall fail with EFBIG, not end the process.
void IgnoreFileSizeSignal() {
  struct sigaction action {};
  if (::sigaction(SIGXFSZ, nullptr, &action) == 0 && action.sa_handler == SIG_DFL)
    ::signal(SIGXFSZ, SIG_IGN);
}

absl::StatusOr<fs::path> MakeStagingDirectory(const fs::path& staging) {
  std::error_code error;
  fs::create_directories(staging.parent_path(), error);
  if (error) return ErrnoStatus(error.value(), staging.parent_path(), "create directory");
  if (::mkdir(staging.c_str(), 0755) == 0) return staging;
  if (errno != EEXIST) return ErrnoStatus(errno, staging, "create directory");
  if (!fs::is_directory(fs::symlink_status(staging, error))) {
    return absl::FailedPreconditionError(
        absl::StrCat(staging.string(), ": exists and is not a directory; remove it"));
  }
  if (!fs::exists(staging / kJournalFileName, error) && !fs::is_empty(staging, error)) {
    return absl::FailedPreconditionError(absl::StrCat(
        staging.string(), ": exists and was not made by llmc (it has no journal); remove it"));
  }
  return staging;
}

absl::Status RemoveAllBut(const fs::path& directory, const std::vector<std::string>& kept) {
  std::error_code error;
  std::vector<fs::path> doomed;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    const std::string name = entry.path().filename().string();
    if (std::find(kept.begin(), kept.end(), name) == kept.end()) doomed.push_back(entry.path());
  }
  for (const fs::path& path : doomed) {
    fs::remove_all(path, error);
    if (error) return ErrnoStatus(error.value(), path, "remove");
  }
  return absl::OkStatus();
}

// Reserves the blocks now, so that a full disk shows before hours of work; file
// systems that cannot reserve are left sparse.
absl::Status Reserve(const PosixFile& file, int64_t num_bytes) {
  LLMC_RETURN_IF_ERROR(file.Truncate(num_bytes));
  if (num_bytes == 0 || ::fallocate(file.descriptor(), 0, 0, num_bytes) == 0)
    return absl::OkStatus();
  if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)
    return ErrnoStatus(errno, file.path(), absl::StrCat("reserve ", num_bytes, " bytes"));
  return absl::OkStatus();
}

// An object of texts. A journal's records are checksummed, but whoever may write beside
// the output can make one that says anything.
bool IsTextMap(const Json& record, const char* key) {
  const auto found = record.find(key);
  return found != record.end() && found->is_object() &&
         std::all_of(found->begin(), found->end(), [](const Json& v) { return v.is_string(); });
}

bool Says(const Json& record, const char* key, const Json& value) {
  const auto found = record.find(key);
  return found != record.end() && *found == value;
}

absl::StatusOr<bool> IsPrepared(const ShardLayout& shard, const PosixFile& file) {
  LLMC_ASSIGN_OR_RETURN(const int64_t size, file.Size());
  if (size != shard.file_bytes) return false;
  std::string header(shard.header.size(), '\0');
  LLMC_RETURN_IF_ERROR(file.ReadAt(0, std::as_writable_bytes(std::span<char>(header))));
  return header == shard.header;
}

absl::Status PrepareShard(const ShardLayout& shard, const PosixFile& file) {
  LLMC_ASSIGN_OR_RETURN(const bool prepared, IsPrepared(shard, file));
  if (prepared) return absl::OkStatus();
  LLMC_RETURN_IF_ERROR(Reserve(file, shard.file_bytes));
  return file.WriteAt(0, std::as_bytes(std::span<const char>(shard.header)));
}

}  // namespace

CheckpointWriter::CheckpointWriter(WriterOptions options) : options_(std::move(options)) {}
CheckpointWriter::~CheckpointWriter() = default;

absl::StatusOr<std::unique_ptr<CheckpointWriter>> CheckpointWriter::Create(WriterOptions options) {
  IgnoreFileSizeSignal();
  std::unique_ptr<CheckpointWriter> writer(new CheckpointWriter(std::move(options)));
  LLMC_RETURN_IF_ERROR(writer->CheckOutput());
  if (writer->committed_) return writer;
  LLMC_RETURN_IF_ERROR(writer->OpenStaging());
  LLMC_RETURN_IF_ERROR(writer->MakeShards());
  LLMC_RETURN_IF_ERROR(writer->CheckDoneUnits());
  return writer;
}

absl::StatusOr<std::unique_ptr<CheckpointWriter>> CheckpointWriter::Open(WriterOptions options) {
  IgnoreFileSizeSignal();
  std::unique_ptr<CheckpointWriter> writer(new CheckpointWriter(std::move(options)));
  LLMC_RETURN_IF_ERROR(writer->JoinStaging());
  return writer;
}

absl::Status CheckpointWriter::CheckOutput() {
  LLMC_ASSIGN_OR_RETURN(options_.output_dir, NormalizeOutput(options_.output_dir));
  staging_ = absl::StrCat(options_.output_dir.string(), kPartialSuffix);
  if (!options_.model_dir.empty())
    LLMC_RETURN_IF_ERROR(CheckOutsideModel(options_.output_dir, options_.model_dir));
  LLMC_ASSIGN_OR_RETURN(const ExistingOutput existing, InspectOutput(options_.output_dir));
  if (existing.state == OutputState::kAbsent) return absl::OkStatus();
  const std::string where = options_.output_dir.string();
  if (existing.state == OutputState::kForeign) {
    return absl::FailedPreconditionError(absl::StrCat(
        where, ": exists and was not written by llmc; it is left alone, choose another output"));
  }
  const std::string difference = FingerprintDifference(existing.fingerprint, options_.fingerprint);
  const bool interrupted = existing.state == OutputState::kInterrupted;
  const bool again = options_.fresh || (options_.overwrite && !interrupted);
  committed_ = difference.empty() && !again;
  if (!committed_ && !options_.fresh && !options_.overwrite) {
    return absl::FailedPreconditionError(
        absl::StrCat(where, ": holds the finished output of another job, which differs in ",
                     difference, "; replace it with --overwrite or choose another output"));
  }
  return CleanUpAfter(staging_, options_.output_dir);
}

absl::Status CheckpointWriter::OpenStaging() {
  LLMC_RETURN_IF_ERROR(MakeStagingDirectory(staging_).status());
  LLMC_ASSIGN_OR_RETURN(journal_, Journal::Open(staging_ / kJournalFileName));
  // A header that was cut off means that no work was recorded yet.
  if (options_.fresh || journal_->contents().records.empty()) return StartJournal();
  return AdoptJournal();
}

absl::Status CheckpointWriter::StartJournal() {
  LLMC_RETURN_IF_ERROR(journal_->Clear());
  LLMC_RETURN_IF_ERROR(RemoveAllBut(staging_, {kJournalFileName}));
  LLMC_ASSIGN_OR_RETURN(const int64_t free_bytes, FreeBytes(staging_));
  const int64_t needed = options_.layout.total_file_bytes();
  if (free_bytes < needed) {
    return absl::ResourceExhaustedError(absl::StrCat(staging_.string(), ": the output needs ",
                                                     needed, " bytes of disk, but only ",
                                                     free_bytes, " are free"));
  }
  Json fingerprint = options_.fingerprint;
  fingerprint[kLayoutKey] = options_.layout.Hash();
  LLMC_RETURN_IF_ERROR(journal_->Append(
      {{"kind", "begin"}, {"version", kJournalVersion}, {"fingerprint", fingerprint}}));
  LLMC_RETURN_IF_ERROR(FsyncDirectory(staging_));
  return FsyncDirectory(staging_.parent_path());
}

absl::Status CheckpointWriter::CheckBegin(const Json& begin) const {
  if (!Says(begin, "kind", "begin") || !Says(begin, "version", kJournalVersion) ||
      !IsTextMap(begin, "fingerprint")) {
    return absl::FailedPreconditionError(
        absl::StrCat(staging_.string(),
                     ": an unfinished run of another version of llmc; discard "
                     "it with --fresh"));
  }
  Fingerprint here = options_.fingerprint;
  here[kLayoutKey] = options_.layout.Hash();
  const std::string difference =
      FingerprintDifference(begin["fingerprint"].get<Fingerprint>(), here);
  if (difference.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(staging_.string(), ": an unfinished run of another job, which differs in ",
                   difference, "; discard it with --fresh or choose another output"));
}

absl::Status CheckpointWriter::AdoptJournal() {
  const JournalContents& contents = journal_->contents();
  LLMC_RETURN_IF_ERROR(CheckBegin(contents.records[0]));
  if (contents.dropped_bytes > 0) {
    warnings_.push_back(absl::StrCat(staging_.string(), ": the journal's last ",
                                     contents.dropped_bytes,
                                     " bytes are torn or damaged and were dropped"));
  }
  Replay(contents.records);
  return journal_->DropTail();
}

void CheckpointWriter::Replay(const std::vector<Json>& records) {
  for (const Json& record : records) {
    const auto unit = record.find("unit");
    if (unit == record.end() || !unit->is_string()) continue;
    const std::string name = unit->get<std::string>();
    if (Says(record, "kind", "done") && IsTextMap(record, "hashes")) done_[name] = record;
    if (Says(record, "kind", "void")) done_.erase(name);
  }
}

absl::Status CheckpointWriter::MakeShards() {
  const std::vector<ShardLayout>& shards = options_.layout.shards();
  written_ = std::make_unique<std::atomic<bool>[]>(shards.size());
  for (size_t i = 0; i < shards.size(); ++i) {
    LLMC_ASSIGN_OR_RETURN(
        PosixFile file, PosixFile::OpenForWriting(staging_ / shards[i].file_name, /*create=*/true));
    LLMC_RETURN_IF_ERROR(PrepareShard(shards[i], file));
    shards_.push_back(std::move(file));
    written_[i] = true;
  }
  LLMC_RETURN_IF_ERROR(Failpoint("staging.created"));
  return FsyncDirectory(staging_);
}

absl::Status CheckpointWriter::CheckDoneUnits() {
  std::vector<std::string> damaged;
  for (const auto& [unit, record] : done_) {
    std::vector<std::string> names;
    for (const auto& [name, unused] : record.at("hashes").items()) names.push_back(name);
    LLMC_ASSIGN_OR_RETURN(const std::vector<std::string> hashes, HashTensors(names));
    for (size_t i = 0; i < names.size(); ++i) {
      if (record["hashes"][names[i]] == hashes[i]) continue;
      warnings_.push_back(absl::StrCat("unit ", unit, ": the bytes of tensor ", Quoted(names[i]),
                                       " are not those recorded; the unit is done again"));
      damaged.push_back(unit);
      break;
    }
  }
  for (const std::string& unit : damaged) {
    done_.erase(unit);
    LLMC_RETURN_IF_ERROR(journal_->Append({{"kind", "void"}, {"unit", unit}}));
  }
  return absl::OkStatus();
}

absl::Status CheckpointWriter::JoinStaging() {
  LLMC_ASSIGN_OR_RETURN(options_.output_dir, NormalizeOutput(options_.output_dir));
  staging_ = absl::StrCat(options_.output_dir.string(), kPartialSuffix);
  const absl::StatusOr<JournalContents> journal = ReadJournal(staging_ / kJournalFileName);
  if (!journal.ok() || journal->records.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat(staging_.string(), ": no staging directory of a running job",
                     " (is it on a file system that every host sees?)"));
  }
  LLMC_RETURN_IF_ERROR(CheckBegin(journal->records[0]));
  Replay(journal->records);
  written_ = std::make_unique<std::atomic<bool>[]>(options_.layout.shards().size());
  for (const ShardLayout& shard : options_.layout.shards()) {
    LLMC_ASSIGN_OR_RETURN(PosixFile file, PosixFile::OpenForWriting(staging_ / shard.file_name,
                                                                    /*create=*/false));
    LLMC_ASSIGN_OR_RETURN(const bool prepared, IsPrepared(shard, file));
    if (!prepared) {
      return absl::FailedPreconditionError(
          absl::StrCat(file.path().string(), ": not the weight file that the plan says"));
    }
    shards_.push_back(std::move(file));
  }
  return absl::OkStatus();
}

absl::Status CheckpointWriter::Usable() const {
  if (committed_) return absl::FailedPreconditionError("output: already committed");
  if (!sync_failed_) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(staging_.string(), ": an earlier fsync failed, written bytes may be lost"));
}

absl::StatusOr<const PlacedTensor*> CheckpointWriter::Placed(absl::string_view name) const {
  LLMC_RETURN_IF_ERROR(Usable());
  const PlacedTensor* placed = options_.layout.Find(name);
  if (placed != nullptr) return placed;
  return absl::InvalidArgumentError(
      absl::StrCat("output tensor ", Quoted(name), ": not in the planned output"));
}

absl::Status CheckpointWriter::Write(absl::string_view name, std::span<const std::byte> bytes) {
  LLMC_ASSIGN_OR_RETURN(const PlacedTensor* placed, Placed(name));
  if (static_cast<int64_t>(bytes.size()) != placed->spec.num_bytes()) {
    return absl::InvalidArgumentError(absl::StrCat("output tensor ", Quoted(name), ": ",
                                                   bytes.size(), " bytes, expected ",
                                                   placed->spec.num_bytes()));
  }
  return WriteAt(name, 0, bytes);
}

absl::Status CheckpointWriter::WriteAt(absl::string_view name, int64_t byte_offset,
                                       std::span<const std::byte> bytes) {
  LLMC_ASSIGN_OR_RETURN(const PlacedTensor* placed, Placed(name));
  const int64_t total = placed->spec.num_bytes();
  if (byte_offset < 0 || byte_offset > total ||
      static_cast<int64_t>(bytes.size()) > total - byte_offset) {
    return absl::InvalidArgumentError(absl::StrCat("output tensor ", Quoted(name), " of ", total,
                                                   " bytes: no room for ", bytes.size(),
                                                   " bytes at ", byte_offset));
  }
  LLMC_RETURN_IF_ERROR(Failpoint("write.tensor"));
  LLMC_RETURN_IF_ERROR(shards_[placed->shard].WriteAt(placed->offset + byte_offset, bytes));
  Count(Counter::kOutputWrittenBytes, std::ssize(bytes));
  // After the write: a Sync between would take the flag and miss the bytes.
  written_[placed->shard] = true;
  return absl::OkStatus();
}

absl::StatusOr<std::string> CheckpointWriter::CopyTensor(const Checkpoint& source,
                                                         absl::string_view source_name,
                                                         absl::string_view name) {
  LLMC_ASSIGN_OR_RETURN(const PlacedTensor* placed, Placed(name));
  const CheckpointTensor* from = source.Find(source_name);
  if (from == nullptr)
    return absl::NotFoundError(absl::StrCat("source tensor ", Quoted(source_name), ": missing"));
  const int64_t total = placed->spec.num_bytes();
  if (from->spec.dtype != placed->spec.dtype || from->spec.num_bytes() != total) {
    return absl::InvalidArgumentError(absl::StrCat(
        "output tensor ", Quoted(name), ": planned as ", SafetensorsName(placed->spec.dtype), " ",
        ShapeString(placed->spec.shape), ", but its source has another dtype or size"));
  }
  ContentHasher hasher;
  std::vector<std::byte> piece(static_cast<size_t>(std::min(total, kPieceBytes)));
  for (int64_t offset = 0; offset < total; offset += kPieceBytes) {
    const std::span<std::byte> part(piece.data(),
                                    static_cast<size_t>(std::min(kPieceBytes, total - offset)));
    LLMC_RETURN_IF_ERROR(source.ReadBytes(source_name, offset, part));
    hasher.Add(part);
    LLMC_RETURN_IF_ERROR(WriteAt(name, offset, part));
  }
  return hasher.Finish();
}

absl::StatusOr<HostTensor> CheckpointWriter::Read(absl::string_view name) const {
  LLMC_ASSIGN_OR_RETURN(const PlacedTensor* placed, Placed(name));
  LLMC_ASSIGN_OR_RETURN(HostTensor host, MakeHostTensor(placed->spec.dtype, placed->spec.shape));
  LLMC_RETURN_IF_ERROR(shards_[placed->shard].ReadAt(placed->offset, host.bytes()));
  return host;
}

absl::StatusOr<std::string> CheckpointWriter::HashTensor(absl::string_view name) const {
  LLMC_ASSIGN_OR_RETURN(const PlacedTensor* placed, Placed(name));
  const int64_t total = placed->spec.num_bytes();
  ContentHasher hasher;
  std::vector<std::byte> piece(static_cast<size_t>(std::min(total, kPieceBytes)));
  for (int64_t offset = 0; offset < total; offset += kPieceBytes) {
    const std::span<std::byte> part(piece.data(),
                                    static_cast<size_t>(std::min(kPieceBytes, total - offset)));
    LLMC_RETURN_IF_ERROR(shards_[placed->shard].ReadAt(placed->offset + offset, part));
    hasher.Add(part);
  }
  return hasher.Finish();
}

absl::StatusOr<std::vector<std::string>> CheckpointWriter::HashTensors(
    const std::vector<std::string>& names) const {
  std::vector<absl::StatusOr<std::string>> results(names.size(), std::string());
  ParallelFor(static_cast<int64_t>(names.size()),
              [&](int64_t i) { results[i] = HashTensor(names[i]); });
  std::vector<std::string> hashes;
  for (absl::StatusOr<std::string>& result : results) {
    LLMC_ASSIGN_OR_RETURN(std::string hash, std::move(result));
    hashes.push_back(std::move(hash));
  }
  return hashes;
}

absl::Status CheckpointWriter::Sync() {
  LLMC_RETURN_IF_ERROR(Usable());
  absl::Status status = Failpoint("write.before_sync");
  for (size_t i = 0; status.ok() && i < shards_.size(); ++i)
    if (written_[i].exchange(false)) status = shards_[i].Sync();
  // The kernel may have dropped what it could not write: a second fsync would lie.
  if (!status.ok()) sync_failed_ = true;
  return status;
}

absl::Status CheckpointWriter::MarkDone(const DoneUnit& unit) {
  LLMC_RETURN_IF_ERROR(Usable());
  if (journal_ == nullptr)
    return absl::InternalError("journal: only the leading rank marks units done");
  std::map<std::string, std::string> hashes;
  std::vector<std::string> unknown;
  for (const std::string& name : unit.tensors) {
    LLMC_RETURN_IF_ERROR(Placed(name).status());
    const auto known = unit.hashes.find(name);
    if (known == unit.hashes.end())
      unknown.push_back(name);
    else
      hashes.insert(*known);
  }
  LLMC_ASSIGN_OR_RETURN(const std::vector<std::string> read_back, HashTensors(unknown));
  for (size_t i = 0; i < unknown.size(); ++i) hashes[unknown[i]] = read_back[i];
  Json record = {
      {"kind", "done"}, {"unit", unit.name}, {"hashes", hashes}, {"payload", unit.payload}};
  if (hashes.empty()) record["hashes"] = Json::object();
  LLMC_RETURN_IF_ERROR(journal_->Append(record));
  done_[unit.name] = std::move(record);
  return absl::OkStatus();
}

bool CheckpointWriter::IsDone(absl::string_view unit) const {
  return done_.find(std::string(unit)) != done_.end();
}

Json CheckpointWriter::Payload(absl::string_view unit) const {
  const auto it = done_.find(std::string(unit));
  return it == done_.end() ? Json() : it->second.value("payload", Json());
}

}  // namespace llmc
