#include "calibration/activation_store.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace llmc {
namespace {

// An empty directory of one test.
class ActivationStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "llmc_store_XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  std::filesystem::path dir_;
};

std::vector<std::byte> Pattern(int64_t sample, int64_t size, int64_t round) {
  std::vector<std::byte> bytes(size);
  uint32_t state = static_cast<uint32_t>(sample * 131 + round * 7 + 1);
  for (std::byte& byte : bytes) {
    state = state * 1664525u + 1013904223u;
    byte = static_cast<std::byte>(state >> 24);
  }
  return bytes;
}

void StoreAll(const std::vector<int64_t>& sizes, int64_t round, ActivationStore& store) {
  for (size_t i = 0; i < sizes.size(); ++i) {
    const std::vector<std::byte> bytes = Pattern(i, sizes[i], round);
    ASSERT_TRUE(store.Store(i, bytes).ok());
  }
}

void ExpectStored(const std::vector<int64_t>& sizes, int64_t round, const ActivationStore& store) {
  for (size_t i = 0; i < sizes.size(); ++i) {
    std::vector<std::byte> loaded(sizes[i]);
    ASSERT_TRUE(store.Load(i, loaded).ok());
    EXPECT_EQ(loaded, Pattern(i, sizes[i], round)) << "sample " << i;
  }
}

TEST_F(ActivationStoreTest, AnyBudget_ReadsBackWhatWasStored) {
  const std::vector<int64_t> sizes = {1000, 1, 70'001, 4096, 0, 12'288, 333};
  for (int64_t budget : {int64_t{0}, int64_t{1}, int64_t{1001}, int64_t{80'000}, INT64_MAX}) {
    auto store = ActivationStore::Create(sizes, {.resident_bytes = budget, .work_dir = dir_});
    ASSERT_TRUE(store.ok()) << store.status();
    StoreAll(sizes, 0, **store);
    ExpectStored(sizes, 0, **store);
    StoreAll(sizes, 1, **store);
    ExpectStored(sizes, 1, **store);
  }
}

TEST_F(ActivationStoreTest, AnyBudget_ResidentBytesStayWithinIt) {
  const std::vector<int64_t> sizes = {500, 300, 400, 100};
  for (int64_t budget : {0, 100, 500, 899, 900, 1299, 1300, 5000}) {
    auto store = ActivationStore::Create(sizes, {.resident_bytes = budget, .work_dir = dir_});
    ASSERT_TRUE(store.ok()) << store.status();
    EXPECT_LE((*store)->resident_bytes(), budget);
    EXPECT_EQ((*store)->resident_bytes() + (*store)->spilled_bytes(), 1300);
  }
}

TEST_F(ActivationStoreTest, Spilled_LeavesNoNameInTheDirectory) {
  auto store = ActivationStore::Create({100, 200}, {.resident_bytes = 0, .work_dir = dir_});
  ASSERT_TRUE(store.ok()) << store.status();
  StoreAll({100, 200}, 0, **store);
  EXPECT_TRUE(std::filesystem::is_empty(dir_));
}

TEST_F(ActivationStoreTest, AllResident_DoesNotNeedTheDirectory) {
  EXPECT_TRUE(ActivationStore::Create({100}, {.work_dir = dir_ / "absent"}).ok());
}

TEST_F(ActivationStoreTest, SpillToAbsentDirectory_NotFoundNamingIt) {
  auto store = ActivationStore::Create({100}, {.resident_bytes = 0, .work_dir = dir_ / "absent"});
  EXPECT_EQ(store.status().code(), absl::StatusCode::kNotFound);
  EXPECT_NE(store.status().message().find((dir_ / "absent").string()), std::string::npos);
}

TEST_F(ActivationStoreTest, SpillLargerThanAnyFile_ResourceExhausted) {
  auto store = ActivationStore::Create({int64_t{1} << 62}, {.resident_bytes = 0, .work_dir = dir_});
  EXPECT_EQ(store.status().code(), absl::StatusCode::kResourceExhausted) << store.status();
  EXPECT_TRUE(std::filesystem::is_empty(dir_));
}

TEST_F(ActivationStoreTest, ThreadsOnDifferentSamples_DoNotDisturbEachOther) {
  const std::vector<int64_t> sizes(40, 5000);
  auto store = ActivationStore::Create(sizes, {.resident_bytes = 100'000, .work_dir = dir_});
  ASSERT_TRUE(store.ok()) << store.status();
  std::vector<std::thread> threads;
  for (int64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int64_t round = 0; round < 10; ++round) {
        for (int64_t i = t; i < 40; i += 4) {
          const std::vector<std::byte> bytes = Pattern(i, 5000, round);
          std::vector<std::byte> loaded(5000);
          EXPECT_TRUE((*store)->Store(i, bytes).ok());
          EXPECT_TRUE((*store)->Load(i, loaded).ok());
          EXPECT_EQ(loaded, bytes);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ExpectStored(sizes, 9, **store);
}

}  // namespace
}  // namespace llmc
