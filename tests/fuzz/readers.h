// What is fuzzed: readers of bytes that come from outside. Each takes any bytes and
// may only return; crashes, leaks, endless loops and unbounded memory are findings.
#ifndef LLMC_TESTS_FUZZ_READERS_H_
#define LLMC_TESTS_FUZZ_READERS_H_

#include <filesystem>

#include "absl/strings/string_view.h"

namespace llmc::fuzz {

void SafetensorsHeader(absl::string_view bytes);
void Json(absl::string_view bytes);
void TokenizerJson(absl::string_view bytes);
void RecipeYaml(absl::string_view bytes);
void DatasetRows(absl::string_view bytes);
void Requests(absl::string_view bytes);
// A config.json with its quantization_config.
void ModelConfig(absl::string_view bytes);
void ChatTemplate(absl::string_view bytes);
void Parquet(absl::string_view bytes);
// By the first byte: a journal, a report, a line of step events, a token file.
void StateFiles(absl::string_view bytes);

// A file in memory that holds `bytes` until the next call.
std::filesystem::path MemoryFile(absl::string_view bytes);

}  // namespace llmc::fuzz

#endif  // LLMC_TESTS_FUZZ_READERS_H_
