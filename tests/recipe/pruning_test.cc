// Recipes of the pruning modifiers. The YAML is what llmcompressor 0.14.0.1 writes for
// them (Recipe.from_modifiers(...).yaml()).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <variant>

#include "absl/strings/str_cat.h"
#include "recipe/recipe.h"

namespace llmc {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kSparseGpt[] = R"(default_stage:
  default_modifiers:
    SparseGPTModifier:
      requires_calibration_data: true
      sparsity: [0.5, 0.4]
      mask_structure: '2:4'
      sequential_update: false
      targets: [Linear]
      ignore: ['re:.*lm_head']
      block_size: 64
      dampening_frac: 0.02
      preserve_sparsity_mask: true
      offload_hessians: false
)";

constexpr char kWanda[] = R"(default_stage:
  default_modifiers:
    WandaPruningModifier:
      requires_calibration_data: true
      sparsity: 0.5
      sparsity_profile: owl
      mask_structure: 0:0
      owl_m: 5
      owl_lmbda: 0.08
      sequential_update: false
      targets: [Linear]
      ignore: []
)";

constexpr char kMagnitude[] = R"(default_stage:
  default_modifiers:
    MagnitudePruningModifier:
      requires_calibration_data: false
      targets: [Linear]
      init_sparsity: 0.0
      final_sparsity: 0.5
      update_scheduler: cubic
      scheduler_args: {}
      mask_structure: unstructured
      leave_enabled: false
      apply_globally: false
)";

constexpr char kConstant[] = R"(default_stage:
  default_modifiers:
    ConstantPruningModifier:
      requires_calibration_data: false
      targets: [Linear]
)";

std::string InGroup(const std::string& modifier) {
  return absl::StrCat("a_stage:\n  a_modifiers:\n    ", modifier, "\n");
}

std::string ErrorOf(const std::string& modifier) {
  const auto recipe = Recipe::Parse(InGroup(modifier), "r.yaml");
  EXPECT_TRUE(absl::IsInvalidArgument(recipe.status())) << modifier;
  return std::string(recipe.status().message());
}

TEST(PruningRecipe, ReferenceText_ReadsAndIsWrittenBack) {
  for (const char* text : {kWanda, kMagnitude, kConstant}) {
    const auto recipe = Recipe::Parse(text, "r.yaml");
    ASSERT_TRUE(recipe.ok()) << recipe.status();
    EXPECT_EQ(ResolvedRecipeYaml(*recipe), text);
  }
}

TEST(PruningRecipe, SparseGptFields_AreRead) {
  std::string text = kSparseGpt;
  text.replace(text.find("'2:4'"), 5, "0:0");
  const auto recipe = Recipe::Parse(text, "r.yaml");
  ASSERT_TRUE(recipe.ok()) << recipe.status();
  EXPECT_EQ(ResolvedRecipeYaml(*recipe), text);
  const auto& sparse_gpt = std::get<SparseGptModifier>(recipe->modifiers()[0]);
  EXPECT_THAT(sparse_gpt.sparsity, ElementsAre(0.5, 0.4));
  EXPECT_TRUE(sparse_gpt.sparsity_is_list);
  EXPECT_FALSE(sparse_gpt.mask_structure.is_grouped());
  EXPECT_EQ(sparse_gpt.block_size, 64);
  EXPECT_EQ(sparse_gpt.dampening_frac, 0.02);
  EXPECT_TRUE(sparse_gpt.preserve_sparsity_mask);
  EXPECT_NE(CalibrationReason(recipe->modifiers()[0]), "");
}

TEST(PruningRecipe, MaskStructure_IsPrunedOfEvery) {
  const auto recipe = Recipe::Parse(
      InGroup("WandaPruningModifier: {sparsity: 0.75, mask_structure: '3:4'}"), "r.yaml");
  ASSERT_TRUE(recipe.ok()) << recipe.status();
  const auto& wanda = std::get<WandaPruningModifier>(recipe->modifiers()[0]);
  EXPECT_EQ(wanda.mask_structure, (MaskStructure{3, 4}));
}

TEST(PruningRecipe, WhatNeedsNoData_HasNoCalibrationReason) {
  for (const char* text : {kMagnitude, kConstant}) {
    EXPECT_EQ(CalibrationReason(Recipe::Parse(text, "r.yaml")->modifiers()[0]), "");
  }
}

TEST(PruningRecipe, SparseFormat_StandsAtTheTopOrInAModifierThatPrunes) {
  const std::string field = "sparse_format: sparse-bitmask";
  const std::string inside = InGroup("WandaPruningModifier: {sparsity: 0.5, " + field + "}");
  const std::string above = field + "\n" + InGroup("WandaPruningModifier: {sparsity: 0.5}");
  for (const std::string& text : {inside, above}) {
    const auto recipe = Recipe::Parse(text, "r.yaml");
    ASSERT_TRUE(recipe.ok()) << recipe.status();
    EXPECT_EQ(recipe->sparse_format(), SparseFormat::kSparseBitmask);
    const std::string written = ResolvedRecipeYaml(*recipe);
    EXPECT_EQ(written.find(field + "\ndefault_stage:"), 0u) << written;
    EXPECT_EQ(Recipe::Parse(written, "again")->sparse_format(), SparseFormat::kSparseBitmask);
  }
  EXPECT_FALSE(Recipe::Parse(kWanda, "r.yaml")->sparse_format().has_value());
}

TEST(PruningRecipe, SparseFormat_Wrong_NamesThePlace) {
  EXPECT_THAT(ErrorOf("SparseGPTModifier: {sparsity: 0.5, sparse_format: sparse-42}"),
              AllOf(HasSubstr("r.yaml:3"), HasSubstr("SparseGPTModifier.sparse_format"),
                    HasSubstr("'sparse-42'"), HasSubstr("sparse-24-bitmask")));
  EXPECT_THAT(ErrorOf("GPTQModifier: {scheme: W4A16, sparse_format: dense}"),
              HasSubstr("a modifier that prunes"));
  EXPECT_THAT(
      ErrorOf("WandaPruningModifier: {sparsity: 0.5, sparse_format: dense}\n    "
              "SparseGPTModifier: {sparsity: 0.5, sparse_format: sparse-bitmask}"),
      AllOf(HasSubstr("r.yaml:4"), HasSubstr("contradicts 'dense'"), HasSubstr("r.yaml:3")));
}

TEST(PruningRecipe, OffloadedHessians_MeanTheSame) {
  const auto with = Recipe::Parse(
      InGroup("SparseGPTModifier: {sparsity: 0.5, offload_hessians: true}"), "r.yaml");
  const auto without = Recipe::Parse(InGroup("SparseGPTModifier: {sparsity: 0.5}"), "r.yaml");
  EXPECT_EQ(CanonicalText(*with), CanonicalText(*without));
}

TEST(PruningRecipe, WrongFields_AreErrorsThatSayWhere) {
  const std::string place = "r.yaml:3: a_stage.a_modifiers.SparseGPTModifier";
  EXPECT_THAT(ErrorOf("SparseGPTModifier: {sparsity: 1}"),
              HasSubstr(place + ".sparsity: '1', expected at least 0 and less than 1"));
  EXPECT_THAT(ErrorOf("SparseGPTModifier: {sparsity: [0.5, 2]}"), HasSubstr(".sparsity.1: '2'"));
  EXPECT_THAT(ErrorOf("SparseGPTModifier: {sparsity: []}"), HasSubstr("sparsity: empty"));
  EXPECT_THAT(ErrorOf("SparseGPTModifier: {}"), HasSubstr("sparsity: missing"));
  for (const char* mask : {"'4:4'", "'0:4'", "'-1:4'", "'2:4:8'", "'2'", "'32:128'", "x"}) {
    EXPECT_THAT(
        ErrorOf(absl::StrCat("SparseGPTModifier: {sparsity: 0.5, mask_structure: ", mask, "}")),
        HasSubstr("N pruned of every M"));
  }
  EXPECT_THAT(ErrorOf("SparseGPTModifier: {sparsity: 0.5, owl_m: 5}"),
              HasSubstr("sparsity_profile: owl and owl_lmbda"));
  EXPECT_THAT(ErrorOf("SparseGPTModifier: {sparsity: 0.5, sparsity_profile: x}"),
              HasSubstr("expected owl"));
  EXPECT_THAT(ErrorOf("SparseGPTModifier: {sparsity: 0.5, sparsity_profile: owl, owl_m: 5, "
                      "owl_lmbda: 0.1, mask_structure: '2:4'}"),
              HasSubstr("expected no N:M"));
  EXPECT_THAT(ErrorOf("SparseGPTModifier: {sparsity: 0.5, blocksize: 3}"),
              HasSubstr("did you mean 'block_size'"));
  EXPECT_THAT(ErrorOf("SparseGPTModifier: {sparsity: 0.5, dampening_frac: 0}"),
              HasSubstr("more than 0"));
}

}  // namespace
}  // namespace llmc
