// Calibration samples and evaluation windows from files of text.
//
// A path is a file or a directory (its files with a known extension, by name,
// subdirectories after them). Formats go by extension: .jsonl and .ndjson (one
// object per line), .json (an array of objects, or lines), .csv (RFC 4180 with a
// header row), .txt (one sample per line, blank lines are skipped), .parquet; all
// but .parquet also as .gz and .zst. Files are streamed; a row of more than 64 MiB
// is an error.
//
// A row is used in the first of these forms that it has:
//   1. the column `text_column`, when that is not the default "text": text, or a
//      list of messages;
//   2. `input_ids`: a list of token ids, checked against the vocabulary;
//   3. `text`;
//   4. `messages` or `conversations`: a list of {"role", "content"} or, as ShareGPT
//      writes it, {"from", "value"}; rendered with the model's chat template, then
//      tokenised without adding special tokens, because the template writes them;
//   5. `prompt` and `completion`: two texts, which are joined, or two lists of
//      messages, which are joined and rendered.
#ifndef LLMC_DATASET_DATASET_H_
#define LLMC_DATASET_DATASET_H_

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "llmc/status.h"
#include "tokenizer/tokenizer.h"

namespace llmc {

struct DatasetOptions {
  std::vector<std::filesystem::path> paths;
  std::string text_column = "text";
  int64_t num_samples = 512;      // >= 1. Fewer rows than this give a warning.
  int64_t max_seq_length = 2048;  // Tokens, >= 1; the tokenizer's own limit also holds.
  uint64_t seed = 42;
  // True: `num_samples` rows drawn uniformly without replacement. Row i of the
  // dataset (0-based, over all files in order) has the key SplitMix64(seed, i), the
  // (i+1)-th output of the SplitMix64 generator started at `seed`; the rows with the
  // smallest keys are used, in the order of their keys. So the first samples of a
  // larger draw are the smaller draw, on every platform.
  // False: the first `num_samples` rows as they come; no further row is read.
  bool shuffle = true;
};

// The key that orders rows when shuffling.
uint64_t SplitMix64(uint64_t seed, uint64_t index);

struct CalibrationSamples {
  std::vector<std::vector<int32_t>> rows;  // Token ids; every row has >= 1, <= max_seq_length.
  int64_t rows_read = 0;                   // Rows looked at, used or not.
  int64_t rows_truncated = 0;              // Used rows that were longer than max_seq_length.
  int64_t num_tokens = 0;                  // Sum of the lengths of `rows`.
  std::vector<std::string> warnings;
  std::string hash;  // TokenHash(rows).
};

// Reads, draws and tokenises. `model_dir` is where the tokenizer came from: its
// chat_template.jinja (else the template of tokenizer_config.json) renders
// messages. The result does not depend on the number of threads.
// kNotFound: a path does not exist. kInvalidArgument, with file and line (or row):
// a broken row, text that is not UTF-8, an absent column (the message lists those
// that exist), null text, a row without tokens, a token id outside the vocabulary,
// a template that fails; also a dataset without rows. kResourceExhausted: the drawn
// rows hold more than 2 GiB.
absl::StatusOr<CalibrationSamples> LoadCalibrationSamples(const Tokenizer& tokenizer,
                                                          const DatasetOptions& options,
                                                          const std::filesystem::path& model_dir);

// 32 lower-case hex digits: XXH3-128 (seed 0, canonical form) of the rows, each as
// its length (64-bit little-endian) followed by its ids (32-bit little-endian).
std::string TokenHash(const std::vector<std::vector<int32_t>>& rows);

struct EvaluationOptions {
  std::vector<std::filesystem::path> paths;
  std::string text_column = "text";
  int64_t window_length = 2048;  // Tokens, >= 2.
  int64_t num_windows = 0;       // At most this many; 0: all.
};

struct EvaluationWindows {
  std::vector<std::vector<int32_t>> windows;  // Each of exactly window_length ids.
  int64_t num_texts = 0;                      // Texts that were tokenised.
  int64_t num_tokens = 0;                     // Ids in `windows`.
  std::string hash;                           // TokenHash(windows).
};

// The windows of `llmc eval`: texts in file order, tokenised with special tokens
// (messages: as above), joined with the EOS id between texts, cut without overlap;
// the last partial window is dropped. A text without tokens adds nothing but its
// separator. Reading stops once `num_windows` are full. Errors as above;
// kInvalidArgument when not one window is filled, or the tokenizer names no EOS
// token and there is more than one text.
absl::StatusOr<EvaluationWindows> LoadEvaluationWindows(const Tokenizer& tokenizer,
                                                        const EvaluationOptions& options,
                                                        const std::filesystem::path& model_dir);

// Writes one {"input_ids": [...]} per line, durably: what `llmc tokenize` gives.
// Reading the file back as a dataset without shuffling gives `rows` again.
absl::Status WriteTokenRows(const std::vector<std::vector<int32_t>>& rows,
                            const std::filesystem::path& output);

}  // namespace llmc

#endif  // LLMC_DATASET_DATASET_H_
