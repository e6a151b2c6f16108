#include <algorithm>
#include <limits>
#include <optional>

#include "absl/strings/str_cat.h"
#include "dataset/dataset.h"
#include "dataset/row_reader.h"
#include "dataset/sample.h"

namespace llmc {
namespace {

using dataset::ChooseColumns;
using dataset::ConcatenateFiles;
using dataset::ExtractSample;
using dataset::ListDatasetFiles;
using dataset::Row;
using dataset::RowReader;
using dataset::Sample;
using dataset::SampleTokenizer;
using dataset::TokenRow;

constexpr size_t kBatchRows = 64;
constexpr int64_t kBatchBytes = 8 << 20;

// Joins texts with EOS and cuts the stream into windows.
class WindowCutter {
 public:
  WindowCutter(const EvaluationOptions& options, std::optional<int32_t> eos_id)
      : options_(options), eos_id_(eos_id) {}

  absl::Status Add(const std::vector<int32_t>& ids) {
    if (result.num_texts > 0) {
      if (!eos_id_) {
        return absl::InvalidArgumentError(
            "the tokenizer names no EOS token, expected one to join texts with");
      }
      Push(*eos_id_);
    }
    ++result.num_texts;
    for (const int32_t id : ids) Push(id);
    return absl::OkStatus();
  }

  bool full() const {
    return options_.num_windows > 0 &&
           static_cast<int64_t>(result.windows.size()) >= options_.num_windows;
  }
  size_t tokens_left_over() const { return window_.size(); }

  EvaluationWindows result;

 private:
  void Push(int32_t id) {
    if (full()) return;
    window_.push_back(id);
    if (static_cast<int64_t>(window_.size()) < options_.window_length) return;
    result.windows.push_back(std::move(window_));
    window_.clear();
  }

  const EvaluationOptions& options_;
  std::optional<int32_t> eos_id_;
  std::vector<int32_t> window_;
};

struct Batch {
  std::vector<Sample> samples;
  absl::Status end;  // Why reading stopped early; OK when there may be more.
  bool last = false;
};

// False at the end of the dataset.
absl::StatusOr<bool> ReadSample(RowReader* reader, absl::string_view text_column, Sample* sample) {
  Row row;
  LLMC_ASSIGN_OR_RETURN(const bool found, reader->Next(&row));
  if (!found) return false;
  LLMC_ASSIGN_OR_RETURN(*sample, ExtractSample(std::move(row), text_column));
  return true;
}

Batch ReadBatch(RowReader* reader, absl::string_view text_column) {
  Batch batch;
  int64_t bytes = 0;
  while (batch.samples.size() < kBatchRows && bytes < kBatchBytes) {
    Sample sample;
    const absl::StatusOr<bool> found = ReadSample(reader, text_column, &sample);
    batch.end = found.status();
    batch.last = !found.ok() || !*found;
    if (batch.last) break;
    bytes += sample.ByteSize();
    batch.samples.push_back(std::move(sample));
  }
  return batch;
}

absl::Status CheckOptions(const EvaluationOptions& options) {
  if (options.paths.empty()) return absl::InvalidArgumentError("dataset: no file given");
  if (options.num_windows < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_windows: ", options.num_windows, ", expected at least 0"));
  }
  if (options.window_length >= 2) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("max_seq_length: ", options.window_length, ", expected at least 2"));
}

}  // namespace

absl::StatusOr<EvaluationWindows> LoadEvaluationWindows(const Tokenizer& tokenizer,
                                                        const EvaluationOptions& options,
                                                        const std::filesystem::path& model_dir) {
  LLMC_RETURN_IF_ERROR(CheckOptions(options));
  LLMC_ASSIGN_OR_RETURN(std::vector<std::filesystem::path> files, ListDatasetFiles(options.paths));
  const auto reader = ConcatenateFiles(std::move(files), [&](const auto& columns) {
    return ChooseColumns(columns, options.text_column);
  });
  SampleTokenizer sample_tokenizer(tokenizer, model_dir);
  WindowCutter cutter(options, tokenizer.eos_id());
  for (bool last = false; !last && !cutter.full();) {
    const Batch batch = ReadBatch(reader.get(), options.text_column);
    last = batch.last;
    LLMC_ASSIGN_OR_RETURN(
        const std::vector<TokenRow> rows,
        sample_tokenizer.Tokenize(batch.samples, std::numeric_limits<int64_t>::max()));
    for (const TokenRow& row : rows) LLMC_RETURN_IF_ERROR(cutter.Add(row.ids));
    // A broken row after the last window that is wanted is never looked at.
    if (!cutter.full()) LLMC_RETURN_IF_ERROR(batch.end);
  }
  EvaluationWindows result = std::move(cutter.result);
  if (result.windows.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("dataset: ", cutter.tokens_left_over(), " tokens in ", result.num_texts,
                     " texts, expected at least one window of ", options.window_length,
                     " (more text, or a smaller max_seq_length)"));
  }
  result.num_tokens = static_cast<int64_t>(result.windows.size()) * options.window_length;
  result.hash = TokenHash(result.windows);
  return result;
}

}  // namespace llmc
