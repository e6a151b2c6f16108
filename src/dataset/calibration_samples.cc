#include <algorithm>
#include <limits>
#include <queue>
#include <utility>

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
using dataset::Sample;
using dataset::SampleTokenizer;
using dataset::TokenRow;

constexpr int64_t kMaxHeldBytes = int64_t{2} << 30;

// A row and its place in the order of use.
struct Drawn {
  uint64_t key;
  int64_t index;
  Sample sample;

  bool operator<(const Drawn& other) const {
    return std::pair(key, index) < std::pair(other.key, other.index);
  }
};

// Keeps the `capacity` rows that come first, whatever the order they arrive in.
class Draw {
 public:
  explicit Draw(int64_t capacity) : capacity_(capacity) {}

  absl::Status Add(Drawn drawn) {
    if (size() == capacity_ && !(drawn < heap_.front())) return absl::OkStatus();
    held_bytes_ += drawn.sample.ByteSize();
    heap_.push_back(std::move(drawn));
    std::push_heap(heap_.begin(), heap_.end());
    if (size() > capacity_) {
      std::pop_heap(heap_.begin(), heap_.end());
      held_bytes_ -= heap_.back().sample.ByteSize();
      heap_.pop_back();
    }
    if (held_bytes_ <= kMaxHeldBytes) return absl::OkStatus();
    return absl::ResourceExhaustedError(
        absl::StrCat("dataset: the samples hold more than ", kMaxHeldBytes,
                     " bytes of text, expected fewer samples or shorter rows"));
  }

  std::vector<Sample> Take() {
    std::sort(heap_.begin(), heap_.end());
    std::vector<Sample> samples;
    samples.reserve(heap_.size());
    for (Drawn& drawn : heap_) samples.push_back(std::move(drawn.sample));
    return samples;
  }

  int64_t size() const { return static_cast<int64_t>(heap_.size()); }

 private:
  int64_t capacity_;
  int64_t held_bytes_ = 0;
  std::vector<Drawn> heap_;  // A max-heap: the row to give up comes first.
};

absl::Status CheckOptions(const DatasetOptions& options) {
  if (options.paths.empty()) return absl::InvalidArgumentError("dataset: no file given");
  if (options.num_samples < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_calibration_samples: ", options.num_samples, ", expected at least 1"));
  }
  if (options.max_seq_length >= 1) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("max_seq_length: ", options.max_seq_length, ", expected at least 1"));
}

absl::StatusOr<std::vector<Sample>> DrawSamples(const DatasetOptions& options, int64_t* rows_read) {
  LLMC_ASSIGN_OR_RETURN(std::vector<std::filesystem::path> files, ListDatasetFiles(options.paths));
  const auto reader = ConcatenateFiles(std::move(files), [&](const auto& columns) {
    return ChooseColumns(columns, options.text_column);
  });
  Draw draw(options.num_samples);
  for (int64_t index = 0; options.shuffle || index < options.num_samples; ++index) {
    Row row;
    LLMC_ASSIGN_OR_RETURN(const bool found, reader->Next(&row));
    if (!found) break;
    *rows_read = index + 1;
    LLMC_ASSIGN_OR_RETURN(Sample sample, ExtractSample(std::move(row), options.text_column));
    const uint64_t key =
        options.shuffle ? SplitMix64(options.seed, static_cast<uint64_t>(index)) : 0;
    LLMC_RETURN_IF_ERROR(draw.Add({key, index, std::move(sample)}));
  }
  return draw.Take();
}

std::string Names(const std::vector<std::filesystem::path>& paths) {
  std::string names;
  for (const auto& path : paths) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", path.string());
  }
  return names;
}

}  // namespace

uint64_t SplitMix64(uint64_t seed, uint64_t index) {
  uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

absl::StatusOr<CalibrationSamples> LoadCalibrationSamples(const Tokenizer& tokenizer,
                                                          const DatasetOptions& options,
                                                          const std::filesystem::path& model_dir) {
  LLMC_RETURN_IF_ERROR(CheckOptions(options));
  CalibrationSamples result;
  LLMC_ASSIGN_OR_RETURN(const std::vector<Sample> samples, DrawSamples(options, &result.rows_read));
  if (samples.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(Names(options.paths), ": no rows, expected at least one"));
  }
  const int64_t limit = tokenizer.model_max_length().value_or(std::numeric_limits<int64_t>::max());
  SampleTokenizer sample_tokenizer(tokenizer, model_dir);
  LLMC_ASSIGN_OR_RETURN(
      std::vector<TokenRow> rows,
      sample_tokenizer.Tokenize(samples, std::min(options.max_seq_length, limit)));
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].ids.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(samples[i].where, ": no tokens in this row, expected at least one"));
    }
    result.rows_truncated += rows[i].truncated;
    result.num_tokens += static_cast<int64_t>(rows[i].ids.size());
    result.rows.push_back(std::move(rows[i].ids));
  }
  if (static_cast<int64_t>(result.rows.size()) < options.num_samples) {
    result.warnings.push_back(absl::StrCat("the dataset has ", result.rows.size(),
                                           " rows, fewer than the ", options.num_samples,
                                           " samples asked for; all are used"));
  }
  result.hash = TokenHash(result.rows);
  return result;
}

}  // namespace llmc
