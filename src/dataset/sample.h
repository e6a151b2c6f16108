// From a row to token ids.
#ifndef LLMC_DATASET_SAMPLE_H_
#define LLMC_DATASET_SAMPLE_H_

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "dataset/chat_template.h"
#include "dataset/row_reader.h"
#include "dataset/value.h"
#include "llmc/status.h"
#include "tokenizer/tokenizer.h"

namespace llmc::dataset {

// What a row contributes: exactly one of text, messages and token ids.
struct Sample {
  enum class Form : uint8_t { kText, kMessages, kTokenIds };

  std::string where;  // File and line, for messages.
  Form form = Form::kText;
  std::string text;
  Value messages;  // A non-empty list of dicts with "role".
  std::vector<int32_t> token_ids;

  int64_t ByteSize() const;
};

// The columns that the first form of dataset.h that `columns` allows needs.
// kInvalidArgument, listing the columns, when there is none.
absl::StatusOr<std::vector<std::string>> ChooseColumns(const std::vector<std::string>& columns,
                                                       absl::string_view text_column);

// The sample in `row`. kInvalidArgument (with the place) when a column is absent,
// null, or not of its form.
absl::StatusOr<Sample> ExtractSample(Row row, absl::string_view text_column);

struct TokenRow {
  std::vector<int32_t> ids;
  bool truncated = false;
};

class SampleTokenizer {
 public:
  // `tokenizer` outlives this. `model_dir` has the chat template.
  SampleTokenizer(const Tokenizer& tokenizer, std::filesystem::path model_dir)
      : tokenizer_(tokenizer), model_dir_(std::move(model_dir)) {}

  // Ids of every sample, in order, computed in parallel. Rows longer than
  // `max_length` are cut as the `tokenizers` package cuts: the text's own tokens give
  // way, special tokens around them stay. The first error in sample order.
  absl::StatusOr<std::vector<TokenRow>> Tokenize(const std::vector<Sample>& samples,
                                                 int64_t max_length);

 private:
  absl::Status LoadTemplate(const std::vector<Sample>& samples);
  absl::StatusOr<TokenRow> TokenizeOne(const Sample& sample, int64_t max_length) const;
  absl::StatusOr<TokenRow> TokenizeText(const Sample& sample, int64_t max_length) const;
  absl::StatusOr<TokenRow> TokenizeMessages(const Sample& sample, int64_t max_length) const;
  absl::StatusOr<TokenRow> CheckIds(const Sample& sample, int64_t max_length) const;

  const Tokenizer& tokenizer_;
  std::filesystem::path model_dir_;
  std::unique_ptr<ChatTemplate> template_;  // Loaded when the first messages come.
};

}  // namespace llmc::dataset

#endif  // LLMC_DATASET_SAMPLE_H_
