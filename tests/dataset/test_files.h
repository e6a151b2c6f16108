// Files that the tests of this folder write and read.
#ifndef LLMC_TESTS_DATASET_TEST_FILES_H_
#define LLMC_TESTS_DATASET_TEST_FILES_H_

#include <filesystem>
#include <string>

#include "absl/strings/string_view.h"

namespace llmc {

// The folder of fixtures, and the example model whose tokenizer the tests use.
std::filesystem::path TestData();
std::filesystem::path ExampleModel();

// An empty directory that disappears with the object.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::filesystem::path& path() const { return path_; }
  // Writes a file inside, with the directories it needs; returns its path.
  std::filesystem::path Write(absl::string_view name, absl::string_view contents) const;

 private:
  std::filesystem::path path_;
};

}  // namespace llmc

#endif  // LLMC_TESTS_DATASET_TEST_FILES_H_
