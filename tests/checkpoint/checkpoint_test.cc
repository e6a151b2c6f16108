#include "checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "scratch_directory.h"

namespace llmc {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string F32Bytes(std::initializer_list<float> values) {
  std::string bytes;
  for (float value : values) bytes.append(reinterpret_cast<const char*>(&value), 4);
  return bytes;
}

// a.safetensors holds "x" [2, 2] and "y" [1]; b.safetensors holds "z" [3].
class CheckpointTest : public ::testing::Test {
 protected:
  CheckpointTest() {
    WriteFile(dir_ / "config.json", "{\"model_type\": \"llama\"}");
    WriteFile(dir_ / "a.safetensors",
              Safetensors(absl::StrCat(
                              "{\"x\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},",
                              F32Entry("y", 1, 16), "}"),
                          F32Bytes({1, 2, 3, 4, 5})));
    WriteFile(dir_ / "b.safetensors",
              Safetensors(absl::StrCat("{", F32Entry("z", 3, 0), "}"), F32Bytes({6, 7, 8})));
    WriteIndex(R"({"x": "a.safetensors", "y": "a.safetensors", "z": "b.safetensors"})");
  }

  void WriteIndex(const std::string& weight_map) {
    WriteFile(dir_ / "model.safetensors.index.json",
              absl::StrCat("{\"weight_map\": ", weight_map, "}"));
  }

  std::string OpenError(absl::StatusCode code = absl::StatusCode::kInvalidArgument) {
    const absl::Status status = Checkpoint::Open(dir_.path()).status();
    EXPECT_EQ(status.code(), code) << status;
    return std::string(status.message());
  }

  ScratchDirectory dir_;
};

TEST_F(CheckpointTest, Sharded_TensorsAreInFileOrder) {
  const auto checkpoint = Checkpoint::Open(dir_.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT((*checkpoint)->shards(), ElementsAre("a.safetensors", "b.safetensors"));
  ASSERT_EQ((*checkpoint)->tensors().size(), 3u);
  EXPECT_EQ((*checkpoint)->tensors()[2].spec.name, "z");
  EXPECT_EQ((*checkpoint)->tensors()[2].file, 1);
  EXPECT_EQ((*checkpoint)->total_bytes(), 32);
  EXPECT_EQ((*checkpoint)->config()["model_type"], "llama");
}

TEST_F(CheckpointTest, Read_GivesTheBytes) {
  const auto checkpoint = Checkpoint::Open(dir_.path());
  ASSERT_TRUE(checkpoint.ok());
  const absl::StatusOr<HostTensor> x = (*checkpoint)->Read("x");
  ASSERT_TRUE(x.ok());
  EXPECT_EQ(x->shape(), Shape({2, 2}));
  EXPECT_EQ(x->as<float>()[3], 4.0f);
  const absl::StatusOr<HostTensor> row = (*checkpoint)->ReadRows("x", 1, 1);
  ASSERT_TRUE(row.ok());
  EXPECT_EQ(row->shape(), Shape({1, 2}));
  EXPECT_EQ(row->as<float>()[0], 3.0f);
  float z[3];
  ASSERT_TRUE((*checkpoint)->ReadInto("z", std::as_writable_bytes(std::span(z))).ok());
  EXPECT_EQ(z[2], 8.0f);
}

TEST_F(CheckpointTest, ReadOutOfRange_IsRefused) {
  const auto checkpoint = Checkpoint::Open(dir_.path());
  ASSERT_TRUE(checkpoint.ok());
  const int64_t max = std::numeric_limits<int64_t>::max();
  EXPECT_EQ((*checkpoint)->ReadRows("x", 1, 2).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ((*checkpoint)->ReadRows("x", max, max).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ((*checkpoint)->ReadRows("x", -1, 1).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ((*checkpoint)->Read("w").status().code(), absl::StatusCode::kNotFound);
  std::byte few[3];
  EXPECT_EQ((*checkpoint)->ReadInto("y", few).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ((*checkpoint)->ReadBytes("y", 2, few).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(CheckpointTest, FileCutWhileOpen_GivesDataLossNamingFileAndTensor) {
  const auto checkpoint = Checkpoint::Open(dir_.path());
  ASSERT_TRUE(checkpoint.ok());
  std::filesystem::resize_file(dir_ / "b.safetensors", 70);
  const absl::Status status = (*checkpoint)->Read("z").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("\"z\""), HasSubstr("b.safetensors")));
}

TEST_F(CheckpointTest, FromManyThreads_ReadsTheSame) {
  const auto checkpoint = Checkpoint::Open(dir_.path(), {.drop_page_cache = true});
  ASSERT_TRUE(checkpoint.ok());
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i)
        if ((*checkpoint)->Read("z")->as<float>()[1] != 7.0f) ++wrong;
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST_F(CheckpointTest, IndexNamesMissingShard_IsRefused) {
  WriteIndex(R"({"x": "gone.safetensors"})");
  EXPECT_THAT(OpenError(), AllOf(HasSubstr("\"x\""), HasSubstr("gone.safetensors")));
}

TEST_F(CheckpointTest, IndexLeavesTheDirectory_IsRefused) {
  for (const char* name : {"../a.safetensors", "/tmp/a.safetensors", "./a.safetensors", "",
                           "sub/a.safetensors", "a.bin", "..", ".safetensors"}) {
    WriteIndex(absl::StrCat("{\"x\": \"", name, "\"}"));
    EXPECT_THAT(OpenError(), HasSubstr("\"x\"")) << name;
  }
}

TEST_F(CheckpointTest, IndexNamesWrongShard_IsRefused) {
  WriteIndex(R"({"x": "a.safetensors", "y": "b.safetensors", "z": "b.safetensors"})");
  EXPECT_THAT(OpenError(), AllOf(HasSubstr("\"y\" is in \"a.safetensors\""), HasSubstr("says")));
}

TEST_F(CheckpointTest, IndexAndShardsDisagree_IsRefused) {
  WriteIndex(R"({"x": "a.safetensors", "z": "b.safetensors"})");
  EXPECT_THAT(OpenError(), HasSubstr("does not name tensor \"y\""));
  WriteIndex(R"({"x": "a.safetensors", "y": "a.safetensors", "w": "b.safetensors"})");
  EXPECT_THAT(OpenError(), HasSubstr("\"w\" is not in its file"));
}

TEST_F(CheckpointTest, MalformedIndex_IsRefused) {
  for (const char* text : {"", "[]", "{}", R"({"weight_map": []})", R"({"weight_map": {}})",
                           R"({"weight_map": {"x": 1}})",
                           R"({"weight_map": {"x": "a.safetensors", "x": "b.safetensors"}})"}) {
    WriteFile(dir_ / "model.safetensors.index.json", text);
    EXPECT_THAT(OpenError(), HasSubstr("model.safetensors.index.json")) << text;
  }
}

TEST_F(CheckpointTest, TensorInTwoShards_IsRefused) {
  WriteFile(dir_ / "b.safetensors",
            Safetensors(absl::StrCat("{", F32Entry("x", 1, 0), "}"), F32Bytes({1})));
  WriteIndex(R"({"x": "a.safetensors", "y": "a.safetensors", "q": "b.safetensors"})");
  EXPECT_THAT(OpenError(), HasSubstr("is stored in \"a.safetensors\" too"));
}

TEST_F(CheckpointTest, CycleOfLinks_IsRefused) {
  std::filesystem::remove(dir_ / "b.safetensors");
  std::filesystem::create_symlink("b.safetensors", dir_ / "b.safetensors");
  EXPECT_THAT(OpenError(), HasSubstr("b.safetensors"));
}

TEST_F(CheckpointTest, OnlyPickledWeights_SaysWhatIsThere) {
  for (const char* name : {"a.safetensors", "b.safetensors", "model.safetensors.index.json"})
    std::filesystem::remove(dir_ / name);
  WriteFile(dir_ / "pytorch_model.bin", "x");
  EXPECT_THAT(OpenError(), AllOf(HasSubstr("pytorch_model.bin"), HasSubstr("only safetensors")));
}

TEST_F(CheckpointTest, BadConfig_IsRefused) {
  for (const char* text : {"", "[]", "{", R"({"a": 1, "a": 2})", "{} {}"}) {
    WriteFile(dir_ / "config.json", text);
    EXPECT_THAT(OpenError(), HasSubstr("config.json")) << text;
  }
  WriteFile(dir_ / "config.json", std::string(100000, '['));
  EXPECT_THAT(OpenError(), HasSubstr("deep"));
  WriteFile(dir_ / "config.json", std::string(17 << 20, ' '));
  EXPECT_THAT(OpenError(), HasSubstr("bytes, expected at most"));
  std::filesystem::remove(dir_ / "config.json");
  OpenError(absl::StatusCode::kNotFound);
}

TEST_F(CheckpointTest, SourceFiles_AreTheOnesBesideTheWeights) {
  for (const char* name :
       {"tokenizer.json", "modeling_x.py", "LICENSE", "generation_config.json", "README.md",
        "pytorch_model.bin", "pytorch_model.bin.index.json", ".gitattributes", "recipe.yaml",
        "original/consolidated.00.pth", "additional_chat_templates/tool.jinja", "x.gguf"})
    WriteFile(dir_ / name, "x");
  const auto checkpoint = Checkpoint::Open(dir_.path());
  ASSERT_TRUE(checkpoint.ok());
  const auto files = (*checkpoint)->SourceFiles();
  ASSERT_TRUE(files.ok());
  EXPECT_THAT(*files, ElementsAre("LICENSE", "additional_chat_templates/tool.jinja",
                                  "generation_config.json", "modeling_x.py", "tokenizer.json"));
}

}  // namespace
}  // namespace llmc
