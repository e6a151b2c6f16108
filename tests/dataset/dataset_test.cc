// Draws and windows against an independent Python implementation
// (make_dataset_files.py), and what is wrong with a dataset.
#include "dataset/dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "dataset/json_text.h"
#include "llmc/file.h"
#include "llmc/parallel.h"
#include "tests/dataset/test_files.h"

namespace llmc {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

fs::path Model() { return TestData() / "model"; }

const Tokenizer& ModelTokenizer() {
  static const std::unique_ptr<Tokenizer> kTokenizer = *Tokenizer::Load(Model());
  return *kTokenizer;
}

const dataset::Value& Cases() {
  static const dataset::Value kCases =
      *dataset::ParseJson(*ReadFile(TestData() / "dataset_cases.json"));
  return kCases;
}

using Rows = std::vector<std::vector<int32_t>>;

Rows RowsOf(const dataset::Value& value) {
  Rows rows;
  for (const dataset::Value& row : value.items()) {
    rows.emplace_back();
    for (const dataset::Value& id : row.items()) {
      rows.back().push_back(static_cast<int32_t>(id.integer()));
    }
  }
  return rows;
}

absl::StatusOr<CalibrationSamples> Load(const DatasetOptions& options) {
  return LoadCalibrationSamples(ModelTokenizer(), options, Model());
}

DatasetOptions OptionsOf(const dataset::Value& draw) {
  DatasetOptions options;
  options.paths = {TestData() / "files" / draw.Find("file")->string()};
  options.text_column = draw.Find("column")->string();
  options.max_seq_length = draw.Find("max_seq_length")->integer();
  options.num_samples = draw.Find("num_samples")->integer();
  EXPECT_TRUE(absl::SimpleAtoi(draw.Find("seed")->string(), &options.seed));
  options.shuffle = draw.Find("shuffle")->boolean();
  return options;
}

TEST(CalibrationSamples, EveryForm_GivesTheReferencesTokens) {
  for (const dataset::Value& draw : Cases().Find("draws")->items()) {
    const DatasetOptions options = OptionsOf(draw);
    const auto samples = Load(options);
    ASSERT_TRUE(samples.ok()) << samples.status();
    const std::string where = absl::StrCat(options.paths[0].string(), " n ", options.num_samples,
                                           " limit ", options.max_seq_length);
    EXPECT_EQ(samples->rows, RowsOf(*draw.Find("rows"))) << where;
    EXPECT_EQ(samples->hash, draw.Find("hash")->string()) << where;
    EXPECT_EQ(samples->warnings.size(), options.num_samples > 100 ? 1u : 0u) << where;
    int64_t tokens = 0;
    for (const auto& row : samples->rows) tokens += static_cast<int64_t>(row.size());
    EXPECT_EQ(samples->num_tokens, tokens);
  }
}

TEST(CalibrationSamples, ThreadCount_ChangesNothing) {
  DatasetOptions options;
  options.paths = {TestData() / "files" / "draw_chat.jsonl"};
  const int before = NumThreads();
  std::vector<std::string> hashes;
  for (const int threads : {1, 2, 3}) {
    SetNumThreads(threads);
    const auto samples = Load(options);
    ASSERT_TRUE(samples.ok()) << samples.status();
    hashes.push_back(samples->hash);
  }
  SetNumThreads(before);
  EXPECT_EQ(hashes[0], hashes[1]);
  EXPECT_EQ(hashes[0], hashes[2]);
}

TEST(CalibrationSamples, SmallerDraw_IsPrefixOfLargerDraw) {
  DatasetOptions options;
  options.paths = {TestData() / "files" / "draw_text.jsonl"};
  options.num_samples = 30;
  const auto large = Load(options);
  options.num_samples = 7;
  const auto small = Load(options);
  ASSERT_TRUE(large.ok() && small.ok());
  EXPECT_EQ(small->rows, Rows(large->rows.begin(), large->rows.begin() + 7));
}

TEST(CalibrationSamples, SeveralPaths_AreOneDatasetInOrder) {
  const TemporaryDirectory dir;
  DatasetOptions options;
  options.paths = {dir.Write("b.txt", "one\n"), dir.Write("a.jsonl", "{\"text\": \"two\"}"),
                   dir.Write("c.csv", "text\nthree\n")};
  options.shuffle = false;
  options.num_samples = 3;
  const auto samples = Load(options);
  ASSERT_TRUE(samples.ok()) << samples.status();
  const Rows expected = {*ModelTokenizer().Encode("one"), *ModelTokenizer().Encode("two"),
                         *ModelTokenizer().Encode("three")};
  EXPECT_EQ(samples->rows, expected);
}

TEST(CalibrationSamples, NoShuffle_ReadsNoFurther) {
  const TemporaryDirectory dir;
  DatasetOptions options;
  options.paths = {dir.Write("a.jsonl", "{\"text\": \"good\"}\nbroken\n")};
  options.num_samples = 1;
  options.shuffle = false;
  const auto samples = Load(options);
  ASSERT_TRUE(samples.ok()) << samples.status();
  EXPECT_EQ(samples->rows_read, 1);
  options.shuffle = true;
  EXPECT_THAT(std::string(Load(options).status().message()), HasSubstr("a.jsonl:2: "));
}

struct Bad {
  std::string name;
  std::string contents;
  std::string message;
};

TEST(CalibrationSamples, UnusableRows_AreNamed) {
  const std::vector<Bad> files = {
      {"a.jsonl", "", "no rows"},
      {"a.jsonl", "{\"body\": \"x\", \"id\": 1}\n", "the columns are: body, id"},
      {"a.jsonl", "{\"text\": \"x\"}\n{\"text\": null}\n", ":2: column \"text\": null"},
      {"a.jsonl", "{\"text\": 5}\n", ":1: column \"text\": integer, expected text"},
      {"a.jsonl", "{\"messages\": []}\n", "a list of one or more messages"},
      {"a.jsonl", "{\"messages\": \"x\"}\n", "expected a list of messages"},
      {"a.jsonl", "{\"messages\": [{\"content\": \"x\"}]}\n", "message 0: no \"role\""},
      {"a.jsonl", "{\"messages\": [3]}\n", "message 0: integer"},
      {"a.jsonl", "{\"conversations\": [{\"from\": \"martian\", \"value\": \"x\"}]}\n", "martian"},
      {"a.jsonl", "{\"prompt\": \"x\", \"completion\": null}\n", "column \"completion\": null"},
      {"a.jsonl", "{\"prompt\": \"x\"}\n", "the columns are: prompt"},
      {"a.jsonl", "{\"input_ids\": [1, 100000]}\n", "id 100000 at position 1"},
      {"a.jsonl", "{\"input_ids\": [1, -1]}\n", "column \"input_ids\""},
      {"a.jsonl", "{\"input_ids\": [1.5]}\n", "column \"input_ids\""},
      {"a.jsonl", "{\"input_ids\": []}\n", ":1: no tokens in this row"},
      {"a.jsonl", "{\"input_ids\": null}\n", "column \"input_ids\": null"},
  };
  const TemporaryDirectory dir;
  for (const Bad& file : files) {
    DatasetOptions options;
    options.paths = {dir.Write(file.name, file.contents)};
    const auto samples = Load(options);
    EXPECT_EQ(samples.status().code(), absl::StatusCode::kInvalidArgument) << file.contents;
    EXPECT_THAT(std::string(samples.status().message()), HasSubstr(file.message));
    EXPECT_THAT(std::string(samples.status().message()), HasSubstr("a.jsonl"));
  }
}

TEST(CalibrationSamples, ParquetWithoutColumn_ListsColumns) {
  DatasetOptions options;
  options.paths = {TestData() / "files" / "plain.parquet"};
  options.text_column = "absent";
  EXPECT_THAT(std::string(Load(options).status().message()),
              HasSubstr("no column \"absent\", the columns are: text, required"));
}

TEST(CalibrationSamples, BadOptions_AreRefused) {
  DatasetOptions options;
  EXPECT_EQ(Load(options).status().code(), absl::StatusCode::kInvalidArgument);
  options.paths = {TestData() / "files" / "draw_text.jsonl"};
  options.num_samples = 0;
  EXPECT_EQ(Load(options).status().code(), absl::StatusCode::kInvalidArgument);
  options.num_samples = 1;
  options.max_seq_length = 0;
  EXPECT_EQ(Load(options).status().code(), absl::StatusCode::kInvalidArgument);
}

absl::StatusOr<EvaluationWindows> LoadWindows(const EvaluationOptions& options) {
  return LoadEvaluationWindows(ModelTokenizer(), options, Model());
}

TEST(EvaluationWindows, Texts_AreJoinedWithEosAndCut) {
  for (const dataset::Value& expected : Cases().Find("windows")->items()) {
    EvaluationOptions options;
    options.paths = {TestData() / "files" / "draw_text.jsonl"};
    options.window_length = expected.Find("length")->integer();
    options.num_windows = expected.Find("num_windows")->integer();
    const auto windows = LoadWindows(options);
    ASSERT_TRUE(windows.ok()) << windows.status();
    EXPECT_EQ(windows->windows, RowsOf(*expected.Find("windows")));
    EXPECT_EQ(windows->hash, expected.Find("hash")->string());
  }
}

TEST(EvaluationWindows, TooLittleText_SaysHowMuchThereIs) {
  const TemporaryDirectory dir;
  EvaluationOptions options;
  options.paths = {dir.Write("a.jsonl", "{\"text\": \"one\"}\n")};
  const auto windows = LoadWindows(options);
  EXPECT_EQ(windows.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(windows.status().message()), HasSubstr("at least one window of 2048"));
}

TEST(EvaluationWindows, BrokenRowBehindTheLastWindow_IsNotReached) {
  const TemporaryDirectory dir;
  EvaluationOptions options;
  options.paths = {dir.Write("a.jsonl", "{\"text\": \"the quick brown fox\"}\nbroken\n")};
  options.window_length = 3;
  options.num_windows = 1;
  EXPECT_TRUE(LoadWindows(options).ok());
  options.num_windows = 0;
  EXPECT_THAT(std::string(LoadWindows(options).status().message()), HasSubstr(":2: "));
}

TEST(TokenRows, WrittenRows_ReadBackTheSame) {
  const TemporaryDirectory dir;
  const Rows rows = {{1, 2, 3}, {0}, {258, 7}};
  const fs::path file = dir.path() / "tokens.jsonl";
  ASSERT_TRUE(WriteTokenRows(rows, file).ok());
  EXPECT_EQ(*ReadFile(file),
            "{\"input_ids\": [1, 2, 3]}\n{\"input_ids\": [0]}\n{\"input_ids\": [258, 7]}\n");
  DatasetOptions options;
  options.paths = {file};
  options.shuffle = false;
  const auto samples = Load(options);
  ASSERT_TRUE(samples.ok()) << samples.status();
  EXPECT_EQ(samples->rows, rows);
}

}  // namespace
}  // namespace llmc
