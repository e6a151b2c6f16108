#include "checkpoint/model_files.h"

#include <algorithm>
#include <array>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace llmc {
namespace {

namespace fs = std::filesystem;

constexpr std::array<absl::string_view, 20> kWeightEndings = {
    ".safetensors", ".bin",       ".pt",      ".pth",  ".ckpt",   ".h5",    ".msgpack",
    ".onnx",        ".onnx_data", ".gguf",    ".ggml", ".ot",     ".npz",   ".npy",
    ".tflite",      ".nemo",      ".mlmodel", ".pkl",  ".pickle", ".distcp"};

// Written anew for an output, or about weights that it does not have.
constexpr std::array<absl::string_view, 6> kOwnFiles = {"config.json",      "README.md",
                                                        "recipe.yaml",      "llmc_manifest.json",
                                                        "llmc_report.html", "llmc_report.json"};

constexpr std::array<absl::string_view, 10> kTokenizerFiles = {"tokenizer.json",
                                                               "tokenizer_config.json",
                                                               "special_tokens_map.json",
                                                               "tokenizer.model",
                                                               "vocab.json",
                                                               "merges.txt",
                                                               "vocab.txt",
                                                               "added_tokens.json",
                                                               "chat_template.jinja",
                                                               "chat_template.json"};

// The one subdirectory that tokenizers load files from.
constexpr absl::string_view kTemplateDirectory = "additional_chat_templates";

bool IsSourceFile(const std::string& name) {
  if (name[0] == '.' || IsWeightFile(name) || absl::EndsWith(name, ".index.json")) return false;
  return std::find(kOwnFiles.begin(), kOwnFiles.end(), name) == kOwnFiles.end();
}

absl::Status AddFiles(const fs::path& dir, const std::string& prefix,
                      std::vector<std::string>* names) {
  std::error_code error;
  for (fs::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    std::error_code ignored;
    if (it->is_regular_file(ignored) && IsSourceFile(name))
      names->push_back(absl::StrCat(prefix, name));
  }
  if (error) return absl::InternalError(absl::StrCat(dir.string(), ": ", error.message()));
  return absl::OkStatus();
}

}  // namespace

bool IsWeightFile(absl::string_view name) {
  const std::string lower = absl::AsciiStrToLower(name);
  return std::any_of(kWeightEndings.begin(), kWeightEndings.end(),
                     [&](absl::string_view ending) { return absl::EndsWith(lower, ending); });
}

bool IsTokenizerFile(absl::string_view name) {
  return std::find(kTokenizerFiles.begin(), kTokenizerFiles.end(), name) != kTokenizerFiles.end();
}

absl::StatusOr<std::vector<std::string>> ListSourceFiles(const fs::path& dir) {
  std::vector<std::string> names;
  LLMC_RETURN_IF_ERROR(AddFiles(dir, "", &names));
  const fs::path templates = dir / std::string(kTemplateDirectory);
  std::error_code error;
  if (fs::is_directory(templates, error))
    LLMC_RETURN_IF_ERROR(AddFiles(templates, absl::StrCat(kTemplateDirectory, "/"), &names));
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace llmc
