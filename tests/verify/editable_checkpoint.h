// A copy of a checkpoint whose tensors and config a test can change.
#ifndef LLMC_TESTS_VERIFY_EDITABLE_CHECKPOINT_H_
#define LLMC_TESTS_VERIFY_EDITABLE_CHECKPOINT_H_

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>

#include "checkpoint/checkpoint.h"
#include "checkpoint/output_layout.h"
#include "checkpoint/strict_json.h"
#include "llmc/file.h"

namespace llmc {

inline std::filesystem::path TestData(const std::string& name) {
  return std::filesystem::path(LLMC_SOURCE_DIR) / "tests/verify/testdata" / name;
}

class EditableCheckpoint {
 public:
  struct Tensor {
    TensorSpec spec;
    std::string bytes;
  };

  // An empty directory with config.json.
  static std::unique_ptr<EditableCheckpoint> Make(nlohmann::json config) {
    return std::unique_ptr<EditableCheckpoint>(
        new EditableCheckpoint(ConfigOnly{}, std::move(config)));
  }

 private:
  struct ConfigOnly {};
  EditableCheckpoint(ConfigOnly, nlohmann::json config_json) : config(std::move(config_json)) {
    std::string pattern = (std::filesystem::temp_directory_path() / "llmc_verify_XXXXXX").string();
    dir_ = ::mkdtemp(pattern.data());
    Save();
  }

 public:
  // A copy of testdata/NAME, in one weight file, with the source's tokenizer.
  explicit EditableCheckpoint(const std::string& name)
      : EditableCheckpoint(ConfigOnly{}, nlohmann::json()) {
    for (const auto& entry : std::filesystem::directory_iterator(TestData(name)))
      if (entry.path().string().find("safetensors") == std::string::npos)
        std::filesystem::copy(entry.path(), dir_,
                              std::filesystem::copy_options::overwrite_existing);
    for (const char* file : {"tokenizer.json", "tokenizer_config.json"})
      std::filesystem::copy(TestData("dense") / file, dir_,
                            std::filesystem::copy_options::overwrite_existing);
    const auto checkpoint = Checkpoint::Open(TestData(name));
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    config = (*checkpoint)->config();
    for (const CheckpointTensor& tensor : (*checkpoint)->tensors()) {
      const absl::StatusOr<HostTensor> bytes = (*checkpoint)->Read(tensor.spec.name);
      tensors[tensor.spec.name] = {
          tensor.spec, std::string(bytes->as<char>(), static_cast<size_t>(bytes->num_bytes()))};
    }
    Save();
  }

  ~EditableCheckpoint() {
    std::error_code error;
    std::filesystem::remove_all(dir_, error);
  }

  void Add(const std::string& name, DType dtype, Shape shape, std::string bytes) {
    tensors[name] = {{name, dtype, std::move(shape)}, std::move(bytes)};
  }

  // Writes config.json and the weight file; call after changes.
  void Save() const {
    std::ofstream(dir_ / "config.json") << config.dump(2);
    if (tensors.empty()) return;
    std::vector<TensorSpec> specs;
    for (const auto& [name, tensor] : tensors) specs.push_back(tensor.spec);
    const auto layout = OutputLayout::Make(specs);
    ASSERT_TRUE(layout.ok()) << layout.status();
    std::string file = layout->shards()[0].header;
    file.resize(static_cast<size_t>(layout->shards()[0].file_bytes));
    for (const PlacedTensor& placed : layout->tensors())
      file.replace(static_cast<size_t>(placed.offset), static_cast<size_t>(placed.spec.num_bytes()),
                   tensors.at(placed.spec.name).bytes);
    std::ofstream(dir_ / "model.safetensors", std::ios::binary) << file;
  }

  const std::filesystem::path& dir() const { return dir_; }

  nlohmann::json config;
  std::map<std::string, Tensor> tensors;

 private:
  std::filesystem::path dir_;
};

}  // namespace llmc

#endif  // LLMC_TESTS_VERIFY_EDITABLE_CHECKPOINT_H_
