#include "formats/quantization_args.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "formats/names.h"

namespace llmc {
namespace {

using Json = nlohmann::json;

std::string ErrorOf(const char* json) {
  const absl::StatusOr<QuantizationArgs> args = ParseQuantizationArgs(Json::parse(json));
  EXPECT_EQ(args.status().code(), absl::StatusCode::kInvalidArgument) << json;
  return std::string(args.status().message());
}

TEST(ParseQuantizationArgs, Empty_HasTheReferencesDefaults) {
  EXPECT_EQ(QuantizationArgsToJson(*ParseQuantizationArgs(Json::object())), Json::parse(R"({
      "actorder": null, "block_structure": null, "dynamic": false, "group_size": null,
      "num_bits": 8, "observer": null, "observer_kwargs": {}, "scale_dtype": null,
      "strategy": "tensor", "symmetric": true, "type": "int", "zp_dtype": null})"));
}

TEST(ParseQuantizationArgs, Strategy_FollowsFromGroupSize) {
  EXPECT_EQ(ParseQuantizationArgs({{"group_size", 64}})->strategy, Strategy::kGroup);
  const QuantizationArgs channel = *ParseQuantizationArgs({{"group_size", -1}});
  EXPECT_EQ(channel.strategy, Strategy::kChannel);
  EXPECT_FALSE(channel.group_size);
}

TEST(ParseQuantizationArgs, Asymmetric_HasAZeroPointDType) {
  EXPECT_EQ(ParseQuantizationArgs({{"symmetric", false}})->zp_dtype, DType::kI8);
  EXPECT_EQ(ParseQuantizationArgs({{"symmetric", false}, {"type", "FLOAT"}})->zp_dtype,
            DType::kF8E4M3);
}

TEST(ParseQuantizationArgs, OldBlockStructure_IsRead) {
  const auto args = ParseQuantizationArgs({{"strategy", "block"}, {"block_structure", "128x64"}});
  ASSERT_TRUE(args.ok()) << args.status();
  EXPECT_EQ(*args->block_structure, (std::array<int64_t, 2>{128, 64}));
}

TEST(ParseQuantizationArgs, JsonRoundTrip_KeepsEverything) {
  const Json json = Json::parse(R"({"num_bits": 4, "type": "int", "symmetric": false,
      "strategy": "group", "group_size": 32, "actorder": "weight", "observer": "mse",
      "observer_kwargs": {"grid": 20, "norm": 2.4}, "dynamic": false,
      "scale_dtype": "torch.bfloat16", "zp_dtype": "torch.int8", "block_structure": null})");
  EXPECT_EQ(QuantizationArgsToJson(*ParseQuantizationArgs(json)), json);
}

TEST(ParseQuantizationArgs, BadInput_IsNamed) {
  EXPECT_EQ(ErrorOf(R"({"num_bit": 4})").substr(0, 44),
            "num_bit: unknown key, did you mean 'num_bits");
  EXPECT_EQ(ErrorOf(R"({"num_bits": 5, "type": "float"})"),
            "num_bits: 5, expected 4 or 8 for type float");
  EXPECT_EQ(ErrorOf(R"({"strategy": "group"})"),
            "strategy: group without a group_size, expected group_size > 0");
  EXPECT_EQ(
      ErrorOf(R"({"strategy": "channel", "group_size": 8})"),
      "group_size: 8 with strategy channel, expected none, or strategy group or tensor_group");
  EXPECT_EQ(ErrorOf(R"({"strategy": "token"})"),
            "strategy: token with dynamic false, expected dynamic: true");
  EXPECT_EQ(ErrorOf(R"({"actorder": "group"})"),
            "actorder: 'group' was removed from the format, expected weight or static");
  EXPECT_EQ(ErrorOf(R"({"dynamic": "local"})"),
            "dynamic: local with strategy tensor, expected strategy tensor_group");
  EXPECT_EQ(ErrorOf(R"({"strategy": "blok"})").substr(0, 16), "strategy: 'blok'");
  for (const char* json :
       {R"({"num_bits": 0})", R"({"num_bits": 1.5})", R"({"num_bits": true})",
        R"({"group_size": 0})", R"({"group_size": -2})", R"({"symmetric": "maybe"})",
        R"({"strategy": "block"})", R"({"strategy": "block", "block_structure": [1]})",
        R"({"block_structure": [2, 2]})", R"({"strategy": "channel", "dynamic": true})",
        R"({"observer_kwargs": {"grid": "x"}})", R"({"scale_dtype": "torch.nothing"})", R"([1])",
        R"({"num_bits": 99999999999999999999})", R"({"type": 3})",
        R"({"strategy": "group", "group_size": -1})"}) {
    ErrorOf(json);
  }
}

TEST(ValidateArgsForRole, Weights_MustBeStorable) {
  const auto check = [](const char* json) {
    return ValidateArgsForRole(*ParseQuantizationArgs(Json::parse(json)), ArgsRole::kWeights);
  };
  EXPECT_TRUE(check(R"({"num_bits": 3, "group_size": 64})").ok());
  for (const char* bad :
       {R"({"dynamic": true})", R"({"num_bits": 9})", R"({"num_bits": 1})",
        R"({"strategy": "attn_head"})", R"({"num_bits": 4, "type": "float"})",
        R"({"num_bits": 4, "type": "float", "group_size": 32, "symmetric": false})",
        R"({"num_bits": 4, "type": "float", "group_size": 16})"}) {
    EXPECT_EQ(check(bad).code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

TEST(ValidateArgsForRole, Activations_HaveNoActOrderAndNoChannel) {
  QuantizationArgs args;
  args.actorder = ActOrder::kStatic;
  EXPECT_FALSE(ValidateArgsForRole(args, ArgsRole::kInputActivations).ok());
  args.actorder.reset();
  EXPECT_TRUE(ValidateArgsForRole(args, ArgsRole::kInputActivations).ok());
  args.strategy = Strategy::kChannel;
  EXPECT_FALSE(ValidateArgsForRole(args, ArgsRole::kInputActivations).ok());
  EXPECT_FALSE(ValidateArgsForRole(args, ArgsRole::kKvCache).ok());
}

TEST(NearestName, Misspellings_AreFound) {
  const std::vector<std::string> names = {"GPTQModifier", "QuantizationModifier", "AWQModifier"};
  EXPECT_EQ(NearestName("GTPQModifier", names), "GPTQModifier");
  EXPECT_EQ(NearestName("quantisationmodifier", names), "QuantizationModifier");
  EXPECT_EQ(NearestName("x", names), "");
  EXPECT_EQ(NearestName(std::string(100000, 'a'), names), "");
}

}  // namespace
}  // namespace llmc
