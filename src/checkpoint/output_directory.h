// The output directory as a whole: may it be written, whose is it, and how it is
// put in place.
#ifndef LLMC_CHECKPOINT_OUTPUT_DIRECTORY_H_
#define LLMC_CHECKPOINT_OUTPUT_DIRECTORY_H_

#include <filesystem>
#include <map>
#include <string>

#include "llmc/status.h"

namespace llmc {

using Fingerprint = std::map<std::string, std::string>;

inline constexpr char kJournalFileName[] = "llmc_journal";

// Absolute, without "." and "..", without a slash at the end. kInvalidArgument
// when empty or a root.
absl::StatusOr<std::filesystem::path> NormalizeOutput(const std::filesystem::path& output);

// kInvalidArgument when `output` is, lies in, or holds `model`, links resolved.
absl::Status CheckOutsideModel(const std::filesystem::path& output,
                               const std::filesystem::path& model);

enum class OutputState {
  kAbsent,       // Or an empty directory.
  kForeign,      // Something that llmc did not write.
  kFinished,     // llmc's manifest is there.
  kInterrupted,  // Finished, but the run that renamed it ended right after.
};

struct ExistingOutput {
  OutputState state = OutputState::kAbsent;
  Fingerprint fingerprint;  // Of the manifest.
};

absl::StatusOr<ExistingOutput> InspectOutput(const std::filesystem::path& output);

// "recipe (\"a\" there, \"b\" here), source (...)"; "" when equal.
std::string FingerprintDifference(const Fingerprint& there, const Fingerprint& here);

// Renames `staging` to `output` in one step, durably. What a finished `output` of
// llmc held before is removed. kFailedPrecondition when something else is there.
absl::Status PutInPlace(const std::filesystem::path& staging, const std::filesystem::path& output);

// Removes what an interrupted PutInPlace left: the journal in `output`, and the
// replaced output. Never removes an unfinished run.
absl::Status CleanUpAfter(const std::filesystem::path& staging,
                          const std::filesystem::path& output);

// Makes every file and directory below `directory` durable.
absl::Status FsyncTree(const std::filesystem::path& directory);

}  // namespace llmc

#endif  // LLMC_CHECKPOINT_OUTPUT_DIRECTORY_H_
