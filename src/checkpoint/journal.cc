#include "checkpoint/journal.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "checkpoint/strict_json.h"
#include "llmc/failpoint.h"
#include "llmc/file.h"
#include "xxhash.h"

namespace llmc {
namespace {

constexpr int64_t kMaxJournalBytes = int64_t{1} << 30;
constexpr size_t kChecksumDigits = 16;
constexpr JsonLimits kRecordLimits{256 << 20, 64};

std::string Checksum(absl::string_view text) {
  return absl::StrFormat("%016x", XXH3_64bits(text.data(), text.size()));
}

// The record of one line without its newline; an error when it is damaged.
absl::StatusOr<nlohmann::json> ParseLine(absl::string_view line) {
  if (line.size() <= kChecksumDigits || line[kChecksumDigits] != ' ' ||
      line.substr(0, kChecksumDigits) != Checksum(line.substr(kChecksumDigits + 1)))
    return absl::DataLossError("checksum");
  return ParseStrictJson(line.substr(kChecksumDigits + 1), "journal", kRecordLimits);
}

JournalContents ParseJournal(absl::string_view text) {
  JournalContents contents;
  size_t position = 0;
  while (position < text.size()) {
    const size_t newline = text.find('\n', position);
    if (newline == absl::string_view::npos) break;
    absl::StatusOr<nlohmann::json> record = ParseLine(text.substr(position, newline - position));
    if (!record.ok()) break;
    contents.records.push_back(*std::move(record));
    position = newline + 1;
  }
  contents.valid_bytes = static_cast<int64_t>(position);
  contents.dropped_bytes = static_cast<int64_t>(text.size() - position);
  return contents;
}

absl::Status HeldByAnother(const PosixFile& file) {
  return absl::FailedPreconditionError(
      absl::StrCat(file.path().parent_path().string(), ": ", kOutputBusy));
}

// Takes the lock and makes sure that the path still names the locked file (a run
// that just ended renames it away).
absl::Status Lock(const PosixFile& file) {
  if (::flock(file.descriptor(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return HeldByAnother(file);
    // File systems without flock (some parallel ones) cannot tell two runs apart.
    if (errno != ENOSYS && errno != EOPNOTSUPP && errno != ENOLCK)
      return ErrnoStatus(errno, file.path(), "flock");
  }
  struct stat opened {
  }, named{};
  if (::fstat(file.descriptor(), &opened) != 0 || ::stat(file.path().c_str(), &named) != 0)
    return ErrnoStatus(errno, file.path(), "stat");
  if (opened.st_ino != named.st_ino || opened.st_dev != named.st_dev) return HeldByAnother(file);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<JournalContents> ReadJournal(const std::filesystem::path& path) {
  LLMC_ASSIGN_OR_RETURN(const PosixFile file, PosixFile::OpenForReading(path));
  LLMC_ASSIGN_OR_RETURN(const std::string text, file.ReadAll(kMaxJournalBytes));
  return ParseJournal(text);
}

absl::StatusOr<std::unique_ptr<Journal>> Journal::Open(const std::filesystem::path& path) {
  auto journal = std::make_unique<Journal>();
  LLMC_ASSIGN_OR_RETURN(journal->file_, PosixFile::OpenForWriting(path, /*create=*/true));
  LLMC_RETURN_IF_ERROR(Lock(journal->file_));
  LLMC_ASSIGN_OR_RETURN(const std::string text, journal->file_.ReadAll(kMaxJournalBytes));
  journal->contents_ = ParseJournal(text);
  journal->end_ = journal->contents_.valid_bytes;
  return journal;
}

absl::Status Journal::Clear() {
  contents_ = JournalContents{};
  end_ = 0;
  LLMC_RETURN_IF_ERROR(file_.Truncate(0));
  return file_.Sync();
}

absl::Status Journal::DropTail() {
  if (contents_.dropped_bytes == 0) return absl::OkStatus();
  contents_.dropped_bytes = 0;
  LLMC_RETURN_IF_ERROR(file_.Truncate(end_));
  return file_.Sync();
}

absl::Status Journal::Append(const nlohmann::json& record) {
  if (failed_) {
    return absl::FailedPreconditionError(
        absl::StrCat(file_.path().string(), ": an earlier append failed"));
  }
  // A failed write or fsync leaves an unknown tail; only a re-open may judge it.
  failed_ = true;
  LLMC_RETURN_IF_ERROR(Failpoint("journal.append"));
  const std::string text =
      record.dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace);
  const std::string line = absl::StrCat(Checksum(text), " ", text, "\n");
  LLMC_RETURN_IF_ERROR(file_.WriteAt(end_, std::as_bytes(std::span<const char>(line))));
  LLMC_RETURN_IF_ERROR(Failpoint("journal.before_sync"));
  LLMC_RETURN_IF_ERROR(file_.Sync());
  LLMC_RETURN_IF_ERROR(Failpoint("journal.after_sync"));
  end_ += static_cast<int64_t>(line.size());
  failed_ = false;
  return absl::OkStatus();
}

}  // namespace llmc
