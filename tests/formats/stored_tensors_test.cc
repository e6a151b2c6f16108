#include "formats/stored_tensors.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "formats/names.h"
#include "formats/presets.h"
#include "formats/quantization_args.h"

namespace llmc {
namespace {

using Json = nlohmann::json;

Scheme SchemeOf(const Json& json, const std::string& format) {
  Scheme scheme;
  const auto read = [&](const char* key, std::optional<QuantizationArgs>& args) {
    if (!json.contains(key) || json[key].is_null()) return;
    absl::StatusOr<QuantizationArgs> parsed = ParseQuantizationArgs(json[key]);
    EXPECT_TRUE(parsed.ok()) << parsed.status();
    args = *parsed;
  };
  read("weights", scheme.weights);
  read("input_activations", scheme.input_activations);
  read("output_activations", scheme.output_activations);
  scheme.format = *FormatFromName(format);
  return scheme;
}

Json AsJson(const std::vector<StoredTensorSpec>& specs) {
  Json json = Json::object();
  for (const StoredTensorSpec& spec : specs) {
    json[spec.suffix] = {std::string(SafetensorsName(spec.dtype)), spec.shape};
  }
  return json;
}

TEST(StoredTensors, EveryReferenceCase_HasTheSameTensors) {
  std::ifstream file(std::string(LLMC_SOURCE_DIR) + "/tests/formats/testdata/stored_tensors.json");
  const Json cases = Json::parse(file);
  ASSERT_GT(cases.size(), 100u);
  for (const Json& c : cases) {
    const Scheme scheme = SchemeOf(c["scheme"], c["format"]);
    Json expected = c["tensors"];
    // These files hold what the weight compressor wrote, without activations.
    Scheme weights_only = scheme;
    weights_only.input_activations.reset();
    const absl::StatusOr<std::vector<StoredTensorSpec>> specs =
        StoredTensors(weights_only, c["weight"][1].get<Shape>(),
                      *DTypeFromSafetensors(c["weight"][0].get<std::string>()));
    ASSERT_TRUE(specs.ok()) << c["name"] << specs.status();
    EXPECT_EQ(AsJson(*specs), expected) << c["name"];
    const bool packed_on_purpose =
        scheme.input_activations && scheme.weights->type == NumberType::kInt &&
        scheme.input_activations->type == NumberType::kFloat && scheme.weights->num_bits < 8;
    EXPECT_EQ(InferFormat(scheme), packed_on_purpose ? Format::kPackQuantized : scheme.format)
        << c["name"];
  }
}

TEST(StoredTensors, StaticTensorActivations_StoreInputScale) {
  Scheme scheme = *PresetScheme("FP8");
  EXPECT_EQ(AsJson(*StoredTensors(scheme, {8, 16}, DType::kBF16)),
            Json::parse(R"({"weight": ["F8_E4M3", [8, 16]], "weight_scale": ["BF16", [1]],
                            "input_scale": ["BF16", [1]]})"));
  scheme.input_activations->type = NumberType::kInt;
  scheme.input_activations->symmetric = false;
  const Json specs = AsJson(*StoredTensors(scheme, {8, 16}, DType::kF32));
  EXPECT_EQ(specs["input_zero_point"], Json::parse(R"(["I8", [1]])"));
}

TEST(StoredTensors, Nvfp4Activations_StoreGlobalScaleOnly) {
  const Json specs = AsJson(*StoredTensors(*PresetScheme("NVFP4"), {8, 32}, DType::kBF16));
  EXPECT_EQ(specs, Json::parse(R"({"weight_packed": ["U8", [8, 16]],
      "weight_scale": ["F8_E4M3", [8, 2]], "weight_global_scale": ["F32", [1]],
      "input_global_scale": ["F32", [1]]})"));
}

TEST(StoredTensors, DynamicActivations_StoreNothing) {
  for (const char* preset : {"FP8_DYNAMIC", "FP8_BLOCK", "W8A8", "MXFP4", "MXFP8", "W4A8"}) {
    const Json specs = AsJson(*StoredTensors(*PresetScheme(preset), {256, 256}, DType::kBF16));
    for (const auto& [suffix, spec] : specs.items()) {
      EXPECT_EQ(suffix.find("input"), std::string::npos) << preset;
    }
  }
}

TEST(StoredTensors, QuantisedSource_ScalesAreF16) {
  const auto specs = StoredTensors(*PresetScheme("FP8_DYNAMIC"), {4, 8}, DType::kF8E4M3);
  EXPECT_EQ((*specs)[1], (StoredTensorSpec{"weight_scale", DType::kF16, {4, 1}}));
}

TEST(StoredTensors, GroupThatDoesNotDivide_IsAnError) {
  const auto specs = StoredTensors(*PresetScheme("W4A16"), {4, 100}, DType::kBF16);
  EXPECT_EQ(specs.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(specs.status().message(), "group_size 128 does not divide 100 columns");
}

TEST(StoredTensors, BadShapes_AreErrors) {
  for (const Shape& shape : {Shape{}, Shape{4}, Shape{4, 0}, Shape{-4, 128}, Shape{2, 4, 128},
                             Shape{int64_t{1} << 62, int64_t{1} << 62}}) {
    EXPECT_EQ(StoredTensors(*PresetScheme("W8A8"), shape, DType::kBF16).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(StoredTensors, FormatThatCannotHoldTheScheme_IsUnimplemented) {
  Scheme scheme = *PresetScheme("FP8_DYNAMIC");
  for (const Format format : {Format::kDense, Format::kPackQuantized, Format::kIntQuantized,
                              Format::kNvfp4PackQuantized, Format::kMxfp8Quantized}) {
    scheme.format = format;
    EXPECT_EQ(StoredTensors(scheme, {8, 32}, DType::kBF16).status().code(),
              absl::StatusCode::kUnimplemented);
  }
}

TEST(InferFormat, Int4WithFloatActivations_IsPacked) {
  Scheme scheme = *PresetScheme("W4AFP8");
  EXPECT_EQ(scheme.format, Format::kPackQuantized);
  scheme.weights->num_bits = 8;
  EXPECT_EQ(InferFormat(scheme), Format::kIntQuantized);
}

TEST(StoredKvCacheTensors, PerTensorAndPerHead_MatchTheReferenceShapes) {
  QuantizationArgs args;
  args.type = NumberType::kFloat;
  EXPECT_EQ(AsJson(*StoredKvCacheTensors(args, {4, 1}, DType::kBF16)),
            Json::parse(R"({"k_scale": ["BF16", [1]], "v_scale": ["BF16", [1]]})"));
  args.strategy = Strategy::kAttnHead;
  EXPECT_EQ(AsJson(*StoredKvCacheTensors(args, {4, 2}, DType::kF16)),
            Json::parse(R"({"k_scale": ["F16", [2, 1, 1]], "v_scale": ["F16", [2, 1, 1]]})"));
  EXPECT_FALSE(StoredKvCacheTensors(args, {4, 0}, DType::kF16).ok());
}

}  // namespace
}  // namespace llmc
