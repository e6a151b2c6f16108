#include "llmc/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>

namespace llmc {
namespace {

using ::testing::HasSubstr;

class FileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "llmc_file_XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  int NumEntries() const {
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(dir_))
      count += !entry.path().empty();
    return count;
  }

  std::filesystem::path dir_;
};

TEST_F(FileTest, WrittenFile_ReadsBackByteForByte) {
  for (const std::string& contents :
       {std::string(), std::string("a\0b\n\xff", 5), std::string(3'000'001, 'x')}) {
    ASSERT_TRUE(WriteFileDurably(dir_ / "f", contents).ok());
    const absl::StatusOr<std::string> read = ReadFile(dir_ / "f");
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_TRUE(*read == contents);
  }
  EXPECT_EQ(NumEntries(), 1);
}

TEST_F(FileTest, Write_ReplacesByRename) {
  ASSERT_TRUE(WriteFileDurably(dir_ / "f", "old").ok());
  std::filesystem::create_hard_link(dir_ / "f", dir_ / "link");
  ASSERT_TRUE(WriteFileDurably(dir_ / "f", "new").ok());
  EXPECT_EQ(*ReadFile(dir_ / "link"), "old");
  EXPECT_EQ(*ReadFile(dir_ / "f"), "new");
}

TEST_F(FileTest, Write_ModeIs0644) {
  const mode_t before = ::umask(022);
  ASSERT_TRUE(WriteFileDurably(dir_ / "f", "x").ok());
  ::umask(before);
  struct stat st {};
  ASSERT_EQ(::stat((dir_ / "f").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0644u);
}

TEST_F(FileTest, WriteIntoAbsentDirectory_NotFoundNamingThePath) {
  const absl::Status status = WriteFileDurably(dir_ / "absent" / "f", "x");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr((dir_ / "absent" / "f").string()));
}

TEST_F(FileTest, WriteOverADirectory_FailsAndLeavesNoTemporary) {
  std::filesystem::create_directory(dir_ / "f");
  EXPECT_FALSE(WriteFileDurably(dir_ / "f", "x").ok());
  EXPECT_EQ(NumEntries(), 1);
}

TEST_F(FileTest, RelativePathWithoutDirectory_IsWritten) {
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(dir_);
  const absl::Status status = WriteFileDurably("f", "x");
  std::filesystem::current_path(before);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(*ReadFile(dir_ / "f"), "x");
}

TEST_F(FileTest, ReadAbsentFile_NotFound) {
  EXPECT_EQ(ReadFile(dir_ / "absent").status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(WriteFileDurably(dir_ / "f", "x").ok());
  EXPECT_EQ(ReadFile(dir_ / "f" / "below").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(FileTest, ReadTooLargeFile_InvalidArgumentWithBothSizes) {
  ASSERT_TRUE(WriteFileDurably(dir_ / "f", "12345").ok());
  EXPECT_TRUE(ReadFile(dir_ / "f", 5).ok());
  const absl::Status status = ReadFile(dir_ / "f", 4).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("5 bytes, expected at most 4"));
}

TEST_F(FileTest, ReadSparseGiant_RefusedWithoutAllocating) {
  ASSERT_TRUE(WriteFileDurably(dir_ / "f", "").ok());
  ASSERT_EQ(::truncate((dir_ / "f").c_str(), off_t{1} << 40), 0);
  EXPECT_EQ(ReadFile(dir_ / "f").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(FileTest, ReadDirectory_InvalidArgument) {
  EXPECT_EQ(ReadFile(dir_).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(FileTest, ReadFifoWithoutAWriter_InvalidArgumentAtOnce) {
  ASSERT_EQ(::mkfifo((dir_ / "fifo").c_str(), 0600), 0);
  EXPECT_EQ(ReadFile(dir_ / "fifo").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(FileTest, FsyncDirectory_OnlyForDirectories) {
  EXPECT_TRUE(FsyncDirectory(dir_).ok());
  EXPECT_EQ(FsyncDirectory(dir_ / "absent").code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(WriteFileDurably(dir_ / "f", "x").ok());
  EXPECT_EQ(FsyncDirectory(dir_ / "f").code(), absl::StatusCode::kNotFound);
}

TEST(ErrnoStatus, Codes_SayWhoseFaultItIs) {
  using absl::StatusCode;
  EXPECT_EQ(ErrnoStatus(ENOENT, "p", "open").code(), StatusCode::kNotFound);
  EXPECT_EQ(ErrnoStatus(EACCES, "p", "open").code(), StatusCode::kPermissionDenied);
  EXPECT_EQ(ErrnoStatus(EROFS, "p", "open").code(), StatusCode::kPermissionDenied);
  EXPECT_EQ(ErrnoStatus(ENOSPC, "p", "write").code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrnoStatus(EDQUOT, "p", "write").code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrnoStatus(EIO, "p", "read").code(), StatusCode::kUnknown);
  EXPECT_EQ(ErrnoStatus(ENOENT, "p", "open").message(), "p: open: No such file or directory");
}

TEST(WriteFileDurably, FullDevice_ResourceExhausted) {
  if (::access("/dev/full", W_OK) != 0) GTEST_SKIP() << "no /dev/full";
  // The sibling temporary file of this name is the device itself.
  const std::string dir = testing::TempDir() + "llmc_full";
  std::filesystem::remove_all(dir);
  std::filesystem::create_directory(dir);
  const std::string temporary = dir + "/f.tmp." + std::to_string(::getpid());
  ASSERT_EQ(::symlink("/dev/full", temporary.c_str()), 0);
  EXPECT_EQ(WriteFileDurably(dir + "/f", "x").code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(std::filesystem::is_empty(dir));
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace llmc
