#include "formats/presets.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "formats/names.h"
#include "formats/quantization_args.h"
#include "formats/quantization_config.h"

namespace llmc {
namespace {

using Json = nlohmann::json;

Json TestData(const std::string& name) {
  std::ifstream file(std::string(LLMC_SOURCE_DIR) + "/tests/formats/testdata/" + name);
  EXPECT_TRUE(file.good()) << name;
  return Json::parse(file);
}

// What a modifier fills in when the user names no observer.
void FillWeightObserver(Scheme& scheme) {
  if (scheme.weights) scheme.weights->observer = "memoryless_minmax";
}

TEST(Presets, AllNames_AreTheReferences) {
  const Json expected = TestData("preset_args.json");
  std::vector<std::string> names;
  for (const auto& [name, args] : expected.items()) names.push_back(name);
  EXPECT_EQ(PresetNames(), names);
}

TEST(Presets, Args_EqualTheReferences) {
  const Json presets = TestData("preset_args.json");
  for (const auto& [name, parts] : presets.items()) {
    const absl::StatusOr<Scheme> scheme = PresetScheme(name);
    ASSERT_TRUE(scheme.ok()) << name;
    const auto expect = [&](const char* key, const std::optional<QuantizationArgs>& args) {
      ASSERT_EQ(parts.contains(key), args.has_value()) << name << " " << key;
      if (!args) return;
      const absl::StatusOr<QuantizationArgs> parsed = ParseQuantizationArgs(parts[key]);
      ASSERT_TRUE(parsed.ok()) << parsed.status();
      EXPECT_EQ(*parsed, *args) << name << " " << key;
    };
    expect("weights", scheme->weights);
    expect("input_activations", scheme->input_activations);
    EXPECT_FALSE(scheme->output_activations);
    EXPECT_TRUE(ValidateScheme(*scheme).ok()) << name;
  }
}

TEST(Presets, WrittenConfig_EqualsTheReferences) {
  Json presets = TestData("presets.json");
  for (auto& [name, expected] : presets.items()) {
    Scheme scheme = *PresetScheme(name);
    FillWeightObserver(scheme);
    ConfigContents contents;
    contents.modules = {{"model.layers.0.mlp.up_proj", "Linear", scheme, {"Linear"}},
                        {"model.norm", "LlamaRMSNorm", std::nullopt, {}},
                        {"lm_head", "Linear", std::nullopt, {}}};
    if (name == "W4AFP8") {  // Packed on purpose.
      expected["format"] = expected["config_groups"]["group_0"]["format"] = "pack-quantized";
    }
    const absl::StatusOr<Json> written = QuantizationConfigJson(contents);
    ASSERT_TRUE(written.ok()) << written.status();
    EXPECT_EQ(*written, expected) << name << Json::diff(*written, expected).dump(1);
  }
}

TEST(Presets, Name_IsCaseInsensitive) {
  EXPECT_TRUE(IsPresetName("w4a16_asym"));
  EXPECT_EQ(*PresetScheme("fp8_dynamic"), *PresetScheme("FP8_DYNAMIC"));
}

TEST(Presets, UnknownName_NamesTheNearest) {
  const absl::StatusOr<Scheme> scheme = PresetScheme("W4A61");
  EXPECT_EQ(scheme.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(scheme.status().message().find("did you mean 'W4A16'"), absl::string_view::npos)
      << scheme.status();
}

}  // namespace
}  // namespace llmc
