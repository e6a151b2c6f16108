// The reference's own outputs: from its recipe.yaml and the module list must follow
// its quantization_config, the tensors in its files and its recipe.yaml again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "formats/names.h"
#include "formats/quantization_config.h"
#include "formats/stored_tensors.h"
#include "llmc/file.h"
#include "recipe/resolve.h"
#include "tiny_llama.h"

namespace llmc {
namespace {

using Json = nlohmann::json;

std::string TestDirectory() { return std::string(LLMC_SOURCE_DIR) + "/tests/recipe/testdata"; }

Json ReadJson(const std::string& path) { return Json::parse(*ReadFile(path)); }

ConfigContents ContentsOf(const Resolution& resolution, const std::vector<ModuleRef>& modules) {
  ConfigContents contents;
  for (size_t i = 0; i < modules.size(); ++i) {
    const ModuleDecision& decision = resolution.modules[i];
    contents.modules.push_back(
        {modules[i].name, modules[i].class_name, decision.scheme, decision.group_targets});
  }
  contents.kv_cache_scheme = resolution.kv_cache_scheme;
  return contents;
}

class GoldenCheckpoint : public testing::TestWithParam<std::string> {
 protected:
  std::string Directory() const { return TestDirectory() + "/checkpoints/" + GetParam(); }

  void SetUp() override {
    absl::StatusOr<Recipe> recipe = Recipe::Load(Directory() + "/recipe.yaml");
    ASSERT_TRUE(recipe.ok()) << recipe.status();
    recipe_ = *recipe;
    absl::StatusOr<Resolution> resolution = ResolveTargets(recipe_, modules_);
    ASSERT_TRUE(resolution.ok()) << resolution.status();
    resolution_ = *resolution;
  }

  const std::vector<ModuleRef> modules_ = TinyLlama();
  Recipe recipe_;
  Resolution resolution_;
};

TEST_P(GoldenCheckpoint, QuantizationConfig_IsTheReferences) {
  Json expected = ReadJson(Directory() + "/quantization_config.json");
  if (GetParam() == "W4AFP8") {  // Packed on purpose.
    expected["format"] = expected["config_groups"]["group_0"]["format"] = "pack-quantized";
  }
  const Json written = *QuantizationConfigJson(ContentsOf(resolution_, modules_));
  EXPECT_EQ(written, expected) << Json::diff(written, expected).dump(1);
}

TEST_P(GoldenCheckpoint, StoredTensors_AreTheReferences) {
  // W4AFP8 is packed on purpose: it stores what W4A16 does.
  const std::string name = GetParam() == "W4AFP8" ? "W4A16" : GetParam();
  const Json expected = ReadJson(TestDirectory() + "/checkpoints/" + name + "/tensors.json");
  Json stored = Json::object();
  const auto add = [&](const std::string& module, const std::vector<StoredTensorSpec>& specs) {
    for (const StoredTensorSpec& spec : specs) {
      stored[module + "." + spec.suffix] = {std::string(SafetensorsName(spec.dtype)), spec.shape};
    }
  };
  for (size_t i = 0; i < modules_.size(); ++i) {
    if (!modules_[i].weight_shape.empty() && !resolution_.modules[i].scheme) {
      stored[modules_[i].name + ".weight"] = {"BF16", modules_[i].weight_shape};
    } else if (resolution_.modules[i].scheme) {
      add(modules_[i].name,
          *StoredTensors(*resolution_.modules[i].scheme, modules_[i].weight_shape, DType::kBF16));
    }
    if (modules_[i].class_name == "LlamaAttention" && resolution_.kv_cache_scheme) {
      add(modules_[i].name,
          *StoredKvCacheTensors(*resolution_.kv_cache_scheme, {4, 1}, DType::kBF16));
    }
  }
  EXPECT_EQ(stored, expected) << Json::diff(stored, expected).dump(1);
}

TEST_P(GoldenCheckpoint, ResolvedRecipeYaml_IsTheReferencesText) {
  EXPECT_EQ(ResolvedRecipeYaml(recipe_), *ReadFile(Directory() + "/recipe.yaml"));
}

TEST_P(GoldenCheckpoint, ReadConfig_GivesEveryModuleItsScheme) {
  const Json json = ReadJson(Directory() + "/quantization_config.json");
  const absl::StatusOr<QuantizationConfig> config = QuantizationConfig::FromJson(json);
  ASSERT_TRUE(config.ok()) << config.status();
  for (size_t i = 0; i < modules_.size(); ++i) {
    if (modules_[i].weight_shape.size() != 2) continue;
    const ConfigGroup* group = *config->GroupOf(modules_[i].name, modules_[i].class_name);
    std::optional<Scheme> scheme = resolution_.modules[i].scheme;
    ASSERT_EQ(group != nullptr, scheme.has_value()) << modules_[i].name;
    if (group == nullptr) continue;
    scheme->format = group->scheme.format;
    EXPECT_EQ(group->scheme, *scheme) << modules_[i].name;
  }
}

INSTANTIATE_TEST_SUITE_P(All, GoldenCheckpoint,
                         testing::Values("FP8", "FP8_BLOCK", "FP8_DYNAMIC", "FP8_DYNAMIC_kv_head",
                                         "FP8_DYNAMIC_kv_tensor", "MXFP4", "MXFP4A16", "MXFP8",
                                         "MXFP8A16", "NVFP4", "NVFP4A16", "W3A16", "W4A16",
                                         "W4A16_ASYM", "W4A8", "W4AFP8", "W8A16", "W8A8",
                                         "mixed_W4A16_FP8"),
                         [](const auto& info) { return info.param; });

TEST(GoldenModelFree, Configs_AreRead) {
  const std::vector<ModuleRef> modules = TinyLlama();
  for (const char* name : {"model_free_FP8_BLOCK", "model_free_NVFP4A16", "model_free_W4A16"}) {
    const std::string directory = TestDirectory() + "/checkpoints/" + name;
    const auto config =
        QuantizationConfig::FromJson(ReadJson(directory + "/quantization_config.json"));
    ASSERT_TRUE(config.ok()) << config.status();
    const Json tensors = ReadJson(directory + "/tensors.json");
    for (const ModuleRef& module : modules) {
      if (module.weight_shape.size() != 2) continue;
      const ConfigGroup* group = *config->GroupOf(module.name, module.class_name);
      const bool is_quantized = tensors.contains(module.name + ".weight_scale");
      EXPECT_EQ(group != nullptr, is_quantized) << name << " " << module.name;
    }
  }
}

TEST(GoldenTransforms, Recipes_AreKnownButUnimplemented) {
  for (const char* name : {"quip_v_W4A16", "spinquant_R1R2_W4A16", "spinquant_R4_W4A16"}) {
    const std::string directory = TestDirectory() + "/checkpoints/" + name;
    EXPECT_EQ(Recipe::Load(directory + "/recipe.yaml").status().code(),
              absl::StatusCode::kUnimplemented);
    const auto config =
        QuantizationConfig::FromJson(ReadJson(directory + "/quantization_config.json"));
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_FALSE(config->transform_config().empty());
  }
}

TEST(Examples, EveryExampleRecipe_ParsesOrIsUnimplemented) {
  const std::map<std::string, absl::StatusCode> expected = {
      {"1", absl::StatusCode::kOk},
      {"2", absl::StatusCode::kOk},
      {"3", absl::StatusCode::kOk},
      {"4a", absl::StatusCode::kOk},
      {"4b", absl::StatusCode::kOk},
      {"4c", absl::StatusCode::kOk},
      {"5", absl::StatusCode::kOk},
      {"6", absl::StatusCode::kOk},
      {"7", absl::StatusCode::kOk},
      {"8", absl::StatusCode::kOk},
      {"9", absl::StatusCode::kOk},
      {"10", absl::StatusCode::kOk},
      {"11a", absl::StatusCode::kOk},
      {"11b", absl::StatusCode::kOk},
      {"12a", absl::StatusCode::kUnimplemented},
      {"12b", absl::StatusCode::kUnimplemented},
      {"13", absl::StatusCode::kUnimplemented},
      {"14", absl::StatusCode::kUnimplemented}};
  for (const auto& [name, code] : expected) {
    const absl::StatusOr<Recipe> recipe =
        Recipe::Load(TestDirectory() + "/examples/" + name + ".yaml");
    EXPECT_EQ(recipe.status().code(), code) << name << ": " << recipe.status();
    if (code == absl::StatusCode::kUnimplemented) {
      EXPECT_THAT(std::string(recipe.status().message()),
                  testing::HasSubstr("known, but not in this version"));
    }
    if (!recipe.ok()) continue;
    const absl::StatusOr<Recipe> again = Recipe::Parse(ResolvedRecipeYaml(*recipe), "again");
    ASSERT_TRUE(again.ok()) << name << again.status();
    EXPECT_EQ(CanonicalText(*again), CanonicalText(*recipe)) << name;
    EXPECT_EQ(ResolvedRecipeYaml(*again), ResolvedRecipeYaml(*recipe)) << name;
  }
}

}  // namespace
}  // namespace llmc
