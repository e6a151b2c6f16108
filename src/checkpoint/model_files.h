// Which files of a model directory are weights, and which an output needs too.
#ifndef LLMC_CHECKPOINT_MODEL_FILES_H_
#define LLMC_CHECKPOINT_MODEL_FILES_H_

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "llmc/status.h"

namespace llmc {

// True for weights of any framework, by the name's ending (.safetensors, .bin,
// .pt, .gguf, .h5, ...).
bool IsWeightFile(absl::string_view name);

// True for a file that tokenizers and processors load, by its name.
bool IsTokenizerFile(absl::string_view name);

// See Checkpoint::SourceFiles.
absl::StatusOr<std::vector<std::string>> ListSourceFiles(const std::filesystem::path& dir);

}  // namespace llmc

#endif  // LLMC_CHECKPOINT_MODEL_FILES_H_
