#include "recipe/recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "formats/presets.h"

namespace llmc {
namespace {

using testing::HasSubstr;

std::string InGroup(const std::string& modifier) {
  return absl::StrCat("a_stage:\n  q_modifiers:\n    ", modifier);
}

// A recipe whose GPTQModifier has these fields in flow style on line 3.
std::string Gptq(const std::string& fields) {
  return InGroup(absl::StrCat("GPTQModifier: {", fields, "}"));
}

Recipe Parsed(const std::string& text, const std::map<std::string, std::string>& args = {}) {
  absl::StatusOr<Recipe> recipe = Recipe::Parse(text, "r.yaml", args);
  EXPECT_TRUE(recipe.ok()) << recipe.status() << "\n" << text;
  return recipe.ok() ? *recipe : Recipe();
}

GptqModifier ParsedGptq(const std::string& fields) {
  const Recipe recipe = Parsed(Gptq(fields));
  return recipe.modifiers().empty() ? GptqModifier()
                                    : std::get<GptqModifier>(recipe.modifiers()[0]);
}

std::string ErrorOf(const std::string& text) {
  const absl::StatusOr<Recipe> recipe = Recipe::Parse(text, "r.yaml");
  EXPECT_EQ(recipe.status().code(), absl::StatusCode::kInvalidArgument) << recipe.status() << "\n"
                                                                        << text;
  return std::string(recipe.status().message());
}

TEST(Recipe, GptqWithPreset_HasTheReferencesDefaults) {
  const GptqModifier gptq = ParsedGptq("scheme: W4A16");
  EXPECT_EQ(gptq.block_size, 128);
  EXPECT_EQ(gptq.dampening_frac, 0.01);
  EXPECT_EQ(gptq.on_singular, OnSingular::kRoundToNearest);
  ASSERT_EQ(gptq.groups.size(), 1u);
  EXPECT_EQ(gptq.groups[0].targets, std::vector<std::string>{"Linear"});
  EXPECT_EQ(gptq.groups[0].scheme.weights->actorder, ActOrder::kStatic);
  EXPECT_EQ(gptq.groups[0].scheme.weights->observer, "memoryless_minmax");
}

TEST(Recipe, EveryGptqField_IsRead) {
  const GptqModifier gptq = ParsedGptq(
      "scheme: w8a8, targets: 're:.*proj', ignore: [lm_head], block_size: 64, dampening_frac: 1e-3,"
      " actorder: weight, batched_quantization: 4, on_singular: fail, weight_observer: MSE, "
      "bypass_divisibility_checks: yes, index: 1, start: 0.0, end: -1, update: 1, "
      "requires_calibration_data: true, group: x, kv_cache_scheme: {num_bits: 8, type: float}");
  EXPECT_EQ(gptq.block_size, 64);
  EXPECT_EQ(gptq.dampening_frac, 1e-3);
  EXPECT_EQ(gptq.batched_quantization, 4);
  EXPECT_EQ(gptq.on_singular, OnSingular::kFail);
  EXPECT_EQ(gptq.ignore, std::vector<std::string>{"lm_head"});
  EXPECT_EQ(gptq.groups[0].scheme.weights->actorder, ActOrder::kWeight);
  EXPECT_EQ(gptq.groups[0].scheme.weights->observer, "mse");
  EXPECT_FALSE(gptq.groups[0].scheme.input_activations->observer);
  EXPECT_EQ(gptq.kv_cache_scheme->type, NumberType::kFloat);
  EXPECT_TRUE(gptq.bypass_divisibility_checks);
}

TEST(Recipe, StagesGroupsAndLists_RunInFileOrder) {
  const Recipe recipe = Parsed(R"(
b_stage_1:
  x_modifiers:
    QuantizationModifier: {scheme: FP8, targets: [a]}
a_stage:
  y_modifiers:
    - GPTQModifier: {scheme: W4A16, targets: [b]}
    - GPTQModifier: {scheme: W8A8, targets: [c]}
)");
  ASSERT_EQ(recipe.modifiers().size(), 3u);
  EXPECT_EQ(FieldsOf(recipe.modifiers()[0]).groups[0].targets[0], "a");
  EXPECT_EQ(FieldsOf(recipe.modifiers()[1]).groups[0].targets[0], "b");
  EXPECT_EQ(FieldsOf(recipe.modifiers()[2]).groups[0].targets[0], "c");
  const Recipe again = Parsed(ResolvedRecipeYaml(recipe));
  EXPECT_EQ(CanonicalText(again), CanonicalText(recipe));
}

TEST(Recipe, Json_IsRead) {
  const Recipe recipe = Parsed(
      "{\"a_stage\":{\"b_modifiers\":{\"GPTQModifier\":{\n\t\"scheme\":\"W4A16\","
      "\"ignore\":[\"re:.*\\\\.lm_head\\u002e\\/\"],\n\t\"block_size\":128}}}}");
  EXPECT_EQ(FieldsOf(recipe.modifiers()[0]).ignore[0], "re:.*\\.lm_head./");
}

TEST(Recipe, MarkdownFrontMatter_IsReadWithItsLines) {
  const std::string text =
      "---\na_stage:\n  q_modifiers:\n    GPTQModifier: {scheme: W4A16}\n---\n# T\nx: [\n";
  EXPECT_TRUE(Recipe::Parse(text, "card.md").ok());
  const auto bad = Recipe::Parse(
      "---\na_stage:\n  q_modifiers:\n    GPTQModifier: {schem: 1}\n---\n", "card.md");
  EXPECT_THAT(std::string(bad.status().message()), HasSubstr("card.md:4: "));
  EXPECT_THAT(std::string(Recipe::Parse("# only text\n", "card.md").status().message()),
              HasSubstr("no front matter"));
}

TEST(Recipe, MergeKeysAndAliases_AreExpanded) {
  const Recipe recipe = Parsed(R"(
a_stage:
  q_modifiers:
    GPTQModifier:
      config_groups:
        one: &one
          targets: [a]
          weights: &w {num_bits: 4, group_size: 64}
        two: {<<: *one, targets: [b], weights: {<<: *w, num_bits: 8}}
)");
  const auto& groups = FieldsOf(recipe.modifiers()[0]).groups;
  EXPECT_EQ(groups[1].scheme.weights->num_bits, 8);
  EXPECT_EQ(groups[1].scheme.weights->group_size, 64);
}

// Shapes that the reference reads as an empty recipe, saving the model unchanged.
TEST(Recipe, SilentNoOpShapes_AreErrorsThatNameTheExpectedPath) {
  EXPECT_THAT(ErrorOf("GPTQModifier: {scheme: W4A16}"),
              HasSubstr("r.yaml:1: GPTQModifier: a modifier outside a stage is never run, expected "
                        "default_stage.default_modifiers.GPTQModifier"));
  EXPECT_THAT(ErrorOf("a_stage:\n  GPTQModifier: {scheme: W4A16}"),
              HasSubstr("r.yaml:2: a_stage.GPTQModifier: a modifier directly in a stage is never "
                        "run, expected a_stage.default_modifiers.GPTQModifier"));
  EXPECT_THAT(ErrorOf("a_stage:\n  quant:\n    GPTQModifier: {scheme: W4A16}"),
              HasSubstr("expected a name that ends in _modifiers, such as quant_modifiers"));
  EXPECT_THAT(ErrorOf("quant:\n  q_modifiers:\n    GPTQModifier: {scheme: W4A16}"),
              HasSubstr("expected a name that ends in _stage, such as quant_stage"));
  EXPECT_THAT(ErrorOf("a_stage:\n  modifiers:\n    - GPTQModifier: {scheme: W4A16}"),
              HasSubstr("r.yaml:2: a_stage.modifiers: not a group, expected "
                        "a_stage.default_modifiers"));
  EXPECT_THAT(ErrorOf("q_modifiers:\n  GPTQModifier: {scheme: W4A16}"),
              HasSubstr("expected default_stage.q_modifiers"));
  EXPECT_THAT(ErrorOf(InGroup("QuantizationModifier: {targets: [Linear]}")),
              HasSubstr("quantises nothing, expected scheme, config_groups or kv_cache_scheme"));
  EXPECT_THAT(ErrorOf("a_stage: {}"), HasSubstr("a_stage: empty"));
  EXPECT_THAT(ErrorOf("a_stage: {b_modifiers: }"), HasSubstr("nothing, expected a mapping"));
  EXPECT_THAT(ErrorOf("args: {bits: 4}"), HasSubstr("no modifiers"));
}

TEST(Recipe, UnknownNames_NameTheNearestWithTheLine) {
  EXPECT_THAT(ErrorOf(Gptq("schem: W4A16")),
              HasSubstr("r.yaml:3: a_stage.q_modifiers.GPTQModifier.schem: unknown key, did you "
                        "mean 'scheme'?"));
  EXPECT_THAT(ErrorOf(InGroup("GPTQModifer: {scheme: W4A16}")),
              HasSubstr("unknown modifier, did you mean 'GPTQModifier'?"));
  EXPECT_THAT(ErrorOf(Gptq("scheme: W4A15")), HasSubstr("did you mean 'W4A16'?"));
  EXPECT_THAT(ErrorOf(Gptq("scheme: W4A16, weight_observer: minmaxx")),
              HasSubstr("did you mean 'minmax'?"));
  EXPECT_THAT(ErrorOf(Gptq("config_groups: {g: {target: [Linear]}}")),
              HasSubstr("did you mean 'targets'?"));
  EXPECT_THAT(ErrorOf(R"(
a_stage:
  q_modifiers:
    QuantizationModifier:
      config_groups:
        g:
          targets: [Linear]
          weights:
            num_bits: 4
            groupsize: 128
)"),
              HasSubstr("r.yaml:10: a_stage.q_modifiers.QuantizationModifier.config_groups.g."
                        "weights.groupsize: unknown key, did you mean 'group_size'?"));
  EXPECT_THAT(ErrorOf(InGroup("QuantizationModifier: {scheme: FP8, dampening_frac: 0.1}")),
              HasSubstr("a field of GPTQModifier"));
}

TEST(Recipe, KnownModifierThatLlmcLacks_IsUnimplemented) {
  for (const char* name :
       {"SpinQuantModifier", "QuIPModifier", "AutoRoundModifier", "REAPPruningModifier"}) {
    const auto recipe = Recipe::Parse(InGroup(absl::StrCat(name, ": {}")), "r.yaml");
    EXPECT_EQ(recipe.status().code(), absl::StatusCode::kUnimplemented) << name;
    EXPECT_THAT(std::string(recipe.status().message()),
                HasSubstr(absl::StrCat(name, ": known, but not in this version")));
  }
}

TEST(Recipe, RepeatedKeys_AreErrors) {
  EXPECT_THAT(ErrorOf("a_stage:\n  q_modifiers:\n    GPTQModifier: {scheme: W4A16}\n"
                      "    GPTQModifier: {scheme: W8A8}"),
              HasSubstr("r.yaml:4: key 'GPTQModifier' is written twice"));
}

TEST(Recipe, ValuesOutOfRange_AreErrors) {
  for (const char* fields : {"block_size: 0",
                             "block_size: -1",
                             "block_size: 1.5",
                             "block_size: many",
                             "dampening_frac: 0",
                             "dampening_frac: -0.1",
                             "dampening_frac: 2",
                             "dampening_frac: .nan",
                             "dampening_frac: null",
                             "batched_quantization: 0",
                             "batched_quantization: always",
                             "actorder: group",
                             "actorder: dynamic",
                             "actorder: true",
                             "actorder: 3",
                             "on_singular: ignore",
                             "targets: []",
                             "ignore: [[a]]",
                             "ignore: {a: b}",
                             "targets: ['re:(']",
                             "ignore: ['re:[']",
                             "observer: mse",
                             "observer: {weight: mse}",
                             "index: x",
                             "group: [a]",
                             "observer: {weights: mse}, weight_observer: mse",
                             "bypass_divisibility_checks: 3",
                             "config_groups: {g: {targets: [a], weights: {num_bits: 4}}}",
                             "kv_cache_scheme: {num_bits: 8, type: float, strategy: channel}",
                             "kv_cache_scheme: {num_bits: 8, type: float, dynamic: true}",
                             "kv_cache_scheme: FP8"}) {
    EXPECT_THAT(ErrorOf(Gptq(absl::StrCat("scheme: W4A16, ", fields))), HasSubstr("r.yaml:3: "))
        << fields;
  }
  for (const char* fields :
       {"config_groups: {}", "config_groups: []", "config_groups: {g: {targets: [a]}}",
        "config_groups: {g: {weights: {num_bits: 4}}}", "scheme: {}", "scheme: [W4A16]",
        "scheme: {W4A16: [a], W8A8: [a]}", "scheme: {weights: {num_bits: 4}}",
        "config_groups: {g: {targets: [a], weights: {num_bits: 4, group_size: 32}, format: dense}}",
        "config_groups: {g: {targets: [a], weights: {num_bits: 4}, format: mixed-precision}}",
        "config_groups: {g: {targets: [a], weights: {num_bits: 4}, "
        "input_activations: {strategy: channel}}}",
        "config_groups: {g: {targets: [a], weights: {num_bits: 9}}}",
        "config_groups: {g: {targets: [a], weights: {observer: best}}}"}) {
    EXPECT_THAT(ErrorOf(Gptq(fields)), HasSubstr("r.yaml:3: ")) << fields;
  }
}

TEST(Recipe, ActOrder_SchemeWinsOverDefaultAndContradictionIsAnError) {
  const std::string group =
      "config_groups: {g: {targets: [a], weights: {num_bits: 4, group_size: 32, actorder: "
      "weight}}}";
  EXPECT_EQ(ParsedGptq(group).groups[0].scheme.weights->actorder, ActOrder::kWeight);
  EXPECT_EQ(ParsedGptq(group + ", actorder: static").groups[0].scheme.weights->actorder,
            ActOrder::kStatic);  // The same order by another name.
  EXPECT_THAT(ErrorOf(Gptq(group + ", actorder: none")), HasSubstr("expected one of them only"));
  EXPECT_FALSE(ParsedGptq("scheme: W4A16, actorder: none").groups[0].scheme.weights->actorder);
  EXPECT_FALSE(ParsedGptq("scheme: W4A16, actorder: ~").groups[0].scheme.weights->actorder);
}

TEST(Recipe, Observers_OverridesWinThenSchemeThenDefault) {
  const auto fields = [](const std::string& extra) {
    const Recipe recipe = Parsed(InGroup(absl::StrCat(
        "QuantizationModifier: {config_groups: {g: {targets: [a], weights: {observer: mse}, "
        "input_activations: {}}}",
        extra, "}")));
    return FieldsOf(recipe.modifiers()[0]).groups[0].scheme;
  };
  EXPECT_EQ(fields("").weights->observer, "mse");
  EXPECT_EQ(fields("").input_activations->observer, "static_minmax");
  const Scheme overridden = fields(", observer: {weights: memoryless-mse, input: minmax}");
  EXPECT_EQ(overridden.weights->observer, "memoryless_mse");
  EXPECT_EQ(overridden.input_activations->observer, "minmax");
}

TEST(Recipe, SchemeMap_GivesOneGroupPerPreset) {
  const GptqModifier gptq =
      ParsedGptq("scheme: {FP8_DYNAMIC: ['re:.*q_proj', a], W4A16: Linear, UNQUANTIZED: b}");
  ASSERT_EQ(gptq.groups.size(), 3u);
  EXPECT_EQ(gptq.groups[0].targets, (std::vector<std::string>{"re:.*q_proj", "a"}));
  EXPECT_EQ(gptq.groups[1].scheme.weights->num_bits, 4);
  EXPECT_FALSE(gptq.groups[2].scheme.weights);
}

TEST(Recipe, Args_FillPlaceholdersByTypeAndInsideText) {
  const std::string text = R"(
args: {bits: 4, size: 64, block: mlp, groups: [a, b]}
a_stage:
  q_modifiers:
    QuantizationModifier:
      ignore: ["re:.*{{block}}\\.down_proj", '{{ block }}']
      config_groups:
        g: {targets: {{groups}}, weights: {num_bits: {{bits}}, group_size: "{{size}}"}}
)";
  const auto fields = FieldsOf(Parsed(text).modifiers()[0]);
  EXPECT_EQ(fields.groups[0].scheme.weights->num_bits, 4);
  EXPECT_EQ(fields.groups[0].scheme.weights->group_size, 64);
  EXPECT_EQ(fields.groups[0].targets, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(fields.ignore, (std::vector<std::string>{"re:.*mlp\\.down_proj", "mlp"}));
  const auto given = FieldsOf(Parsed(text, {{"bits", "8"}}).modifiers()[0]);
  EXPECT_EQ(given.groups[0].scheme.weights->num_bits, 8);
}

TEST(Recipe, ArgsThatCannotApply_AreErrorsOrWarnings) {
  EXPECT_THAT(ErrorOf("args: {bits: 4}\n" + Gptq("block_size: {{bit}}")),
              HasSubstr("r.yaml:4: {{bit}}: no such name in args, did you mean 'bits'?"));
  EXPECT_THAT(ErrorOf("args: {b: [1]}\n" + Gptq("scheme: 'x{{b}}'")),
              HasSubstr("expected a single value"));
  EXPECT_THAT(ErrorOf("args: {b: '{{c}}'}\n" + Gptq("scheme: '{{b}}'")), HasSubstr("inside args"));
  EXPECT_EQ(Recipe::Parse(Gptq("scheme: W4A16"), "r", {{"bits", "4"}}).status().code(),
            absl::StatusCode::kInvalidArgument);
  const Recipe recipe = Parsed("args: {bits: 4}\n" + Gptq("scheme: W4A16"));
  ASSERT_EQ(recipe.warnings().size(), 1u);
  EXPECT_THAT(recipe.warnings()[0], HasSubstr("args.bits: not used"));
}

TEST(Recipe, ArgWithYamlSyntax_StaysAValue) {
  const Recipe recipe =
      Parsed(Gptq("scheme: W4A16, ignore: ['{{x}}']"), {{"x", "a], block_size: 1, targets: [b"}});
  EXPECT_EQ(FieldsOf(recipe.modifiers()[0]).ignore[0], "a], block_size: 1, targets: [b");
}

TEST(Recipe, TextThatIsNotUtf8_IsRefusedWithItsLine) {
  for (const char* text : {"\xff", "\xc0\x80", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                           "\xe2\x82", "\"\\ud800\""}) {
    EXPECT_THAT(ErrorOf(Gptq(absl::StrCat("scheme: W4A16, targets: [", text, "]"))),
                HasSubstr("r.yaml:3"))
        << testing::PrintToString(std::string(text));
    EXPECT_THAT(ErrorOf(Gptq(absl::StrCat("scheme: W4A16, ", text, ": 1"))), HasSubstr("r.yaml:3"));
  }
  EXPECT_EQ(ParsedGptq("scheme: W4A16, targets: [\"\xf0\x9f\x8e\x89 \xc3\xa9\"]").groups.size(),
            1u);
}

TEST(Recipe, HostileText_IsRefusedQuickly) {
  std::string laughs = "args:\n  l0: &l0 [a, a, a, a, a, a, a, a, a, a]\n";
  for (int i = 1; i < 12; ++i) {
    absl::StrAppend(&laughs, "  l", i, ": &l", i, " [");
    for (int j = 0; j < 10; ++j) absl::StrAppend(&laughs, "*l", i - 1, j < 9 ? ", " : "]\n");
  }
  EXPECT_THAT(ErrorOf(laughs), HasSubstr("more than 100000 values"));
  EXPECT_THAT(ErrorOf("a: " + std::string(100000, '[')), HasSubstr("more than 64 levels"));
  EXPECT_THAT(ErrorOf("a: " + std::string(100000, '{')), HasSubstr("levels"));
  EXPECT_THAT(ErrorOf(std::string(2 << 20, 'x')), HasSubstr("expected at most"));
  EXPECT_THAT(ErrorOf("a: &a [*a]"), HasSubstr("alias"));
  EXPECT_THAT(ErrorOf("a: !!python/object/apply:os.system ['x']"), HasSubstr("tag"));
  EXPECT_THAT(ErrorOf("a: b\n---\n"), HasSubstr("expected"));
  for (const std::string& text :
       {std::string(""), std::string("\0\0", 2), std::string("\xff\xfe"), std::string("- a\n- b"),
        std::string("just text"), std::string("a_stage: [\n"), std::string("? [a]\n: b"),
        std::string("\t\tx"), std::string("a: *b"), std::string("a: 'x"), std::string("---"),
        std::string("%YAML 9.9\n---\na: b"),
        std::string("a_stage: {b_modifiers: {GPTQModifier: 3}}"),
        std::string("\xEE\x80\x80"
                    "a: b"),
        std::string("{{x}}: 1")}) {
    EXPECT_FALSE(ErrorOf(text).empty()) << text;
  }
}

TEST(Recipe, EveryPrefixOfARecipe_EndsWithoutACrash) {
  const std::string text =
      "args: {b: 4}\n" + Gptq(
                             "scheme: {W4A16: ['re:.*x$', \"y\\u0041\"]}, actorder: static, "
                             "kv_cache_scheme: &k {num_bits: 8}, block_size: {{b}}");
  for (size_t n = 0; n < text.size(); ++n) {
    (void)Recipe::Parse(text.substr(0, n), "r.yaml");
    std::string broken = text;
    broken[n] = static_cast<char>(broken[n] ^ 0x15);
    (void)Recipe::Parse(broken, "r.yaml");
  }
  EXPECT_TRUE(Recipe::Parse(text, "r.yaml").ok());
}

TEST(Recipe, PresetName_IsARecipe) {
  for (const std::string& name : PresetNames()) {
    const absl::StatusOr<Recipe> recipe = Recipe::Load(name);
    if (name == "UNQUANTIZED") {
      EXPECT_EQ(recipe.status().code(), absl::StatusCode::kInvalidArgument);
      continue;
    }
    ASSERT_TRUE(recipe.ok()) << recipe.status();
    const bool is_gptq = std::holds_alternative<GptqModifier>(recipe->modifiers()[0]);
    EXPECT_EQ(is_gptq, name[0] == 'W' || name == "INT8") << name;
    EXPECT_EQ(FieldsOf(recipe->modifiers()[0]).ignore, std::vector<std::string>{"lm_head"});
  }
  EXPECT_EQ(CanonicalText(*Recipe::Load("w4a16")), CanonicalText(*Recipe::Load("W4A16")));
}

TEST(Recipe, NeitherFileNorPreset_IsNotFound) {
  const auto recipe = Recipe::Load("W4A61");
  EXPECT_EQ(recipe.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(recipe.status().message()), HasSubstr("did you mean 'W4A16'?"));
  EXPECT_EQ(Recipe::Load("/").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Recipe::Load("/no/such.yaml").status().code(), absl::StatusCode::kNotFound);
}

TEST(CalibrationReason, DataFreeSchemes_HaveNone) {
  const auto reason = [](const std::string& fields) {
    const Recipe recipe = Parsed(InGroup(absl::StrCat("QuantizationModifier: {", fields, "}")));
    return CalibrationReason(recipe.modifiers()[0]);
  };
  for (const char* preset : {"W4A16", "FP8_DYNAMIC", "FP8_BLOCK", "MXFP4", "NVFP4A16", "W8A8"}) {
    EXPECT_EQ(reason(absl::StrCat("scheme: ", preset)), "") << preset;
  }
  for (const char* fields : {"scheme: FP8", "scheme: NVFP4", "kv_cache_scheme: {type: float}",
                             "scheme: W4A16, weight_observer: imatrix_mse"}) {
    EXPECT_NE(reason(fields), "") << fields;
  }
  EXPECT_NE(CalibrationReason(Parsed(Gptq("scheme: FP8_DYNAMIC")).modifiers()[0]), "");
}

TEST(CanonicalText, SpellingDoesNotMatterMeaningDoes) {
  const auto text = [](const std::string& fields) { return CanonicalText(Parsed(Gptq(fields))); };
  EXPECT_EQ(text("scheme: w8a8, ignore: [a, b]"), text("ignore: [b, a], scheme: INT8"));
  EXPECT_EQ(
      text("config_groups: {x: {targets: [Linear], weights: {num_bits: 4, group_size: 128}}}"),
      text("scheme: W4A16"));
  EXPECT_NE(text("scheme: W4A16"), text("scheme: W4A16, block_size: 64"));
  EXPECT_NE(text("scheme: W4A16"), text("scheme: W4A16, on_singular: fail"));
  EXPECT_NE(text("scheme: W4A16"), text("scheme: W4A16, actorder: none"));
}

TEST(Recipe, Concatenate_KeepsTheOrder) {
  const Recipe all = Recipe::Concatenate({*Recipe::Load("W4A16"), *Recipe::Load("FP8")});
  ASSERT_EQ(all.modifiers().size(), 2u);
  EXPECT_EQ(ModifierClassName(all.modifiers()[0]), "GPTQModifier");
  EXPECT_EQ(ModifierClassName(all.modifiers()[1]), "QuantizationModifier");
}

}  // namespace
}  // namespace llmc
