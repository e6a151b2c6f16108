#include "checkpoint/output_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/strict_json.h"
#include "scratch_directory.h"

namespace llmc {
namespace {

using ::testing::HasSubstr;

const std::vector<TensorSpec> kTensors = {
    {"embed", DType::kBF16, {100, 3}}, {"a.packed", DType::kI32, {5, 7}},
    {"a.scale", DType::kBF16, {5, 1}}, {"a.shape", DType::kI64, {2}},
    {"huge", DType::kF32, {500}},      {"b.q", DType::kI8, {3, 3}},
    {"b.fp8", DType::kF8E4M3, {7}},    {"b.u8", DType::kU8, {1}},
    {"scalar", DType::kF64, {}},       {"mask", DType::kBool, {3}},
    {"h", DType::kF16, {2}},           {"norm", DType::kBF16, {9}}};

// What huggingface_hub and safetensors make of kTensors.
class OutputLayoutReferenceTest : public ::testing::TestWithParam<int64_t> {
 protected:
  nlohmann::json Reference() {
    nlohmann::json specs = {{"max_shard_bytes", GetParam()}, {"tensors", nlohmann::json::array()}};
    for (const TensorSpec& spec : kTensors)
      specs["tensors"].push_back(
          {spec.name, std::string(absl::StripPrefix(TorchName(spec.dtype), "torch.")), spec.shape});
    WriteFile(dir_ / "specs.json", specs.dump());
    const std::string command =
        absl::StrCat(LLMC_SOURCE_DIR, "/.venv/bin/python ", LLMC_SOURCE_DIR,
                     "/tests/checkpoint/split_shards.py ", (dir_ / "specs.json").string(), " ",
                     dir_.path().string());
    EXPECT_EQ(std::system(command.c_str()), 0);
    return ReadStrictJson(dir_ / "reference.json").value_or(nlohmann::json());
  }

  ScratchDirectory dir_;
};

TEST_P(OutputLayoutReferenceTest, SameFilesAsTheReference) {
  const nlohmann::json reference = Reference();
  const auto layout = OutputLayout::Make(kTensors, GetParam());
  ASSERT_TRUE(layout.ok());
  ASSERT_EQ(layout->shards().size(), reference["names"].size());
  for (size_t i = 0; i < layout->shards().size(); ++i) {
    EXPECT_EQ(layout->shards()[i].file_name, reference["names"][i]);
    std::vector<std::string> names;
    for (const PlacedTensor& tensor : layout->tensors())
      if (tensor.shard == static_cast<int>(i)) names.push_back(tensor.spec.name);
    std::sort(names.begin(), names.end());
    EXPECT_EQ(names, reference["files"][i].get<std::vector<std::string>>());
  }
  if (layout->shards().size() > 1) return;
  const std::string single = FileContents(dir_ / "single.safetensors");
  EXPECT_EQ(layout->shards()[0].header, single.substr(0, layout->shards()[0].header.size()));
  EXPECT_EQ(layout->shards()[0].file_bytes, static_cast<int64_t>(single.size()));
}

INSTANTIATE_TEST_SUITE_P(Limits, OutputLayoutReferenceTest, ::testing::Values(700, 100000));

TEST(OutputLayout, EveryLimit_GivesValidFilesThatHoldAllTensors) {
  for (int64_t limit = 1; limit < 4000; limit += 37) {
    const auto layout = OutputLayout::Make(kTensors, limit);
    ASSERT_TRUE(layout.ok());
    size_t found = 0;
    for (size_t i = 0; i < layout->shards().size(); ++i) {
      const ShardLayout& shard = layout->shards()[i];
      const auto header_bytes = static_cast<int64_t>(shard.header.size());
      const auto header = ParseSafetensorsHeader(absl::string_view(shard.header).substr(8),
                                                 shard.file_bytes - header_bytes);
      ASSERT_TRUE(header.ok()) << header.status();
      for (const StoredTensor& stored : header->tensors) {
        const PlacedTensor* placed = layout->Find(stored.spec.name);
        ASSERT_NE(placed, nullptr);
        EXPECT_EQ(placed->shard, static_cast<int>(i));
        EXPECT_EQ(placed->offset, header_bytes + stored.offset);
        EXPECT_EQ(placed->offset % ElementSize(stored.spec.dtype), 0);
        ++found;
      }
    }
    EXPECT_EQ(found, kTensors.size());
  }
}

TEST(OutputLayout, Index_HasTheHubsForm) {
  const auto layout = OutputLayout::Make({{"b", DType::kF32, {2}}, {"a", DType::kI8, {3}}}, 8);
  ASSERT_TRUE(layout.ok());
  EXPECT_EQ(layout->IndexJson(), R"({
  "metadata": {
    "total_parameters": 5,
    "total_size": 11
  },
  "weight_map": {
    "a": "model-00002-of-00002.safetensors",
    "b": "model-00001-of-00002.safetensors"
  }
}
)");
  EXPECT_EQ(OutputLayout::Make({{"b", DType::kF32, {2}}})->IndexJson(), "");
}

TEST(OutputLayout, ImpossibleTensors_AreRefused) {
  const int64_t big = int64_t{1} << 62;
  for (const std::vector<TensorSpec>& tensors :
       std::vector<std::vector<TensorSpec>>{{{"a", DType::kF32, {1}}, {"a", DType::kF32, {1}}},
                                            {{"__metadata__", DType::kF32, {1}}},
                                            {{"", DType::kF32, {1}}},
                                            {{"a", DType::kF32, {-1}}},
                                            {{"a", DType::kF32, {big, 4}}},
                                            {{"a", DType::kU8, {big}}, {"b", DType::kU8, {big}}}})
    EXPECT_EQ(OutputLayout::Make(tensors).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(OutputLayout::Make({}, 0).ok());
}

TEST(OutputLayout, Hash_DependsOnEveryTensor) {
  const std::string hash = OutputLayout::Make(kTensors)->Hash();
  std::vector<TensorSpec> other = kTensors;
  other[3].dtype = DType::kU64;
  EXPECT_NE(OutputLayout::Make(other)->Hash(), hash);
  EXPECT_EQ(OutputLayout::Make(kTensors)->Hash(), hash);
}

}  // namespace
}  // namespace llmc
