#include "formats/quantization_config.h"

#include <gtest/gtest.h>

#include "formats/names.h"
#include "formats/presets.h"

namespace llmc {
namespace {

using Json = nlohmann::json;

Scheme Preset(const char* name) { return *PresetScheme(name); }

Json Written(const ConfigContents& contents) {
  absl::StatusOr<Json> json = QuantizationConfigJson(contents);
  EXPECT_TRUE(json.ok()) << json.status();
  return *json;
}

absl::Status ReadStatus(const char* json) {
  return QuantizationConfig::FromJson(Json::parse(json)).status();
}

TEST(QuantizationConfigJson, DistinctSchemes_AreGroupsInOrderOfAppearance) {
  const Json json = Written({{{"a", "Linear", Preset("FP8_DYNAMIC"), {"re:a"}},
                              {"b", "Linear", Preset("W4A16"), {"re:b", "re:d"}},
                              {"c", "Linear", Preset("FP8_DYNAMIC"), {"re:c"}},
                              {"d", "Linear", Preset("W4A16"), {"re:b", "re:d"}}},
                             std::nullopt});
  EXPECT_EQ(json["format"], "mixed-precision");
  ASSERT_EQ(json["config_groups"].size(), 3u);
  EXPECT_EQ(json["config_groups"]["group_0"]["targets"], Json({"re:a"}));
  EXPECT_EQ(json["config_groups"]["group_1"]["targets"], Json({"re:b", "re:d"}));
  EXPECT_EQ(json["config_groups"]["group_2"]["targets"], Json({"re:c"}));
}

TEST(QuantizationConfigJson, Ignore_IsGroupedByClassAndCountsRouters) {
  const Json json = Written({{{"", "LlamaForCausalLM", std::nullopt, {}},
                              {"embed", "Embedding", std::nullopt, {}},
                              {"l.0.q", "Linear", std::nullopt, {}},
                              {"l.0.gate", "MixtralTopKRouter", std::nullopt, {}},
                              {"l.0.up", "Linear", Preset("W4A16"), {"re:.*up"}},
                              {"lm_head", "Linear", std::nullopt, {}}},
                             std::nullopt});
  EXPECT_EQ(json["ignore"], Json({"l.0.q", "l.0.gate", "lm_head"}));
}

TEST(QuantizationConfigJson, TargetsAClientWouldMisread_BecomeExactNames) {
  // Two modifiers that both target Linear, told apart only by their ignore lists.
  const Json json = Written({{{"a", "Linear", Preset("FP8_DYNAMIC"), {"Linear"}},
                              {"b", "Linear", Preset("W4A16"), {"Linear"}}},
                             std::nullopt});
  EXPECT_EQ(json["config_groups"]["group_0"]["targets"], Json({"a"}));
  EXPECT_EQ(json["config_groups"]["group_1"]["targets"], Json({"b"}));
}

TEST(QuantizationConfigJson, PatternThatReachesADenseEmbedding_BecomesExactNames) {
  const Json json = Written({{{"embed_tokens", "Embedding", std::nullopt, {}},
                              {"up", "Linear", Preset("W4A16"), {"re:.*"}}},
                             std::nullopt});
  EXPECT_EQ(json["config_groups"]["group_0"]["targets"], Json({"up"}));
}

TEST(QuantizationConfigJson, OnlyKvCache_HasNoGroups) {
  QuantizationArgs kv;
  kv.type = NumberType::kFloat;
  const Json json = Written({{{"a", "Linear", std::nullopt, {}}}, kv});
  EXPECT_EQ(json["config_groups"], Json::object());
  EXPECT_EQ(json["format"], "dense");
  EXPECT_EQ(json["ignore"], Json::array());
  EXPECT_EQ(json["kv_cache_scheme"]["type"], "float");
  EXPECT_TRUE(Written({{{"a", "Linear", std::nullopt, {}}}, std::nullopt}).is_null());
}

TEST(QuantizationConfig, WrittenConfig_GivesEveryModuleItsScheme) {
  const ConfigContents contents = {{{"a.q_proj", "Linear", Preset("FP8_DYNAMIC"), {"re:.*q_proj$"}},
                                    {"a.up_proj", "Linear", Preset("NVFP4"), {"Linear"}},
                                    {"a.norm", "LlamaRMSNorm", std::nullopt, {}},
                                    {"lm_head", "Linear", std::nullopt, {}}},
                                   std::nullopt};
  const auto config = QuantizationConfig::FromJson(Written(contents));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->version(), "0.19.0");
  EXPECT_TRUE(config->is_compressed());
  for (const ConfigModule& module : contents.modules) {
    const ConfigGroup* group = *config->GroupOf(module.name, module.class_name);
    ASSERT_EQ(group != nullptr, module.scheme.has_value()) << module.name;
    if (group == nullptr) continue;
    EXPECT_EQ(group->scheme, *module.scheme) << module.name;
  }
}

TEST(QuantizationConfig, OldFiles_TakeHistoricalDefaults) {
  const auto config = QuantizationConfig::FromJson(Json::parse(R"({
      "quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized",
      "quantization_status": "frozen", "ignore": null, "config_groups": {
        "group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "float",
          "strategy": "tensor_group", "group_size": 16}}}})"));
  ASSERT_TRUE(config.ok()) << config.status();
  const ConfigGroup* group = *config->GroupOf("x.q_proj", "Linear");
  ASSERT_NE(group, nullptr);
  EXPECT_EQ(group->scheme.weights->scale_dtype, DType::kF8E4M3);
  EXPECT_EQ(group->scheme.format, Format::kNvfp4PackQuantized);
  EXPECT_TRUE(config->is_compressed());
}

TEST(QuantizationConfig, ActOrderGroup_IsReadAsGIdx) {
  const auto config = QuantizationConfig::FromJson(Json::parse(R"({
      "format": "pack-quantized", "config_groups": {"g": {"targets": ["Linear"],
        "weights": {"num_bits": 4, "group_size": 128, "actorder": "group",
                    "observer_kwargs": {"mode": "x"}}}}})"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->groups()[0].has_g_idx);
  EXPECT_FALSE(config->groups()[0].scheme.weights->actorder);
}

TEST(QuantizationConfig, PresetGroups_AreExpanded) {
  const auto config = QuantizationConfig::FromJson(
      Json::parse(R"({"config_groups": {"W8A8": ["Linear"]}, "format": "int-quantized"})"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->groups()[0].scheme, Preset("W8A8"));
}

// The objects are those of golden/legacy/sparsity_config.json, which compressed-tensors
// 0.14.0.1 has written.
TEST(SparsityConfig, WrittenObject_IsTheReferencesAndReadsBack) {
  const Json written = WithSparsityConfig(
      Json(),
      {.format = SparseFormat::kSparse24Bitmask, .ignore = {"lm_head"}, .global_sparsity = 0.45});
  EXPECT_EQ(written.at("sparsity_config"), Json::parse(R"({"format": "sparse-24-bitmask",
    "global_sparsity": 0.45, "ignore": ["lm_head"], "registry_requires_subclass": false,
    "sparsity_structure": "2:4", "targets": ["Linear"]})"));
  EXPECT_EQ(QuantizationConfig::FromJson(written)->sparse_format(), SparseFormat::kSparse24Bitmask);
  const Json bitmask = WithSparsityConfig(
      written, {.format = SparseFormat::kSparseBitmask, .ignore = {}, .global_sparsity = 0.55});
  EXPECT_EQ(bitmask.at("sparsity_config").at("sparsity_structure"), "unstructured");
  EXPECT_EQ(QuantizationConfig::FromJson(bitmask)->sparse_format(), SparseFormat::kSparseBitmask);
}

TEST(QuantizationConfig, ForeignOrDamaged_IsRefusedWithTheKey) {
  EXPECT_EQ(ReadStatus(R"({"quant_method": "gptq"})").code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(ReadStatus(R"({"format": "marlin-24"})").code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(ReadStatus(R"({"sparsity_config": {"format": "sparse-2:4"}})").code(),
            absl::StatusCode::kUnimplemented);
  EXPECT_EQ(
      ReadStatus(R"({"config_groups": {"g": {"targets": ["L"], "weights": {"num_bits": 0}}}})")
          .message(),
      "quantization_config.config_groups.g: weights: num_bits: 0, expected 1 to 16");
  for (const char* bad :
       {"[]", "3", R"({"config_groups": []})", R"({"config_groups": {"g": 1}})",
        R"({"config_groups": {"g": {}}})", R"({"ignore": [1]})", R"({"ignore": "lm_head"})",
        R"({"config_groups": {"g": {"targets": ["re:("]}}})", R"({"format": 3})",
        R"({"kv_cache_scheme": {"x": 1}})", R"({"transform_config": []})"}) {
    EXPECT_EQ(ReadStatus(bad).code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

TEST(FindQuantizationConfig, OldKeyAndNestedConfig_AreFound) {
  EXPECT_EQ(*FindQuantizationConfig(Json::parse(R"({"compression_config": {"a": 1}})")),
            Json({{"a", 1}}));
  EXPECT_NE(FindQuantizationConfig(Json::parse(R"({"text_config": {"quantization_config": {}}})")),
            nullptr);
  EXPECT_EQ(FindQuantizationConfig(Json::parse(R"({"a": 1, "quantization_config": null})")),
            nullptr);
}

TEST(FormatNames, RoundTrip) {
  for (const char* name :
       {"dense", "int-quantized", "float-quantized", "naive-quantized", "pack-quantized",
        "nvfp4-pack-quantized", "mxfp4-pack-quantized", "mxfp8-quantized"}) {
    EXPECT_EQ(FormatName(*FormatFromName(name)), name);
  }
  EXPECT_FALSE(FormatFromName("mixed-precision").ok());
}

}  // namespace
}  // namespace llmc
