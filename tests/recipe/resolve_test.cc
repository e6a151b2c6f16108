#include "recipe/resolve.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tiny_llama.h"

namespace llmc {
namespace {

using testing::HasSubstr;

Recipe Rtn(const std::string& fields) {
  absl::StatusOr<Recipe> recipe = Recipe::Parse(
      absl::StrCat("a_stage: {q_modifiers: {QuantizationModifier: {", fields, "}}}"), "r.yaml");
  EXPECT_TRUE(recipe.ok()) << recipe.status();
  return *recipe;
}

std::string ErrorOf(const Recipe& recipe, const std::vector<ModuleRef>& modules = TinyLlama(),
                    const ResolveOptions& options = {}) {
  const absl::StatusOr<Resolution> resolution = ResolveTargets(recipe, modules, options);
  EXPECT_EQ(resolution.status().code(), absl::StatusCode::kInvalidArgument) << resolution.status();
  return std::string(resolution.status().message());
}

Resolution Resolved(const Recipe& recipe, const std::vector<ModuleRef>& modules = TinyLlama(),
                    const ResolveOptions& options = {}) {
  absl::StatusOr<Resolution> resolution = ResolveTargets(recipe, modules, options);
  EXPECT_TRUE(resolution.ok()) << resolution.status();
  return resolution.ok() ? *resolution : Resolution();
}

const ModuleDecision& DecisionOf(const Resolution& resolution,
                                 const std::vector<ModuleRef>& modules, absl::string_view name) {
  for (size_t i = 0; i < modules.size(); ++i) {
    if (modules[i].name == name) return resolution.modules[i];
  }
  ADD_FAILURE() << "no module " << name;
  return resolution.modules[0];
}

TEST(ResolveTargets, LinearTarget_ReachesLinearsOnly) {
  const std::vector<ModuleRef> modules = TinyLlama();
  const Resolution resolution = Resolved(Rtn("scheme: FP8_DYNAMIC, ignore: [lm_head]"));
  for (size_t i = 0; i < modules.size(); ++i) {
    const bool expected = modules[i].class_name == "Linear" && modules[i].name != "lm_head";
    EXPECT_EQ(resolution.modules[i].scheme.has_value(), expected) << modules[i].name;
  }
  const ModuleDecision& head = DecisionOf(resolution, modules, "lm_head");
  EXPECT_EQ(head.reason, NoScheme::kIgnored);
  EXPECT_EQ(head.decided_by, "lm_head");
  EXPECT_TRUE(resolution.warnings.empty());
}

TEST(ResolveTargets, SeveralGroups_NameBeatsFirstPatternBeatsClass) {
  const std::vector<ModuleRef> modules = TinyLlama();
  const Resolution resolution =
      Resolved(Rtn("ignore: [lm_head], scheme: {W4A16: Linear, W8A8: ['re:.*mlp.*'], "
                   "FP8_DYNAMIC: ['re:.*down_proj'], W3A16: [model.layers.0.mlp.up_proj, "
                   "model.layers.0.mlp.gate_proj]}"));
  const auto target = [&](const char* name) {
    return DecisionOf(resolution, modules, absl::StrCat("model.layers.0.", name)).decided_by;
  };
  EXPECT_EQ(target("self_attn.q_proj"), "Linear");
  EXPECT_EQ(target("mlp.down_proj"), "re:.*down_proj");
  EXPECT_EQ(target("mlp.up_proj"), "model.layers.0.mlp.up_proj");
  EXPECT_EQ(DecisionOf(resolution, modules, "model.layers.0.mlp").reason,
            NoScheme::kNotQuantizable);
}

TEST(ResolveTargets, TargetsThatMatchNothing_AreErrorsWithAHint) {
  EXPECT_THAT(ErrorOf(Rtn("scheme: W8A8, targets: [mlp.down_proj]")),
              HasSubstr("'mlp.down_proj'; names match whole, write 're:.*mlp.down_proj$'"));
  EXPECT_THAT(ErrorOf(Rtn("scheme: W8A8, targets: ['re:self_attn']")),
              HasSubstr("patterns start at the beginning of the name, write 're:.*self_attn'"));
  EXPECT_THAT(ErrorOf(Rtn("scheme: W8A8, targets: ['re:.*dwon_proj$']")),
              HasSubstr("near: model.layers.0.mlp.down_proj"));
  EXPECT_THAT(ErrorOf(Rtn("scheme: W8A8, targets: [Liner]")), HasSubstr("(Linear)"));
  EXPECT_THAT(ErrorOf(Rtn("scheme: W8A8, ignore: ['re:.*mlp.gate$', lm_head]")),
              HasSubstr("ignore entries that match no module: 're:.*mlp.gate$'"));
}

TEST(ResolveTargets, UnmatchedIgnore_MayBeAllowed) {
  const Recipe recipe = Rtn("scheme: W8A8, ignore: ['re:.*mlp.gate$', lm_head]");
  EXPECT_EQ(Resolved(recipe, TinyLlama(), {.allow_unmatched_ignore = true}).warnings.size(), 1u);
}

TEST(ResolveTargets, TiedModelWithoutHead_IsAWarning) {
  std::vector<ModuleRef> modules = TinyLlama();
  modules.pop_back();
  const Resolution resolution = Resolved(Rtn("scheme: W8A8, ignore: [lm_head]"), modules);
  ASSERT_EQ(resolution.warnings.size(), 1u);
  EXPECT_THAT(resolution.warnings[0], HasSubstr("lm_head"));
}

TEST(ResolveTargets, GroupSizes_OneErrorListsAllOffenders) {
  std::vector<ModuleRef> modules = TinyLlama();
  modules[11].weight_shape = {128, 100};  // Does not divide.
  modules[13].weight_shape = {128, 64};   // Too small.
  const std::string error = ErrorOf(Rtn("scheme: W4A16, ignore: [lm_head]"), modules);
  EXPECT_THAT(error, HasSubstr("in 2 modules"));
  EXPECT_THAT(error, HasSubstr("gate_proj (in_features 100, group_size 128)"));
  EXPECT_THAT(error, HasSubstr("down_proj (in_features 64, group_size 128)"));
  EXPECT_THAT(ErrorOf(Rtn("scheme: W4A16, bypass_divisibility_checks: true"), modules),
              HasSubstr("in 2 modules"));
  EXPECT_THAT(Resolved(Rtn("scheme: FP8_BLOCK"), modules).warnings[0],
              HasSubstr("input groups do not divide"));
}

TEST(ResolveTargets, SplitFusedSet_WarnsAndIsAnErrorForNvfp4) {
  const Resolution resolution =
      Resolved(Rtn("ignore: [lm_head], scheme: {FP8_DYNAMIC: ['re:.*v_proj$'], W8A8: [Linear]}"));
  ASSERT_EQ(resolution.warnings.size(), 1u);
  EXPECT_THAT(resolution.warnings[0], HasSubstr("self_attn.q_proj/k_proj/v_proj"));
  EXPECT_THAT(ErrorOf(Rtn("ignore: [lm_head, 're:.*up_proj$'], scheme: NVFP4")),
              HasSubstr("one NVFP4 global scale, expected one scheme for all of: "
                        "model.layers.0.mlp.gate_proj/up_proj"));
}

TEST(ResolveTargets, TwoModifiersOnOneModule_AreAnError) {
  const Recipe recipe = Recipe::Concatenate(
      {Rtn("scheme: W8A8, ignore: [lm_head]"), Rtn("scheme: FP8, targets: ['re:.*mlp.*']")});
  EXPECT_THAT(ErrorOf(recipe), HasSubstr("3 modules are quantised by two modifiers "
                                         "(QuantizationModifier and QuantizationModifier)"));
}

TEST(ResolveTargets, DisjointModifiers_EachKeepTheirModules) {
  const std::vector<ModuleRef> modules = TinyLlama();
  const Resolution resolution =
      Resolved(Recipe::Concatenate({Rtn("scheme: W8A8, ignore: [lm_head, 're:.*mlp.*']"),
                                    Rtn("scheme: FP8, targets: ['re:.*mlp.*']")}));
  EXPECT_EQ(DecisionOf(resolution, modules, "model.layers.0.mlp.up_proj").modifier, 1);
  EXPECT_EQ(DecisionOf(resolution, modules, "model.layers.0.self_attn.o_proj").modifier, 0);
}

TEST(ResolveTargets, NothingLeft_IsAnError) {
  EXPECT_THAT(ErrorOf(Rtn("scheme: W8A8, ignore: [Linear]")), HasSubstr("quantises no module"));
  EXPECT_THAT(ErrorOf(Rtn("scheme: W8A8, targets: ['re:.*norm']")),
              HasSubstr("quantises no module"));
}

TEST(ResolveTargets, KvCacheAlone_LeavesWeightsDense) {
  const Resolution resolution = Resolved(Rtn("kv_cache_scheme: {num_bits: 8, type: float}"));
  EXPECT_TRUE(resolution.kv_cache_scheme.has_value());
  for (const ModuleDecision& decision : resolution.modules) EXPECT_FALSE(decision.scheme);
}

TEST(ResolveTargets, AttentionGroup_MatchesTheAttentionModuleOnly) {
  const std::vector<ModuleRef> modules = TinyLlama();
  for (const char* target : {"LlamaAttention", "re:.*self_attn$"}) {
    const Resolution resolution =
        Resolved(Rtn(absl::StrCat("config_groups: {a: {targets: ['", target,
                                  "'], input_activations: {num_bits: 8, type: float}}}")));
    EXPECT_TRUE(DecisionOf(resolution, modules, "model.layers.0.self_attn").scheme) << target;
    EXPECT_FALSE(DecisionOf(resolution, modules, "model.layers.0.self_attn.q_proj").scheme);
  }
}

TEST(ResolveTargets, Routers_AreNeverQuantised) {
  std::vector<ModuleRef> modules = TinyLlama();
  modules.push_back({"model.layers.0.mlp.gate", "Qwen3MoeTopKRouter", {8, 128}});
  const Resolution resolution =
      Resolved(Rtn("scheme: W8A8, targets: ['re:.*layers.*'], ignore: [lm_head]"), modules);
  EXPECT_EQ(resolution.modules.back().reason, NoScheme::kRouter);
  EXPECT_FALSE(resolution.modules.back().scheme);
}

TEST(ResolveTargets, ModelFree_LinearIsEveryMatrixButEmbeddingsNormsAndRouters) {
  const std::vector<ModuleRef> modules = {{"model.embed_tokens", "", {32, 128}},
                                          {"model.layers.0.input_layernorm", "", {128}},
                                          {"model.layers.0.mlp.gate", "", {8, 128}},
                                          {"model.layers.0.mlp.experts.0.w1", "", {128, 128}},
                                          {"model.layers.0.mlp.experts.0.w3", "", {128, 128}},
                                          {"model.layers.0.mlp.shared_expert_gate", "", {1, 128}},
                                          {"lm_head", "", {32, 128}}};
  const Resolution resolution = Resolved(Rtn("scheme: FP8_DYNAMIC"), modules, {.model_free = true});
  std::vector<std::string> quantized;
  for (size_t i = 0; i < modules.size(); ++i) {
    if (resolution.modules[i].scheme) quantized.push_back(modules[i].name);
  }
  EXPECT_EQ(quantized, (std::vector<std::string>{"model.layers.0.mlp.experts.0.w1",
                                                 "model.layers.0.mlp.experts.0.w3", "lm_head"}));
  EXPECT_THAT(ErrorOf(Rtn("scheme: FP8_DYNAMIC"), modules), HasSubstr("'Linear'"));
}

TEST(GuessClassName, NamesOfManyFamilies) {
  const Shape matrix = {8, 16};
  for (const char* name : {"model.embed_tokens", "transformer.wte", "transformer.wpe",
                           "transformer.word_embeddings", "vision.embeddings.position_embedding"}) {
    EXPECT_EQ(GuessClassName(name, matrix), "Embedding") << name;
  }
  for (const char* name : {"l.0.mlp.gate", "l.0.block_sparse_moe.gate", "l.0.mlp.router",
                           "l.0.router.layer", "l.0.mlp.gate.wg", "l.0.mlp.shared_expert_gate"}) {
    EXPECT_EQ(GuessClassName(name, matrix), "Router") << name;
    EXPECT_TRUE(IsRouterClass(GuessClassName(name, matrix)));
  }
  for (const char* name : {"l.0.mlp.gate_proj", "lm_head", "embed_out", "l.0.w1", "visual.proj"}) {
    EXPECT_EQ(GuessClassName(name, matrix), "Linear") << name;
  }
  EXPECT_EQ(GuessClassName("l.0.conv1d", {8, 1, 4}), "");
  EXPECT_EQ(GuessClassName("l.0.q_norm", matrix), "Norm");
}

TEST(FusedSets, CompleteSiblings_AreFound) {
  const std::vector<std::vector<int>> sets = FusedSets(TinyLlama());
  EXPECT_EQ(sets, (std::vector<std::vector<int>>{{6, 7, 8}, {11, 12}}));
  EXPECT_TRUE(FusedSets({{"a.w1", "Linear", {}}, {"b.w3", "Linear", {}}}).empty());
}

}  // namespace
}  // namespace llmc
