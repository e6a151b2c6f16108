#include "checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "checkpoint/strict_json.h"
#include "scratch_directory.h"

namespace llmc {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<SafetensorsHeader> ReadHeaderOf(const std::filesystem::path& path) {
  LLMC_ASSIGN_OR_RETURN(const PosixFile file, PosixFile::OpenForReading(path));
  return ReadSafetensorsHeader(file);
}

int RunPython(const std::string& arguments) {
  return std::system(
      absl::StrCat(LLMC_SOURCE_DIR, "/.venv/bin/python ", LLMC_SOURCE_DIR, arguments).c_str());
}

// Stricter on purpose: see safetensors.h.
bool IsKnownDifference(const absl::Status& status) {
  return absl::StrContains(status.message(), "twice") ||
         absl::StrContains(status.message(), "is not one that llmc reads");
}

TEST(Safetensors, HostileCorpus_SameVerdictAsTheReferenceReader) {
  const ScratchDirectory dir;
  ASSERT_EQ(RunPython(absl::StrCat("/tests/checkpoint/hostile_corpus.py ", dir.path().string())),
            0);
  const absl::StatusOr<nlohmann::json> verdicts = ReadStrictJson(dir / "verdicts.json");
  ASSERT_TRUE(verdicts.ok()) << verdicts.status();
  int accepted = 0;
  for (const auto& [name, verdict] : verdicts->items()) {
    const absl::StatusOr<SafetensorsHeader> header = ReadHeaderOf(dir / (name + ".safetensors"));
    if (!header.ok()) {
      EXPECT_TRUE(!verdict["accepted"] || IsKnownDifference(header.status()))
          << name << ": " << header.status();
      EXPECT_EQ(header.status().code(), absl::StatusCode::kInvalidArgument) << name;
      EXPECT_THAT(std::string(header.status().message()), HasSubstr(name)) << name;
      continue;
    }
    ++accepted;
    EXPECT_TRUE(verdict["accepted"]) << name << ": " << verdict;
    std::set<std::string> names;
    for (const StoredTensor& tensor : header->tensors) names.insert(tensor.spec.name);
    EXPECT_EQ(names, verdict["names"].get<std::set<std::string>>()) << name;
  }
  EXPECT_GT(accepted, 20);
  EXPECT_GT(verdicts->size(), 1000u);
}

const std::string kTwoTensors =
    Safetensors(absl::StrCat("{\"__metadata__\":{\"format\":\"pt\"},", F32Entry("a", 2, 0), ",",
                             F32Entry("b", 1, 8), "}"),
                std::string(12, '\1'));

TEST(Safetensors, TwoTensors_OffsetsAreInTheFile) {
  const ScratchDirectory dir;
  WriteFile(dir / "x.safetensors", kTwoTensors);
  const absl::StatusOr<SafetensorsHeader> header = ReadHeaderOf(dir / "x.safetensors");
  ASSERT_TRUE(header.ok()) << header.status();
  ASSERT_EQ(header->tensors.size(), 2u);
  EXPECT_EQ(header->tensors[1].spec.name, "b");
  EXPECT_EQ(header->tensors[1].spec.shape, Shape({1}));
  EXPECT_EQ(header->tensors[1].offset, static_cast<int64_t>(kTwoTensors.size()) - 4);
  EXPECT_EQ(header->metadata.at("format"), "pt");
}

TEST(Safetensors, EveryBitFlippedInTheHeader_NeverCrashes) {
  const ScratchDirectory dir;
  const size_t header_end = kTwoTensors.size() - 12;
  for (size_t bit = 0; bit < header_end * 8; ++bit) {
    std::string flipped = kTwoTensors;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    WriteFile(dir / "x.safetensors", flipped);
    const absl::StatusOr<SafetensorsHeader> header = ReadHeaderOf(dir / "x.safetensors");
    if (header.ok()) continue;
    EXPECT_EQ(header.status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(Safetensors, CutAtEveryByte_IsRefused) {
  const ScratchDirectory dir;
  for (size_t length = 0; length < kTwoTensors.size(); ++length) {
    WriteFile(dir / "x.safetensors", kTwoTensors.substr(0, length));
    EXPECT_EQ(ReadHeaderOf(dir / "x.safetensors").status().code(),
              absl::StatusCode::kInvalidArgument)
        << length;
  }
}

TEST(Safetensors, HostileName_IsEscapedInTheMessage) {
  const absl::Status status =
      ParseSafetensorsHeader(
          "{\"\\u001b[31m\\u0000\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8)
          .status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("\\x1b[31m\\x00"));
}

TEST(Safetensors, EncodedHeader_ParsesToTheSameTensors) {
  const std::vector<StoredTensor> tensors = {{{"w\"\n\x7f\xc3\xa9", DType::kBF16, {2, 3}}, 0},
                                             {{"z", DType::kU8, {}}, 12}};
  const std::string bytes = EncodeSafetensorsHeader(tensors, {{"format", "pt"}});
  EXPECT_EQ(bytes.size() % 8, 0u);
  const absl::StatusOr<SafetensorsHeader> header =
      ParseSafetensorsHeader(absl::string_view(bytes).substr(8), 13);
  ASSERT_TRUE(header.ok()) << header.status();
  ASSERT_EQ(header->tensors.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(header->tensors[i].spec, tensors[i].spec);
    EXPECT_EQ(header->tensors[i].offset, tensors[i].offset);
  }
}

TEST(Safetensors, Fifo_IsRefusedWithoutWaiting) {
  const ScratchDirectory dir;
  ASSERT_EQ(::system(absl::StrCat("mkfifo ", (dir / "x.safetensors").string()).c_str()), 0);
  EXPECT_EQ(ReadHeaderOf(dir / "x.safetensors").status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace llmc
