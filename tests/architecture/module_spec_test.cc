#include "architecture/module_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "llmc/file.h"
#include "nlohmann/json.hpp"

namespace llmc {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

// Config, modules and tensors of models that transformers built (make_modules.py).
const json& Models() {
  static const json* const models = new json(json::parse(
      *ReadFile(std::string(LLMC_SOURCE_DIR) + "/tests/architecture/testdata/modules.json")));
  return *models;
}

ModelSpec SpecOf(const std::string& model) {
  absl::StatusOr<ModelSpec> spec = ParseModelSpec(Models().at(model).at("config"));
  EXPECT_TRUE(spec.ok()) << spec.status();
  return *spec;
}

std::vector<TensorSpec> TensorsOf(const std::string& model) {
  std::vector<TensorSpec> tensors;
  for (const auto& [name, shape] : Models().at(model).at("tensors").items()) {
    tensors.push_back({name, DType::kBF16, shape.get<Shape>()});
  }
  return tensors;
}

class Family : public testing::TestWithParam<const char*> {};

TEST_P(Family, Modules_NamesClassesAndOrderOfTransformers) {
  json modules = json::array();
  for (const ModuleSpec& module : Modules(SpecOf(GetParam()))) {
    modules.push_back({module.name, module.class_name});
  }
  EXPECT_EQ(modules, Models().at(GetParam()).at("modules"));
}

TEST_P(Family, RequiredTensors_TensorsOfTransformers) {
  json tensors = json::object();
  for (const RequiredTensor& tensor : RequiredTensors(SpecOf(GetParam()))) {
    tensors[tensor.name] = tensor.shape;
  }
  EXPECT_EQ(tensors, Models().at(GetParam()).at("tensors"));
  EXPECT_TRUE(CheckTensors(SpecOf(GetParam()), TensorsOf(GetParam())).ok());
}

TEST_P(Family, ModulesFromTensors_AgreeWithTheFamily) {
  std::map<std::string, ModuleSpec> known;
  for (const ModuleSpec& module : Modules(SpecOf(GetParam()))) known[module.name] = module;
  for (const ModuleSpec& guessed : ModulesFromTensors(TensorsOf(GetParam()))) {
    const ModuleSpec& module = known.at(guessed.name);
    EXPECT_EQ(guessed.class_name, module.class_name) << guessed.name;
    EXPECT_EQ(guessed.weight_shape, module.weight_shape) << guessed.name;
    EXPECT_EQ(guessed.has_bias, module.has_bias) << guessed.name;
    EXPECT_EQ(guessed.layer, module.layer) << guessed.name;
    EXPECT_EQ(guessed.input_group.empty(), module.input_group.empty()) << guessed.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, Family,
                         testing::Values("llama", "llama_biases_head_dim", "llama_tied_relu",
                                         "mistral", "qwen2", "qwen3", "qwen3_bias"),
                         [](const auto& info) { return std::string(info.param); });

TEST(Modules, InputGroups_LinearsWithTheSameInput) {
  std::map<std::string, std::vector<std::string>> groups;
  for (const ModuleSpec& module : LayerModules(SpecOf("llama"), 1)) {
    if (module.is_linear()) groups[module.input_group].push_back(module.name.substr(15));
  }
  std::vector<std::vector<std::string>> members;
  for (const auto& [name, group] : groups) members.push_back(group);
  EXPECT_THAT(members,
              ElementsAre(ElementsAre("mlp.down_proj"), ElementsAre("mlp.gate_proj", "mlp.up_proj"),
                          ElementsAre("self_attn.o_proj"),
                          ElementsAre("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")));
}

TEST(SmoothMappings, Llama_FourPerLayer) {
  const std::vector<SmoothMapping> mappings = SmoothMappings(SpecOf("llama"), 0);
  ASSERT_EQ(mappings.size(), 4u);
  EXPECT_EQ(mappings[0].source, "model.layers.0.input_layernorm");
  EXPECT_EQ(mappings[0].consumers.size(), 3u);
  EXPECT_EQ(mappings[1].kind, SmoothMapping::Kind::kValue);
  EXPECT_THAT(mappings[1].consumers, ElementsAre("model.layers.0.self_attn.o_proj"));
  EXPECT_EQ(mappings[2].source, "model.layers.0.post_attention_layernorm");
  EXPECT_EQ(mappings[3].kind, SmoothMapping::Kind::kUp);
  EXPECT_THAT(mappings[3].consumers, ElementsAre("model.layers.0.mlp.down_proj"));
}

TEST(CheckTensors, MissingAndMisshapen_Named) {
  std::vector<TensorSpec> tensors = TensorsOf("llama");
  for (TensorSpec& tensor : tensors) {
    if (tensor.name == "model.layers.0.mlp.up_proj.weight") tensor.shape = {3, 4};
    if (tensor.name == "model.norm.weight") tensor.name = "norm.weight";
  }
  const absl::Status status = CheckTensors(SpecOf("llama"), tensors);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("2 tensors"));
  EXPECT_THAT(status.message(), HasSubstr("up_proj.weight has shape [3, 4], expected [48, 32]"));
  EXPECT_THAT(status.message(), HasSubstr("model.norm.weight is missing"));
}

TEST(CheckTensors, NoTensorsOfALargeModel_ShortMessage) {
  ModelSpec spec = SpecOf("llama");
  spec.num_hidden_layers = 200;
  EXPECT_LT(CheckTensors(spec, {}).message().size(), 600u);
}

std::vector<std::string> Names(const std::vector<ModuleSpec>& modules) {
  std::vector<std::string> names;
  for (const ModuleSpec& module : modules) names.push_back(module.name);
  return names;
}

TEST(ModulesFromTensors, LayerNumbers_SortedByValue) {
  std::vector<TensorSpec> tensors;
  for (const char* name : {"h.10.mlp.fc.weight", "h.9.mlp.fc.weight", "wte.weight", "h.9.ln.weight",
                           "h.9.mlp.fc.bias", "h.9.mlp.fc.weight_scale"}) {
    tensors.push_back({name, DType::kF32, {4, 4}});
  }
  tensors[3].shape = {4};
  tensors[4].shape = {4};
  const std::vector<ModuleSpec> modules = ModulesFromTensors(tensors);
  EXPECT_THAT(Names(modules), ElementsAre("h.9.mlp.fc", "h.10.mlp.fc", "wte"));
  EXPECT_TRUE(modules[0].has_bias);
  EXPECT_EQ(modules[1].layer, 10);
  EXPECT_EQ(modules[2].class_name, "Embedding");
}

TEST(ModulesFromTensors, ExpertsAndLatents_ShareInputsWithinOneParent) {
  std::vector<TensorSpec> tensors;
  for (const char* name :
       {"l.0.experts.0.w1.weight", "l.0.experts.0.w3.weight", "l.0.experts.1.w1.weight",
        "l.0.attn.q_a_proj.weight", "l.0.attn.kv_a_proj_with_mqa.weight"}) {
    tensors.push_back({name, DType::kBF16, {8, 4}});
  }
  std::map<std::string, std::string> group;
  for (const ModuleSpec& module : ModulesFromTensors(tensors)) {
    group[module.name] = module.input_group;
  }
  EXPECT_EQ(group["l.0.experts.0.w1"], group["l.0.experts.0.w3"]);
  EXPECT_NE(group["l.0.experts.0.w1"], group["l.0.experts.1.w1"]);
  EXPECT_EQ(group["l.0.attn.q_a_proj"], group["l.0.attn.kv_a_proj_with_mqa"]);
}

TEST(ModulesFromTensors, HugeNumbersInNames_NoLayer) {
  const std::vector<TensorSpec> tensors = {
      {"x.99999999999999999999999999.fc.weight", DType::kF32, {2, 2}}};
  EXPECT_EQ(ModulesFromTensors(tensors)[0].layer, -1);
}

}  // namespace
}  // namespace llmc
