#include "architecture/model_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nlohmann/json.hpp"

namespace llmc {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

json Config(const char* model_type) {
  return {{"model_type", model_type}, {"vocab_size", 100},      {"hidden_size", 64},
          {"intermediate_size", 96},  {"num_hidden_layers", 4}, {"num_attention_heads", 4},
          {"num_key_value_heads", 2}, {"rms_norm_eps", 1e-5}};
}

ModelSpec Parse(const json& config) {
  absl::StatusOr<ModelSpec> spec = ParseModelSpec(config);
  EXPECT_TRUE(spec.ok()) << spec.status();
  return spec.ok() ? *spec : ModelSpec();
}

absl::Status ParseError(const json& config) { return ParseModelSpec(config).status(); }

TEST(ParseModelSpec, Llama_DefaultsOfTheClass) {
  const ModelSpec spec = Parse(Config("llama"));
  EXPECT_EQ(spec.head_dim, 16);
  EXPECT_EQ(spec.num_key_value_heads, 2);
  EXPECT_EQ(spec.rope.type, RopeType::kDefault);
  EXPECT_EQ(spec.rope.theta, 10000.0);
  EXPECT_EQ(spec.rope.max_position_embeddings, 2048);
  EXPECT_FALSE(spec.qkv_bias || spec.o_bias || spec.mlp_bias || spec.qk_norm);
  EXPECT_FALSE(spec.tie_word_embeddings);
  EXPECT_FALSE(spec.dtype.has_value());
  EXPECT_THAT(spec.sliding_window, ElementsAre(0, 0, 0, 0));
}

TEST(ParseModelSpec, LlamaWithoutKeyValueHeads_AsManyAsHeads) {
  json config = Config("llama");
  config["num_key_value_heads"] = nullptr;
  EXPECT_EQ(Parse(config).num_key_value_heads, 4);
}

TEST(ParseModelSpec, Biases_FollowTheFamily) {
  json config = Config("llama");
  config["attention_bias"] = true;
  config["mlp_bias"] = true;
  const ModelSpec llama = Parse(config);
  EXPECT_TRUE(llama.qkv_bias && llama.o_bias && llama.mlp_bias);
  config["model_type"] = "qwen3";
  const ModelSpec qwen3 = Parse(config);
  EXPECT_TRUE(qwen3.qkv_bias && qwen3.o_bias && qwen3.qk_norm && !qwen3.mlp_bias);
  config["model_type"] = "mistral";
  const ModelSpec mistral = Parse(config);
  EXPECT_FALSE(mistral.qkv_bias || mistral.o_bias || mistral.mlp_bias);
  const ModelSpec qwen2 = Parse(Config("qwen2"));
  EXPECT_TRUE(qwen2.qkv_bias && !qwen2.o_bias);
}

TEST(ParseModelSpec, Qwen3WithoutHeadDim_128) { EXPECT_EQ(Parse(Config("qwen3")).head_dim, 128); }

TEST(ParseModelSpec, OldRopeSpelling_SameAsNew) {
  json old_spelling = Config("llama");
  old_spelling["rope_theta"] = 500000.0;
  old_spelling["rope_scaling"] = {{"type", "llama3"},
                                  {"factor", 8.0},
                                  {"low_freq_factor", 1.0},
                                  {"high_freq_factor", 4.0},
                                  {"original_max_position_embeddings", 8192}};
  json new_spelling = Config("llama");
  new_spelling["rope_parameters"] = {
      {"rope_type", "llama3"},   {"rope_theta", 500000.0},
      {"factor", 8.0},           {"low_freq_factor", 1.0},
      {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 8192}};
  for (const json& config : {old_spelling, new_spelling}) {
    const RopeParameters rope = Parse(config).rope;
    EXPECT_EQ(rope.type, RopeType::kLlama3);
    EXPECT_EQ(rope.theta, 500000.0);
    EXPECT_EQ(rope.factor, 8.0);
    EXPECT_EQ(rope.original_max_position_embeddings, 8192);
  }
}

TEST(ParseModelSpec, RopeTypeSu_IsLongrope) {
  json config = Config("llama");
  config["max_position_embeddings"] = 1024;
  config["original_max_position_embeddings"] = 256;
  config["rope_scaling"] = {{"type", "su"},
                            {"short_factor", {1, 1, 1, 1, 1, 1, 1, 1}},
                            {"long_factor", {2, 2, 2, 2, 2, 2, 2, 2}}};
  const RopeParameters rope = Parse(config).rope;
  EXPECT_EQ(rope.type, RopeType::kLongrope);
  EXPECT_EQ(rope.factor, 4.0);
  EXPECT_EQ(rope.long_factor.size(), 8u);
}

TEST(ParseModelSpec, YarnWithoutFactor_RatioOfLengths) {
  json config = Config("llama");
  config["max_position_embeddings"] = 1024;
  config["rope_scaling"] = {{"rope_type", "yarn"}, {"original_max_position_embeddings", 128}};
  EXPECT_EQ(Parse(config).rope.factor, 8.0);
}

TEST(ParseModelSpec, MistralSlidingWindow_AllLayersOrNone) {
  json config = Config("mistral");
  EXPECT_THAT(Parse(config).sliding_window, ElementsAre(4096, 4096, 4096, 4096));
  config["sliding_window"] = 7;
  EXPECT_THAT(Parse(config).sliding_window, ElementsAre(7, 7, 7, 7));
  config["sliding_window"] = nullptr;
  EXPECT_THAT(Parse(config).sliding_window, ElementsAre(0, 0, 0, 0));
}

TEST(ParseModelSpec, QwenSlidingWindow_FromMaxWindowLayersOrLayerTypes) {
  json config = Config("qwen2");
  config["sliding_window"] = 9;
  config["max_window_layers"] = 2;
  EXPECT_THAT(Parse(config).sliding_window, ElementsAre(0, 0, 0, 0));
  config["use_sliding_window"] = true;
  EXPECT_THAT(Parse(config).sliding_window, ElementsAre(0, 0, 9, 9));
  config["layer_types"] = {"sliding_attention", "full_attention", "full_attention",
                           "sliding_attention"};
  EXPECT_THAT(Parse(config).sliding_window, ElementsAre(9, 0, 0, 9));
}

TEST(ParseModelSpec, DType_BothFieldNames) {
  json config = Config("llama");
  config["torch_dtype"] = "float16";
  EXPECT_EQ(Parse(config).dtype, DType::kF16);
  config["dtype"] = "bfloat16";
  EXPECT_EQ(Parse(config).dtype, DType::kBF16);
}

TEST(ParseModelSpec, UnknownFamily_SaysWhatWorks) {
  const absl::Status status = ParseError(Config("gpt_neox"));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(status.message(), HasSubstr("gpt_neox"));
  EXPECT_THAT(status.message(), HasSubstr("llama, mistral, qwen2, qwen3"));
  EXPECT_THAT(status.message(), HasSubstr("FP8_DYNAMIC"));
}

TEST(ParseModelSpec, NotACausalModel_Refused) {
  json config = Config("llama");
  config["architectures"] = {"LlamaForSequenceClassification"};
  EXPECT_EQ(ParseError(config).code(), absl::StatusCode::kUnimplemented);
}

struct Broken {
  const char* field;
  json value;
  const char* said;  // Part of the message.
};

class BrokenField : public testing::TestWithParam<Broken> {};

TEST_P(BrokenField, InvalidArgumentNamingIt) {
  json config = Config("qwen2");
  config["use_sliding_window"] = true;
  config[GetParam().field] = GetParam().value;
  const absl::Status status = ParseError(config);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(status.message(), HasSubstr(GetParam().field));
  EXPECT_THAT(status.message(), HasSubstr(GetParam().said));
}

INSTANTIATE_TEST_SUITE_P(
    Fields, BrokenField,
    testing::Values(
        Broken{"vocab_size", nullptr, "missing"}, Broken{"vocab_size", -1, "-1"},
        Broken{"vocab_size", "many", "whole number"}, Broken{"hidden_size", 0, "0"},
        Broken{"hidden_size", 63, "multiple"}, Broken{"hidden_size", 1e30, "whole number"},
        Broken{"num_hidden_layers", 1000000000, "from 1 to"},
        Broken{"num_hidden_layers", 18446744073709551615u, "from 1 to"},
        Broken{"num_attention_heads", 3, "num_attention_heads"},
        Broken{"num_key_value_heads", 3, "divisor"}, Broken{"num_key_value_heads", 0, "from 1"},
        Broken{"head_dim", 15, "even"}, Broken{"head_dim", json::array(), "whole number"},
        Broken{"rms_norm_eps", 0.0, "> 0"}, Broken{"rms_norm_eps", "1e-6", "number"},
        Broken{"tie_word_embeddings", "yes", "true or false"},
        Broken{"layer_types", json::array({"full_attention"}), "num_hidden_layers"},
        Broken{"layer_types", json::array({"a", "b", "c", "d"}), "sliding_attention"},
        Broken{"layer_types", 4, "list"}, Broken{"sliding_window", -4, "-4"},
        Broken{"rope_theta", -1.0, "-1"}, Broken{"rope_scaling", "linear", "object"},
        Broken{"rope_scaling", json{{"type", "linear"}}, "factor"},
        Broken{"rope_scaling", json{{"type", "llama3"}, {"factor", 8}}, "low_freq_factor"},
        Broken{"rope_scaling", json{{"type", "longrope"}, {"short_factor", {1, 2}}},
               "short_factor"},
        Broken{"rope_scaling", json{{"type", "yarn"}, {"factor", 0}}, "factor"},
        Broken{"rope_scaling", json{{"full_attention", json::object()}}, "full_attention"},
        Broken{"max_position_embeddings", 0, "0"}, Broken{"dtype", "float4", "float4"},
        Broken{"model_type", 7, "text"}, Broken{"model_type", nullptr, "missing"}));

TEST(ParseModelSpec, SlidingLayersWithoutWindow_Contradiction) {
  json config = Config("qwen3");
  config["layer_types"] = {"sliding_attention", "full_attention", "full_attention",
                           "full_attention"};
  EXPECT_THAT(ParseError(config).message(), HasSubstr("without a sliding_window"));
}

TEST(ParseModelSpec, NotAnObject_InvalidArgument) {
  for (const json& config : {json(), json(3), json::array(), json("llama")}) {
    EXPECT_EQ(ParseError(config).code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(ParseModelSpec, UnknownActivationOrRope_Unimplemented) {
  json config = Config("llama");
  config["hidden_act"] = "xielu";
  EXPECT_EQ(ParseError(config).code(), absl::StatusCode::kUnimplemented);
  config = Config("llama");
  config["rope_scaling"] = {{"type", "mrope"}};
  EXPECT_EQ(ParseError(config).code(), absl::StatusCode::kUnimplemented);
  config = Config("llama");
  config["partial_rotary_factor"] = 0.5;
  EXPECT_EQ(ParseError(config).code(), absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace llmc
