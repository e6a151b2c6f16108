#include "formats/target.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

TargetMatch MatchOf(absl::string_view target, absl::string_view name,
                    absl::string_view class_name) {
  return *Target::Compile(target)->Match(name, class_name);
}

TEST(Target, Pattern_IsAnchoredAtTheStartOnly) {
  EXPECT_EQ(MatchOf("re:.*down_proj", "layers.0.down_proj.x", "Linear"), TargetMatch::kPattern);
  EXPECT_EQ(MatchOf("re:.*down_proj$", "layers.0.down_proj.x", "Linear"), TargetMatch::kNone);
  EXPECT_EQ(MatchOf("re:down_proj", "layers.0.down_proj", "Linear"), TargetMatch::kNone);
}

TEST(Target, PlainText_IsAWholeNameOrAClass) {
  EXPECT_EQ(MatchOf("lm_head", "lm_head", "Linear"), TargetMatch::kName);
  EXPECT_EQ(MatchOf("mlp.down_proj", "layers.0.mlp.down_proj", "Linear"), TargetMatch::kNone);
  EXPECT_EQ(MatchOf("Linear", "a.b", "Linear"), TargetMatch::kClass);
  EXPECT_EQ(MatchOf("Linear", "a.b", "LinearBase"), TargetMatch::kClass);
  EXPECT_EQ(MatchOf("linear", "a.b", "Linear"), TargetMatch::kNone);
  EXPECT_EQ(MatchOf("Linear", "a.b", ""), TargetMatch::kNone);
}

TEST(Target, BadPatterns_AreErrors) {
  for (const char* text : {"re:(", "re:[a-", "re:*", "re:\\", "", "re:(?<x"}) {
    EXPECT_EQ(Target::Compile(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
  EXPECT_FALSE(Target::Compile("re:" + std::string(5000, 'a')).ok());
  EXPECT_FALSE(Target::Compile("re:" + std::string(1000, '(') + std::string(1000, ')')).ok());
}

TEST(Target, CatastrophicPattern_EndsWithAnError) {
  const absl::StatusOr<Target> target = Target::Compile("re:(a+)+$");
  ASSERT_TRUE(target.ok());
  const auto match = target->Match(std::string(60, 'a') + "b", "");
  EXPECT_EQ(match.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(TargetSet, ExactName_BeatsPattern_BeatsClass) {
  TargetSet set;
  ASSERT_TRUE(set.Add("Linear", 0).ok());
  ASSERT_TRUE(set.Add("re:.*mlp.*", 1).ok());
  ASSERT_TRUE(set.Add("re:.*down_proj", 2).ok());
  ASSERT_TRUE(set.Add("a.mlp.up_proj", 3).ok());
  const auto owner = [&](const char* name) { return (*set.Find(name, "Linear"))->owner; };
  EXPECT_EQ(owner("a.mlp.up_proj"), 3);
  EXPECT_EQ(owner("a.mlp.down_proj"), 2);  // "re:.*down_proj" is first in the alphabet.
  EXPECT_EQ(owner("a.mlp.gate_proj"), 1);
  EXPECT_EQ(owner("a.attn.q_proj"), 0);
  EXPECT_FALSE(set.Find("a.norm", "LlamaRMSNorm")->has_value());
}

TEST(ServingClassName, Routers_CountAsLinear) {
  for (const char* name :
       {"MixtralTopKRouter", "JetMoeTopKGating", "HunYuanMoEV1Gate", "MoEGateV2", "Linear"}) {
    EXPECT_EQ(ServingClassName(name), "Linear") << name;
  }
  for (const char* name : {"RouterExpertMLP", "LlamaMLP", "GatedMLP", "Gateway", "Embedding"}) {
    EXPECT_EQ(ServingClassName(name), name);
  }
}

}  // namespace
}  // namespace llmc
