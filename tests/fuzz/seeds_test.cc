// Every kept input of the fuzzers, whole and cut short, through its reader.

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <map>
#include <string>

#include "llmc/file.h"
#include "readers.h"

namespace llmc {
namespace {

TEST(Fuzz, EveryKeptInput_IsSurvived) {
  const std::map<std::string, std::function<void(absl::string_view)>> readers = {
      {"SafetensorsHeader", fuzz::SafetensorsHeader},
      {"Json", fuzz::Json},
      {"TokenizerJson", fuzz::TokenizerJson},
      {"RecipeYaml", fuzz::RecipeYaml},
      {"DatasetRows", fuzz::DatasetRows},
      {"Requests", fuzz::Requests},
      {"ModelConfig", fuzz::ModelConfig},
      {"ChatTemplate", fuzz::ChatTemplate},
      {"Parquet", fuzz::Parquet},
      {"StateFiles", fuzz::StateFiles}};
  for (const auto& [name, read] : readers) {
    const std::filesystem::path seeds =
        std::filesystem::path(LLMC_SOURCE_DIR) / "tests/fuzz/seeds" / name;
    int inputs = 0;
    for (const auto& entry : std::filesystem::directory_iterator(seeds)) {
      const auto bytes = ReadFile(entry.path());
      ASSERT_TRUE(bytes.ok()) << bytes.status();
      for (size_t parts = 0; parts <= 8; ++parts) read(bytes->substr(0, bytes->size() * parts / 8));
      ++inputs;
    }
    EXPECT_GT(inputs, 0) << name;
  }
}

}  // namespace
}  // namespace llmc
