// Compressed checkpoints of the reference, run as transformers runs them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "ATen/TensorOperators.h"
#include "ATen/ops/equal.h"
#include "c10/core/InferenceMode.h"
#include "formats/quantization_args.h"
#include "llmc/file.h"
#include "model/activation_quantization.h"
#include "model/torch_tensor.h"
#include "nlohmann/json.hpp"
#include "small_models.h"

namespace llmc {
namespace {

const std::filesystem::path kTestData =
    std::filesystem::path(LLMC_SOURCE_DIR) / "tests/model/testdata";

std::shared_ptr<const Checkpoint> Open(const std::filesystem::path& dir) {
  auto checkpoint = Checkpoint::Open(dir);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  return *checkpoint;
}

at::Tensor ReadTorch(const Checkpoint& checkpoint, const std::string& name) {
  absl::StatusOr<HostTensor> tensor = checkpoint.Read(name);
  EXPECT_TRUE(tensor.ok()) << tensor.status();
  return ToTorch(*std::move(tensor));
}

SmallModel OpenCompressed(const std::string& name) {
  SmallModel model;
  const auto checkpoint = Open(kTestData / "compressed" / name);
  auto spec = ParseModelSpec(checkpoint->config());
  EXPECT_TRUE(spec.ok()) << spec.status();
  model.spec = *spec;
  auto source = WeightSource::Open(checkpoint, *spec);
  EXPECT_TRUE(source.ok()) << source.status();
  model.source = *source;
  const auto expected = Open(SmallModelsDir() / "compressed" / name);
  const at::Tensor ids = ReadTorch(*expected, "ids");
  model.ids.assign(ids.const_data_ptr<int32_t>(), ids.const_data_ptr<int32_t>() + ids.numel());
  model.bf16 = ReadTorch(*expected, "bf16");
  return model;
}

double Rms(const at::Tensor& x) { return x.to(at::kDouble).pow(2).mean().sqrt().item<double>(); }

class WeightsOnly : public testing::TestWithParam<const char*> {};

TEST_P(WeightsOnly, Logits_OfTransformers) {
  c10::InferenceMode no_gradients;
  const SmallModel model = OpenCompressed(GetParam());
  auto quantizer = ActivationQuantizer::Open(model.source);
  ASSERT_TRUE(quantizer.ok()) << quantizer.status();
  EXPECT_EQ(*quantizer, nullptr);
  EXPECT_LT(Rms(Logits(model, at::kBFloat16) - model.bf16), 0.01 * Rms(model.bf16));
}

INSTANTIATE_TEST_SUITE_P(Schemes, WeightsOnly, testing::Values("W4A16_ASYM"));

class WithActivations : public testing::TestWithParam<const char*> {};

// Without the simulation the logits lie much further away.
TEST_P(WithActivations, SimulatedLogits_OfTransformers) {
  c10::InferenceMode no_gradients;
  const SmallModel model = OpenCompressed(GetParam());
  auto quantizer = ActivationQuantizer::Open(model.source);
  ASSERT_TRUE(quantizer.ok()) << quantizer.status();
  ASSERT_NE(*quantizer, nullptr);
  const double with = Rms(Logits(model, at::kBFloat16, quantizer->get()) - model.bf16);
  const double without = Rms(Logits(model, at::kBFloat16) - model.bf16);
  EXPECT_LT(with, 0.5 * without);
  EXPECT_LT(with, 0.02 * Rms(model.bf16));
}

INSTANTIATE_TEST_SUITE_P(Schemes, WithActivations,
                         testing::Values("W8A8", "W4A8", "FP8", "NVFP4", "MXFP4", "FP8_BLOCK",
                                         "FP8_DYNAMIC_kv_head"),
                         [](const auto& info) { return std::string(info.param); });

class FakeQuantizeFixtures : public testing::TestWithParam<const char*> {};

TEST_P(FakeQuantizeFixtures, EveryScheme_BitsOfCompressedTensors) {
  const auto checkpoint = Open(kTestData / "activations" / GetParam());
  const auto stored = [&](const std::string& name) {
    return checkpoint->Contains(name) ? ReadTorch(*checkpoint, name) : at::Tensor();
  };
  for (const nlohmann::json& fixture : checkpoint->config().at("cases")) {
    const std::string name = fixture.at("name");
    SCOPED_TRACE(name);
    auto args = ParseQuantizationArgs(fixture.at("args"));
    ASSERT_TRUE(args.ok()) << args.status();
    const at::Tensor x = ReadTorch(*checkpoint, fixture.value("input", "input/x"));
    auto result = FakeQuantize(x, *args,
                               {stored(name + "/scale"), stored(name + "/zero_point"),
                                stored(name + "/input_global_scale")});
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->scalar_type(), x.scalar_type());
    const at::Tensor expected = ReadTorch(*checkpoint, name + "/fake_quantized");
    EXPECT_TRUE(at::equal(*result, expected))
        << (*result - expected).abs().max().item<double>() << " apart";
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, FakeQuantizeFixtures, testing::Values("bf16", "fp16", "fp32"),
                         [](const auto& info) { return std::string(info.param); });

TEST(FakeQuantize, StaticWithoutScale_InvalidArgument) {
  const auto checkpoint = Open(kTestData / "activations" / "fp32");
  const at::Tensor x = ReadTorch(*checkpoint, "input/x");
  EXPECT_EQ(FakeQuantize(x, QuantizationArgs(), {}).status().code(),
            absl::StatusCode::kInvalidArgument);
  QuantizationArgs group;
  group.dynamic = Dynamic::kTrue;
  group.strategy = Strategy::kGroup;
  group.group_size = 7;
  EXPECT_EQ(FakeQuantize(x, group, {}).status().code(), absl::StatusCode::kInvalidArgument);
}

// A copy of a test model whose config.json has been changed.
class ChangedModel {
 public:
  explicit ChangedModel(const std::string& name) {
    char path[] = "/tmp/llmc_changed_XXXXXX";
    EXPECT_NE(mkdtemp(path), nullptr);
    dir_ = path;
    std::filesystem::copy(kTestData / "compressed" / name / "model.safetensors",
                          dir_ / "model.safetensors");
    config = nlohmann::json::parse(*ReadFile(kTestData / "compressed" / name / "config.json"));
  }
  ~ChangedModel() { std::filesystem::remove_all(dir_); }

  absl::StatusOr<std::shared_ptr<const WeightSource>> OpenSource() {
    std::ofstream(dir_ / "config.json") << config;
    const auto checkpoint = Open(dir_);
    auto spec = ParseModelSpec(checkpoint->config());
    EXPECT_TRUE(spec.ok()) << spec.status();
    return WeightSource::Open(checkpoint, *spec);
  }

  nlohmann::json config;

 private:
  std::filesystem::path dir_;
};

TEST(WeightSource, RotationsAtRunTime_Unimplemented) {
  ChangedModel model("W4A16_ASYM");
  model.config["quantization_config"]["transform_config"] = nlohmann::json::parse(
      R"({"config_groups": {"R4": {"type": "hadamard", "apply": [
          {"location": "input", "targets": ["re:.*down_proj$"]}]}}})");
  EXPECT_EQ(model.OpenSource().status().code(), absl::StatusCode::kUnimplemented);
}

TEST(WeightSource, OtherMethod_Unimplemented) {
  ChangedModel model("W4A16_ASYM");
  model.config["quantization_config"] = {{"quant_method", "gptq"}, {"bits", 4}};
  EXPECT_EQ(model.OpenSource().status().code(), absl::StatusCode::kUnimplemented);
  model.config["quantization_config"] = {{"quant_method", "fp8"}, {"weight_block_size", {0, 128}}};
  EXPECT_EQ(model.OpenSource().status().code(), absl::StatusCode::kUnimplemented);
}

TEST(WeightSource, CompressedTensorsInADenseConfig_NamesThem) {
  ChangedModel model("W4A16_ASYM");
  model.config.erase("quantization_config");
  const absl::Status status = model.OpenSource().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("q_proj.weight is missing"));
}

TEST(WeightSource, WiderModelThanStored_DataLossNotACrash) {
  ChangedModel model("W4A16_ASYM");
  model.config["intermediate_size"] = 4096;
  const auto source = model.OpenSource();
  ASSERT_TRUE(source.ok()) << source.status();
  const auto layer =
      DecoderLayer::Load((*source)->spec(), 0, WeightSource::Reader(*source), at::kFloat);
  EXPECT_EQ(layer.status().code(), absl::StatusCode::kDataLoss) << layer.status();
  EXPECT_THAT(std::string(layer.status().message()), testing::HasSubstr("mlp."));
}

TEST(ActivationQuantizer, StaticScaleMissing_DataLossNamingIt) {
  ChangedModel model("W8A8");
  for (auto& group : model.config["quantization_config"]["config_groups"]) {
    group["input_activations"]["dynamic"] = false;
    group["input_activations"]["strategy"] = "tensor";
  }
  const auto source = model.OpenSource();
  ASSERT_TRUE(source.ok()) << source.status();
  const absl::Status status = ActivationQuantizer::Open(*source).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("input_scale"));
}

}  // namespace
}  // namespace llmc
