// A directory of one test, removed with it, and small safetensors files.
#ifndef LLMC_TESTS_CHECKPOINT_SCRATCH_DIRECTORY_H_
#define LLMC_TESTS_CHECKPOINT_SCRATCH_DIRECTORY_H_

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>

#include "absl/strings/str_cat.h"

namespace llmc {

class ScratchDirectory {
 public:
  ScratchDirectory() {
    // In memory where possible: an fsync costs nothing there.
    const std::filesystem::path memory = "/dev/shm";
    const bool has_memory = std::filesystem::is_directory(memory);
    std::string pattern =
        ((has_memory ? memory : std::filesystem::temp_directory_path()) / "llmc_test_XXXXXX")
            .string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~ScratchDirectory() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

inline void WriteFile(const std::filesystem::path& path, const std::string& contents) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << contents;
}

inline std::string FileContents(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// Relative name -> contents of every file below `directory`.
inline std::map<std::string, std::string> TreeContents(const std::filesystem::path& directory) {
  std::map<std::string, std::string> tree;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory))
    if (entry.is_regular_file())
      tree[std::filesystem::relative(entry.path(), directory).string()] =
          FileContents(entry.path());
  return tree;
}

// Header text with its length before it, then the data.
inline std::string Safetensors(const std::string& header, const std::string& data) {
  uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + data;
}

// {"NAME": F32 [elements]} at [begin, begin + 4 * elements).
inline std::string F32Entry(const std::string& name, int elements, int begin) {
  return absl::StrCat("\"", name, "\":{\"dtype\":\"F32\",\"shape\":[", elements,
                      "],\"data_offsets\":[", begin, ",", begin + 4 * elements, "]}");
}

}  // namespace llmc

#endif  // LLMC_TESTS_CHECKPOINT_SCRATCH_DIRECTORY_H_
