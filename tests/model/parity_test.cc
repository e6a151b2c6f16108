// Logits of every family and option against transformers.
#include <gtest/gtest.h>

#include <cstdlib>

#include "ATen/TensorOperators.h"
#include "c10/core/InferenceMode.h"
#include "llmc/parallel.h"
#include "model/model_ends.h"
#include "model/rotary_table.h"
#include "model/torch_tensor.h"
#include "small_models.h"

namespace llmc {
namespace {

at::Tensor ReadTorch(const Checkpoint& checkpoint, const std::string& name) {
  absl::StatusOr<HostTensor> tensor = checkpoint.Read(name);
  EXPECT_TRUE(tensor.ok()) << tensor.status();
  return ToTorch(*std::move(tensor));
}

double Rms(const at::Tensor& x) { return x.to(at::kDouble).pow(2).mean().sqrt().item<double>(); }

}  // namespace

const std::filesystem::path& SmallModelsDir() {
  static const std::filesystem::path* const dir = [] {
    char path[] = "/tmp/llmc_small_models_XXXXXX";
    EXPECT_NE(mkdtemp(path), nullptr);
    const std::string source = LLMC_SOURCE_DIR;
    const std::string command = source + "/.venv/bin/python " + source +
                                "/tests/model/make_models.py " + path + " " + source +
                                "/tests/model/testdata/compressed >" + path + "/log.txt 2>&1";
    EXPECT_EQ(std::system(command.c_str()), 0) << "see " << path << "/log.txt";
    static const struct Remover {
      std::string path;
      ~Remover() { std::filesystem::remove_all(path); }
    } remover{path};
    return new std::filesystem::path(path);
  }();
  return *dir;
}

SmallModel OpenSmallModel(const std::string& name) {
  SmallModel model;
  auto checkpoint = Checkpoint::Open(SmallModelsDir() / name);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  auto spec = ParseModelSpec((*checkpoint)->config());
  EXPECT_TRUE(spec.ok()) << spec.status();
  model.spec = *spec;
  auto source = WeightSource::Open(*checkpoint, *spec);
  EXPECT_TRUE(source.ok()) << source.status();
  model.source = *source;
  auto expected = Checkpoint::Open(SmallModelsDir() / name / "expected");
  EXPECT_TRUE(expected.ok()) << expected.status();
  const at::Tensor ids = ReadTorch(**expected, "ids");
  model.ids.assign(ids.const_data_ptr<int32_t>(), ids.const_data_ptr<int32_t>() + ids.numel());
  model.fp32 = ReadTorch(**expected, "fp32");
  model.narrow = ReadTorch(**expected, "narrow");
  model.bf16 = ReadTorch(**expected, "bf16");
  return model;
}

at::Tensor Logits(const SmallModel& model, at::ScalarType dtype, Taps* taps) {
  LayerPlacement placement;
  placement.dtype = dtype;
  placement.rotary = std::make_shared<RotaryTable>(model.spec.rope, model.spec.head_dim);
  const WeightReader reader = WeightSource::Reader(model.source);
  auto embedding = Embedding::Load(model.spec, reader, placement);
  EXPECT_TRUE(embedding.ok()) << embedding.status();
  at::Tensor hidden = *embedding->Embed(model.ids);
  for (int64_t i = 0; i < model.spec.num_hidden_layers; ++i) {
    auto layer = DecoderLayer::Load(model.spec, i, reader, placement);
    EXPECT_TRUE(layer.ok()) << layer.status();
    hidden = layer->Forward(hidden, {.taps = taps, .differentiable = true});
  }
  auto head = Head::Load(model.spec, reader, placement);
  EXPECT_TRUE(head.ok()) << head.status();
  return head->Logits(head->Norm(hidden)).to(at::kFloat);
}

namespace {

class Parity : public testing::TestWithParam<const char*> {};

TEST_P(Parity, Float32_LogitsOfTransformers) {
  c10::InferenceMode no_gradients;
  const SmallModel model = OpenSmallModel(GetParam());
  const at::Tensor error = (Logits(model, at::kFloat) - model.fp32).abs();
  const double scale = model.fp32.abs().max().item<double>();
  EXPECT_LT(error.max().item<double>(), 1e-5 * scale);
}

TEST_P(Parity, BFloat16_WithinItsOwnRoundingNoise) {
  c10::InferenceMode no_gradients;
  const SmallModel model = OpenSmallModel(GetParam());
  const at::Tensor logits = Logits(model, at::kBFloat16);
  const double noise = Rms(model.bf16 - model.narrow);
  EXPECT_LT(Rms(logits - model.bf16), noise);
  EXPECT_LT(Rms(logits - model.narrow), 1.2 * noise);
}

INSTANTIATE_TEST_SUITE_P(
    Families, Parity,
    testing::Values("llama_plain", "llama_old_spelling", "llama_llama3", "llama_linear",
                    "llama_yarn", "llama_yarn_mscale", "llama_dynamic_long", "llama_dynamic_short",
                    "llama_longrope_long", "llama_longrope_short", "llama_biases", "llama_tied",
                    "llama_head_dim", "llama_gelu", "mistral_sliding", "mistral_full",
                    "qwen2_plain", "qwen2_alternating", "qwen3_plain", "qwen3_layer_types"),
    [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace llmc
