// Rows of every format against what json, csv and pyarrow read (make_dataset_files.py),
// and of files that are broken.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "dataset/json_text.h"
#include "dataset/row_reader.h"
#include "llmc/file.h"
#include "tests/dataset/test_files.h"

namespace llmc::dataset {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

absl::StatusOr<std::vector<std::string>> AllColumns(const std::vector<std::string>& columns) {
  return columns;
}

absl::StatusOr<std::vector<Row>> ReadAll(const std::vector<fs::path>& paths) {
  LLMC_ASSIGN_OR_RETURN(std::vector<fs::path> files, ListDatasetFiles(paths));
  const auto reader = ConcatenateFiles(std::move(files), AllColumns);
  std::vector<Row> rows;
  while (true) {
    Row row;
    LLMC_ASSIGN_OR_RETURN(const bool found, reader->Next(&row));
    if (!found) return rows;
    rows.push_back(std::move(row));
  }
}

std::string Json(const Value& value) {
  const auto text = DumpJson(value, {}, 1 << 20);
  return text.ok() ? *text : std::string(text.status().message());
}

TEST(Rows, EveryFormat_ReadsAsPythonDoes) {
  const auto text = ReadFile(TestData() / "dataset_cases.json");
  ASSERT_TRUE(text.ok()) << text.status();
  const auto cases = ParseJson(*text);
  ASSERT_TRUE(cases.ok()) << cases.status();
  for (const Value& file : cases->Find("files")->items()) {
    const std::string& name = file.Find("file")->string();
    const auto table = static_cast<size_t>(file.Find("table")->integer());
    const std::vector<Value>& expected = cases->Find("tables")->items()[table].items();
    const auto rows = ReadAll({TestData() / "files" / name});
    ASSERT_TRUE(rows.ok()) << name << ": " << rows.status();
    ASSERT_EQ(rows->size(), expected.size()) << name;
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_TRUE(Equal((*rows)[i].columns, expected[i])) << (*rows)[i].where << "\n"
                                                          << Json((*rows)[i].columns) << "\n"
                                                          << Json(expected[i]);
    }
  }
}

TEST(Rows, Where_NamesFileAndLine) {
  const TemporaryDirectory dir;
  const fs::path jsonl = dir.Write("a.jsonl", "{\"text\": 1}\n\n{\"text\": 2}\n");
  const fs::path csv = dir.Write("a.csv", "text\n\"x\ny\"\nz\n");
  const fs::path json = dir.Write("a.json", "[\n{\"a\": 1},\n\n{\"a\":\n2}]");
  const auto rows = ReadAll({jsonl, csv, json});
  ASSERT_TRUE(rows.ok()) << rows.status();
  std::vector<std::string> places;
  for (const Row& row : *rows) places.push_back(row.where);
  EXPECT_EQ(places, (std::vector<std::string>{
                        absl::StrCat(jsonl.string(), ":1"), absl::StrCat(jsonl.string(), ":3"),
                        absl::StrCat(csv.string(), ":2"), absl::StrCat(csv.string(), ":4"),
                        absl::StrCat(json.string(), ":2"), absl::StrCat(json.string(), ":4")}));
}

TEST(Rows, Directory_ListsKnownFilesInOrder) {
  const TemporaryDirectory dir;
  dir.Write("b.jsonl", "{}");
  dir.Write("a.txt.gz", "");
  dir.Write("README.md", "");
  dir.Write(".hidden.jsonl", "");
  dir.Write("sub/c.parquet", "");
  dir.Write("c.parquet.gz", "");
  const auto files = ListDatasetFiles({dir.path()});
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_EQ(*files, (std::vector<fs::path>{dir.path() / "a.txt.gz", dir.path() / "b.jsonl",
                                           dir.path() / "sub" / "c.parquet"}));
}

TEST(Rows, UnknownPaths_AreRefused) {
  const TemporaryDirectory dir;
  EXPECT_EQ(ListDatasetFiles({dir.path() / "none.jsonl"}).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(ListDatasetFiles({dir.path()}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ListDatasetFiles({dir.Write("a.arrow", "")}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

struct Broken {
  std::string name;
  std::string contents;
  std::string message;  // A part of it.
};

TEST(Rows, BrokenText_NamesFileLineAndReason) {
  const std::vector<Broken> files = {
      {"a.jsonl", "{\"text\": \"ok\"}\n{\"text\": \n", ":2: byte "},
      {"b.jsonl", "{\"a\": 1} {\"a\": 2}\n", ":1: byte "},
      {"c.jsonl", "\n\n[1, 2]\n", ":3: JSON value of type list, expected an object"},
      {"d.jsonl", "{\"a\": \"\xff\"}\n", ":1: byte "},
      {"e.jsonl", "{\"a\": \"\xed\xa0\x80\"}\n", ":1: byte "},
      {"f.jsonl", "{\"a\": NaN}\n", ":1: byte "},
      {"g.jsonl", "{\"a\": " + std::string(5000, '[') + "\n", "nested deeper"},
      {"h.jsonl", "{\"a\": 1e999}\n", ":1: "},
      {"i.jsonl", std::string("{\"a\": \"x\0y\"}\n", 13), ":1: byte "},
      {"a.json", "[{\"a\": 1},\n{\"a\": }]", ":2: byte "},
      {"b.json", "[{\"a\": 1}\n{\"a\": 2}]", "expected end of input"},
      {"i.json", "[{\"a\": 1}}", "expected \",\" or \"]\""},
      {"c.json", "[{\"a\": 1},\n", ":2: "},
      {"d.json", "[{\"a\": 1}] x", "after the end"},
      {"e.json", "[{\"a\": 1}, ]", ":1: byte "},
      {"f.json", "[1]", "expected an object"},
      {"g.json", "[{\"a\": \"]", "ends inside the JSON array"},
      {"h.json", "{\n  \"a\": 1\n}", ":1: byte "},
      {"a.csv", "a,b\n1,2\n3\n", ":3: 1 fields, expected 2"},
      {"b.csv", "a,b\n1,\"2\n3\n", ":2: the file ends inside a quoted field"},
      {"c.csv", "a,b\n1,\"2\"x\n", ":2: text after the closing quote"},
      {"d.csv", "", "empty file"},
      {"e.csv", "a,a\n1,2\n", "twice"},
      {"f.csv", "a\n\xff\n", ":2: byte 0: not UTF-8"},
      {"a.txt", "ok\nbad \xc3\x28\n", ":2: byte 4: not UTF-8"},
      {"a.jsonl.gz", "no gzip", "gzip data is damaged"},
      {"a.jsonl.zst", "no zstd", "zstd data is damaged"},
  };
  const TemporaryDirectory dir;
  for (const Broken& file : files) {
    const fs::path path = dir.Write(file.name, file.contents);
    const auto rows = ReadAll({path});
    EXPECT_EQ(rows.status().code(), absl::StatusCode::kInvalidArgument) << file.name;
    EXPECT_THAT(std::string(rows.status().message()), HasSubstr(file.message)) << file.name;
    EXPECT_THAT(std::string(rows.status().message()), HasSubstr(path.string())) << file.name;
  }
}

// A source of more than the row limit, without line ends.
TEST(Rows, LongLine_IsRefused) {
  const TemporaryDirectory dir;
  const std::string text = "{\"text\": \"" + std::string(kMaxRowBytes, 'a') + "\"}";
  for (const char* name : {"a.jsonl", "a.json"}) {
    const bool json = std::string(name) == "a.json";
    const auto rows = ReadAll({dir.Write(name, (json ? "[" : "") + text)});
    EXPECT_EQ(rows.status().code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(rows.status().message()), HasSubstr("expected shorter rows"));
  }
}

// Every prefix of a good file must fail cleanly or give a prefix of its rows.
TEST(Rows, TruncatedFiles_FailCleanly) {
  const TemporaryDirectory dir;
  for (const char* name : {"a.jsonl.gz", "a.jsonl.zst", "a.csv.gz", "nested_v1.parquet",
                           "nested_v2.parquet", "delta_v2.parquet", "snappy_v1.parquet"}) {
    const auto whole = ReadFile(TestData() / "files" / name);
    ASSERT_TRUE(whole.ok());
    const size_t step = std::max<size_t>(whole->size() / 40, 1);
    for (size_t size = 1; size < whole->size(); size += step) {
      const auto rows = ReadAll({dir.Write(name, absl::string_view(*whole).substr(0, size))});
      EXPECT_FALSE(rows.ok()) << name << " cut to " << size;
    }
  }
}

// Bytes changed at random positions (a fixed generator): any answer but a crash, a
// hang or a sanitizer's complaint is right.
TEST(Rows, DamagedParquet_NeverCrashes) {
  const TemporaryDirectory dir;
  uint64_t state = 1;
  const auto next = [&] {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return state >> 33;
  };
  for (const char* name :
       {"nested_v1.parquet", "nested_v2.parquet", "delta_v1.parquet", "zstd_v2.parquet",
        "snappy_v2.parquet", "plain.parquet", "fallback.parquet", "gzip_v1.parquet"}) {
    const auto whole = ReadFile(TestData() / "files" / name);
    ASSERT_TRUE(whole.ok());
    for (int round = 0; round < 60; ++round) {
      std::string damaged = *whole;
      // Half of the rounds hit the footer, where a byte does the most.
      const size_t from = round % 2 == 0 ? 0 : damaged.size() - damaged.size() / 4;
      for (int i = 0; i < 1 + round % 4; ++i) {
        damaged[from + next() % (damaged.size() - from)] = static_cast<char>(next());
      }
      const auto rows = ReadAll({dir.Write("a.parquet", damaged)});
      if (!rows.ok()) {
        EXPECT_NE(rows.status().code(), absl::StatusCode::kInternal) << rows.status();
      }
    }
  }
}

TEST(Rows, ParquetChoice_SeesColumnsAndReadsChosenOnly) {
  std::vector<std::string> seen;
  const auto reader = OpenRows(TestData() / "files" / "nested_v1.parquet",
                               [&](const std::vector<std::string>& columns) {
                                 seen = columns;
                                 return std::vector<std::string>{"input_ids"};
                               });
  ASSERT_TRUE(reader.ok()) << reader.status();
  Row row;
  ASSERT_TRUE(*(*reader)->Next(&row));
  EXPECT_EQ(seen.front(), "messages");
  ASSERT_EQ(row.columns.entries().size(), 1u);
  EXPECT_EQ(row.columns.entries()[0].first.string(), "input_ids");
}

}  // namespace
}  // namespace llmc::dataset
