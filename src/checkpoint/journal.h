// An append-only file of checksummed records; what a crash cut off is dropped.
//
// One record a line: 16 hex digits of XXH3-64 over the JSON text, a space, the
// JSON text, a newline.
#ifndef LLMC_CHECKPOINT_JOURNAL_H_
#define LLMC_CHECKPOINT_JOURNAL_H_

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "checkpoint/posix_file.h"
#include "llmc/status.h"
#include "nlohmann/json.hpp"

namespace llmc {

// Part of the message of kFailedPrecondition when another process has the journal.
inline constexpr char kOutputBusy[] = "another live run is writing this output";

// The readable prefix of a journal.
struct JournalContents {
  std::vector<nlohmann::json> records;
  int64_t valid_bytes = 0;    // Where the readable prefix ends.
  int64_t dropped_bytes = 0;  // After it: a torn or damaged tail.
};

// Reads without locking or changing it. kNotFound when the file is missing.
absl::StatusOr<JournalContents> ReadJournal(const std::filesystem::path& path);

// The one writer of a journal; holds an exclusive flock while it lives.
class Journal {
 public:
  // Opens or makes the file. kFailedPrecondition when another process holds it.
  static absl::StatusOr<std::unique_ptr<Journal>> Open(const std::filesystem::path& path);

  // What it held when it was opened.
  const JournalContents& contents() const { return contents_; }

  // Cuts the file back to nothing, or to its readable prefix; durable.
  absl::Status Clear();
  absl::Status DropTail();
  // Durable when it returns OK. After a failure every later call fails too.
  absl::Status Append(const nlohmann::json& record);

 private:
  PosixFile file_;
  JournalContents contents_;
  int64_t end_ = 0;  // Where the next record goes.
  bool failed_ = false;
};

}  // namespace llmc

#endif  // LLMC_CHECKPOINT_JOURNAL_H_
