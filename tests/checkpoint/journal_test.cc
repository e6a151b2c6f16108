#include "checkpoint/journal.h"

#include <gtest/gtest.h>

#include "scratch_directory.h"

namespace llmc {
namespace {

using Json = nlohmann::json;

class JournalTest : public ::testing::Test {
 protected:
  JournalTest() {
    auto journal = Journal::Open(path_);
    EXPECT_TRUE(journal.ok());
    for (int i = 0; i < 4; ++i) EXPECT_TRUE((*journal)->Append({{"i", i}, {"s", "a\nb\xff"}}).ok());
    text_ = FileContents(path_);
  }

  ScratchDirectory dir_;
  std::filesystem::path path_ = dir_ / "journal";
  std::string text_;
};

TEST_F(JournalTest, CutAtEveryByte_KeepsTheWholeRecordsBefore) {
  for (size_t length = 0; length <= text_.size(); ++length) {
    WriteFile(path_, text_.substr(0, length));
    const std::string kept = text_.substr(0, length);
    const auto whole = std::count(kept.begin(), kept.end(), '\n');
    auto journal = Journal::Open(path_);
    ASSERT_TRUE(journal.ok());
    ASSERT_EQ(static_cast<int64_t>((*journal)->contents().records.size()), whole) << length;
    ASSERT_TRUE((*journal)->DropTail().ok());
    ASSERT_TRUE((*journal)->Append({{"i", 99}}).ok());
    const auto again = ReadJournal(path_);
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(static_cast<int64_t>(again->records.size()), whole + 1);
    EXPECT_EQ(again->records.back()["i"], 99);
    EXPECT_EQ(again->dropped_bytes, 0);
  }
}

TEST_F(JournalTest, EveryBitFlipped_NeverYieldsAWrongRecord) {
  const auto original = ReadJournal(path_);
  ASSERT_TRUE(original.ok());
  for (size_t bit = 0; bit < text_.size() * 8; ++bit) {
    std::string flipped = text_;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    WriteFile(path_, flipped);
    const auto contents = ReadJournal(path_);
    ASSERT_TRUE(contents.ok());
    ASSERT_LT(contents->records.size(), 4u);
    for (size_t i = 0; i < contents->records.size(); ++i)
      EXPECT_EQ(contents->records[i], original->records[i]);
    EXPECT_GT(contents->dropped_bytes, 0);
  }
}

TEST_F(JournalTest, OpenTwice_IsRefused) {
  const auto first = Journal::Open(path_);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(Journal::Open(path_).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(JournalTest, Missing_IsNotFound) {
  EXPECT_EQ(ReadJournal(dir_ / "none").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace llmc
