#include "checkpoint/model_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "scratch_directory.h"

namespace llmc {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

constexpr char kCommit[] = "0123456789abcdef0123456789abcdef01234567";

// A hub cache with org/name, branch "main" and branch "feature/x".
class ModelDirectoryTest : public ::testing::Test {
 protected:
  ModelDirectoryTest() {
    for (const char* name : {"HF_HOME", "XDG_CACHE_HOME"}) ::unsetenv(name);
    ::setenv("HF_HUB_CACHE", cache_.path().c_str(), 1);
    WriteFile(model_ / "refs/main", kCommit);
    WriteFile(model_ / "refs/feature/x", std::string(kCommit) + "\n");
    WriteFile(model_ / "blobs/e1", "{}");
    fs::create_directories(snapshot_);
    fs::create_symlink("../../blobs/e1", snapshot_ / "config.json");
  }

  ScratchDirectory cache_;
  fs::path model_ = cache_ / "models--org--name";
  fs::path snapshot_ = model_ / "snapshots" / kCommit;
};

TEST_F(ModelDirectoryTest, ExistingDirectory_IsTaken) {
  const auto dir = ResolveModelDirectory(cache_.path().string());
  ASSERT_TRUE(dir.ok());
  EXPECT_EQ(*dir, cache_.path());
}

TEST_F(ModelDirectoryTest, CachedModel_IsFoundByBranchAndCommit) {
  for (const std::string& model :
       {std::string("org/name"), std::string("org/name@main"), std::string("org/name@feature/x"),
        std::string("org/name@") + kCommit}) {
    const auto dir = ResolveModelDirectory(model);
    ASSERT_TRUE(dir.ok()) << dir.status();
    EXPECT_EQ(*dir, snapshot_);
  }
}

TEST_F(ModelDirectoryTest, NotCached_NamesTheDownloadCommand) {
  const absl::Status status = ResolveModelDirectory("org/other@v1").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("hf download org/other --revision v1"));
  EXPECT_THAT(std::string(ResolveModelDirectory("gpt2").status().message()),
              HasSubstr("hf download gpt2"));
}

TEST_F(ModelDirectoryTest, PathTricks_AreRefused) {
  for (const char* model : {"", "../x", "org/../x", "/no/such/dir", "org/name@../../x", "a/b/c",
                            "org--x/name", "org/na\nme", "org/name@", "-x/y"}) {
    EXPECT_EQ(ResolveModelDirectory(model).status().code(), absl::StatusCode::kNotFound) << model;
  }
}

TEST_F(ModelDirectoryTest, LinkOutOfTheCache_IsRefused) {
  const ScratchDirectory elsewhere;
  WriteFile(elsewhere / "secret", "x");
  fs::create_symlink(elsewhere / "secret", snapshot_ / "tokenizer.json");
  EXPECT_EQ(ResolveModelDirectory("org/name").status().code(), absl::StatusCode::kPermissionDenied);
}

TEST_F(ModelDirectoryTest, BrokenLink_IsAnUnfinishedDownload) {
  fs::create_symlink("../../blobs/gone", snapshot_ / "model.safetensors");
  EXPECT_THAT(std::string(ResolveModelDirectory("org/name").status().message()),
              HasSubstr("unfinished download"));
}

TEST_F(ModelDirectoryTest, CacheVariables_HaveTheHubsPrecedence) {
  EXPECT_EQ(HubCacheDirectory(), cache_.path());
  ::unsetenv("HF_HUB_CACHE");
  ::setenv("HOME", "/h", 1);
  EXPECT_EQ(HubCacheDirectory(), "/h/.cache/huggingface/hub");
  ::setenv("XDG_CACHE_HOME", "/x", 1);
  EXPECT_EQ(HubCacheDirectory(), "/x/huggingface/hub");
  ::setenv("HF_HOME", "/f", 1);
  EXPECT_EQ(HubCacheDirectory(), "/f/hub");
}

}  // namespace
}  // namespace llmc
