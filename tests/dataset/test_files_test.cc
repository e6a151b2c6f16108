#include "tests/dataset/test_files.h"

#include <stdlib.h>

#include <fstream>

namespace llmc {

std::filesystem::path TestData() {
  return std::filesystem::path(LLMC_SOURCE_DIR) / "tests/dataset/testdata";
}

std::filesystem::path ExampleModel() {
  return std::filesystem::path(LLMC_SOURCE_DIR) / "examples/tiny-llama";
}

TemporaryDirectory::TemporaryDirectory() {
  std::string name = (std::filesystem::temp_directory_path() / "llmc-dataset-XXXXXX").string();
  path_ = ::mkdtemp(name.data());
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::filesystem::path TemporaryDirectory::Write(absl::string_view name,
                                                absl::string_view contents) const {
  const std::filesystem::path file = path_ / std::string(name);
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary)
      .write(contents.data(), static_cast<std::streamsize>(contents.size()));
  return file;
}

}  // namespace llmc
