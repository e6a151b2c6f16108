#include "model/decoder_layer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <mutex>

#include "ATen/TensorOperators.h"
#include "ATen/ops/cat.h"
#include "ATen/ops/equal.h"
#include "ATen/ops/linear.h"
#include "ATen/ops/ones_like.h"
#include "ATen/ops/randn.h"
#include "ATen/ops/zeros.h"
#include "c10/core/InferenceMode.h"
#include "llmc/parallel.h"
#include "model/model_ends.h"
#include "model/rotary_table.h"
#include "model/torch_tensor.h"
#include "small_models.h"

namespace llmc {
namespace {

using testing::ElementsAre;

DecoderLayer LoadLayer(const SmallModel& model, int64_t index, at::ScalarType dtype = at::kFloat) {
  auto layer = DecoderLayer::Load(model.spec, index, WeightSource::Reader(model.source), dtype);
  EXPECT_TRUE(layer.ok()) << layer.status();
  return *std::move(layer);
}

// [tokens, hidden_size], the same numbers for the same seed.
at::Tensor Hidden(const SmallModel& model, int64_t tokens) {
  return at::randn({tokens, model.spec.hidden_size}, at::kFloat);
}

class RecordingTaps : public Taps {
 public:
  void Input(absl::Span<const std::string> linears, const at::Tensor& x) override {
    std::lock_guard<std::mutex> lock(mutex_);
    groups.emplace_back(linears.begin(), linears.end());
    inputs.push_back(x);
  }
  at::Tensor ReplaceOutput(const std::string& linear, const at::Tensor& y) override {
    std::lock_guard<std::mutex> lock(mutex_);
    outputs.emplace_back(linear, y);
    return y;
  }
  void Attention(const std::string& attention, AttentionStates& states) override {
    attention_name = attention;
    seen = states;
  }

  std::vector<std::vector<std::string>> groups;
  std::vector<at::Tensor> inputs;
  std::vector<std::pair<std::string, at::Tensor>> outputs;
  std::string attention_name;
  AttentionStates seen;

 private:
  std::mutex mutex_;
};

TEST(DecoderLayer, Taps_SeeEveryGroupOnceInOrder) {
  c10::InferenceMode no_gradients;
  const SmallModel model = OpenSmallModel("llama_biases");
  const DecoderLayer layer = LoadLayer(model, 1);
  RecordingTaps taps;
  layer.Forward(Hidden(model, 5), {.taps = &taps});
  const std::string prefix = "model.layers.1.";
  EXPECT_THAT(taps.groups,
              ElementsAre(ElementsAre(prefix + "self_attn.q_proj", prefix + "self_attn.k_proj",
                                      prefix + "self_attn.v_proj"),
                          ElementsAre(prefix + "self_attn.o_proj"),
                          ElementsAre(prefix + "mlp.gate_proj", prefix + "mlp.up_proj"),
                          ElementsAre(prefix + "mlp.down_proj")));
  EXPECT_EQ(taps.attention_name, prefix + "self_attn");
  EXPECT_EQ(taps.seen.query.sizes(), at::IntArrayRef({4, 5, 16}));
  EXPECT_EQ(taps.seen.key.sizes(), at::IntArrayRef({2, 5, 16}));
  EXPECT_EQ(taps.seen.value.sizes(), at::IntArrayRef({2, 5, 16}));
}

TEST(DecoderLayer, TappedInput_IsWhatTheLinearMultiplies) {
  c10::InferenceMode no_gradients;
  const SmallModel model = OpenSmallModel("llama_biases");
  const DecoderLayer layer = LoadLayer(model, 0);
  RecordingTaps taps;
  layer.Forward(Hidden(model, 6), {.taps = &taps});
  for (const auto& [linear, output] : taps.outputs) {
    for (size_t g = 0; g < taps.groups.size(); ++g) {
      if (std::count(taps.groups[g].begin(), taps.groups[g].end(), linear) == 0) continue;
      EXPECT_TRUE(
          at::equal(at::linear(taps.inputs[g], layer.weight(linear), layer.bias(linear)), output))
          << linear;
    }
  }
  EXPECT_EQ(taps.outputs.size(), 7u);
}

TEST(DecoderLayer, OutputNotNeeded_SameInputsWithoutDownProj) {
  c10::InferenceMode no_gradients;
  const SmallModel model = OpenSmallModel("qwen3_plain");
  const DecoderLayer layer = LoadLayer(model, 0);
  const at::Tensor hidden = Hidden(model, 6);
  RecordingTaps all, inputs_only;
  layer.Forward(hidden, {.taps = &all});
  EXPECT_FALSE(layer.Forward(hidden, {.taps = &inputs_only, .output_needed = false}).defined());
  ASSERT_EQ(all.inputs.size(), inputs_only.inputs.size());
  for (size_t i = 0; i < all.inputs.size(); ++i) {
    EXPECT_TRUE(at::equal(all.inputs[i], inputs_only.inputs[i]));
  }
  EXPECT_EQ(inputs_only.outputs.size(), 6u);
}

class ZeroInputs : public Taps {
 public:
  at::Tensor ReplaceInput(const std::string&, const at::Tensor& x) override { return x * 0; }
};

TEST(DecoderLayer, ReplacedInputs_AreUsed) {
  c10::InferenceMode no_gradients;
  const SmallModel model = OpenSmallModel("llama_plain");
  const at::Tensor hidden = Hidden(model, 4);
  ZeroInputs zero;
  EXPECT_TRUE(at::equal(LoadLayer(model, 0).Forward(hidden, {.taps = &zero}), hidden));
}

class ZeroValues : public Taps {
 public:
  void Attention(const std::string&, AttentionStates& states) override {
    states.value = states.value * 0;
  }
  void Input(absl::Span<const std::string> linears, const at::Tensor& x) override {
    if (linears[0].ends_with("o_proj")) attended = x.abs().max().item<double>();
  }
  double attended = -1;
};

TEST(DecoderLayer, ReplacedCacheStates_AreUsed) {
  c10::InferenceMode no_gradients;
  const SmallModel model = OpenSmallModel("llama_plain");
  ZeroValues zero;
  LoadLayer(model, 0).Forward(Hidden(model, 4), {.taps = &zero});
  EXPECT_EQ(zero.attended, 0.0);
}

// With the host's kernels and, as on a device, with LibTorch's operations alone.
TEST(DecoderLayer, SeveralSamplesAtOnce_GiveWhatEachGivesAlone) {
  c10::InferenceMode no_gradients;
  for (const char* name : {"llama_biases", "mistral_sliding", "qwen3_plain"}) {
    const SmallModel model = OpenSmallModel(name);
    for (const bool host_kernels : {true, false}) {
      LayerPlacement placement;
      placement.host_kernels = host_kernels;
      const auto layer =
          DecoderLayer::Load(model.spec, 0, WeightSource::Reader(model.source), placement);
      ASSERT_TRUE(layer.ok()) << layer.status();
      const std::vector<int64_t> lengths = {11, 1, 16};
      std::vector<at::Tensor> samples;
      std::vector<at::Tensor> alone;
      for (const int64_t tokens : lengths) {
        samples.push_back(Hidden(model, tokens));
        alone.push_back(layer->Forward(samples.back(), {}));
      }
      const at::Tensor together = layer->Forward(at::cat(samples), {.lengths = lengths});
      const at::Tensor difference = (together - at::cat(alone)).abs().max();
      EXPECT_LT(difference.item<float>(), 1e-4) << name << " " << host_kernels;
    }
  }
}

TEST(DecoderLayer, SetWeight_UsedByTheNextForward) {
  c10::InferenceMode no_gradients;
  const SmallModel model = OpenSmallModel("llama_plain");
  DecoderLayer layer = LoadLayer(model, 0);
  const at::Tensor hidden = Hidden(model, 4);
  for (const char* name : {"model.layers.0.self_attn.o_proj", "model.layers.0.mlp.down_proj"}) {
    ASSERT_TRUE(layer.set_weight(name, at::zeros(layer.weight(name).sizes(), at::kDouble)).ok());
    EXPECT_EQ(layer.weight(name).scalar_type(), at::kFloat);
  }
  EXPECT_TRUE(at::equal(layer.Forward(hidden, {}), hidden));
  EXPECT_EQ(layer.set_weight("model.layers.0.mlp.down_proj", at::zeros({2, 2})).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(layer.set_weight("model.layers.1.mlp.down_proj", at::zeros({2, 2})).code(),
            absl::StatusCode::kNotFound);
}

TEST(DecoderLayer, ManyThreads_SameBitsAsOneAfterAnother) {
  UseOneThreadPerOperation();
  const SmallModel model = OpenSmallModel("mistral_sliding");
  const DecoderLayer layer = LoadLayer(model, 0, at::kBFloat16);
  std::vector<at::Tensor> hidden, alone, together(24);
  for (int i = 0; i < 24; ++i) {
    hidden.push_back(Hidden(model, 3 + i).to(at::kBFloat16));
    alone.push_back(layer.Forward(hidden[i], {}));
  }
  ParallelFor(24, [&](int64_t i) {
    c10::InferenceMode no_gradients;
    together[i] = layer.Forward(hidden[i], {});
  });
  for (int i = 0; i < 24; ++i) EXPECT_TRUE(at::equal(alone[i], together[i])) << i;
}

TEST(DecoderLayer, OwnKernelsInBf16_AsCloseToFloat32AsLibTorch) {
  c10::InferenceMode no_gradients;
  for (const char* name : {"llama_plain", "mistral_sliding", "qwen3_plain"}) {
    const SmallModel model = OpenSmallModel(name);
    const DecoderLayer exact = LoadLayer(model, 0);
    const DecoderLayer rounded = LoadLayer(model, 0, at::kBFloat16);
    const at::Tensor hidden = Hidden(model, 60).to(at::kBFloat16);
    const at::Tensor expected = exact.Forward(hidden.to(at::kFloat), {});
    const auto error = [&](bool differentiable) {
      const at::Tensor y = rounded.Forward(hidden, {.differentiable = differentiable});
      return (y.to(at::kFloat) - expected).norm().item<double>();
    };
    EXPECT_LT(error(false), 1.1 * error(true)) << name;
  }
}

int64_t ThreadsOfThisProcess() {
  int64_t count = 0;
  for ([[maybe_unused]] const auto& entry :
       std::filesystem::directory_iterator("/proc/self/task")) {
    ++count;
  }
  return count;
}

TEST(UseOneThreadPerOperation, LargeProductsOnPoolThreads_StartNoThread) {
  UseOneThreadPerOperation();
  ParallelFor(8, [](int64_t) {});
  const int64_t before = ThreadsOfThisProcess();
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = at::randn({512, 512}).to(type);
    ParallelFor(8, [&](int64_t) { at::linear(x, x).to(at::kFloat).exp().sum(); });
  }
  EXPECT_EQ(ThreadsOfThisProcess(), before);
}

// The directional derivative along `direction`, by central differences.
double Slope(const DecoderLayer& layer, const at::Tensor& hidden, const at::Tensor& direction,
             const at::Tensor& weights) {
  const double step = 1e-2;
  const auto value = [&](double t) {
    return (layer.Forward(hidden + direction * t, {.differentiable = true}) * weights)
        .to(at::kDouble)
        .sum()
        .item<double>();
  };
  return (value(step) - value(-step)) / (2 * step);
}

TEST(DecoderLayer, Gradient_AgreesWithDifferences) {
  for (const char* name : {"llama_plain", "mistral_sliding", "qwen3_plain"}) {
    const SmallModel model = OpenSmallModel(name);
    const DecoderLayer layer = LoadLayer(model, 0);
    at::Tensor hidden = Hidden(model, 12);
    const at::Tensor direction = Hidden(model, 12) * 0.1;
    const at::Tensor weights = Hidden(model, 12);
    const double slope = Slope(layer, hidden, direction, weights);
    hidden = hidden.detach().requires_grad_(true);
    (layer.Forward(hidden, {.differentiable = true}) * weights).sum().backward();
    const double gradient = (hidden.grad() * direction).sum().item<double>();
    EXPECT_NEAR(gradient, slope, 0.02 * std::abs(slope) + 0.02) << name;
  }
}

TEST(DecoderLayer, RotaryTableFirstUsedWithoutGradients_StillGivesGradients) {
  const SmallModel model = OpenSmallModel("llama_plain");
  LayerPlacement placement;
  placement.rotary = std::make_shared<RotaryTable>(model.spec.rope, model.spec.head_dim);
  auto layer = DecoderLayer::Load(model.spec, 0, WeightSource::Reader(model.source), placement);
  ASSERT_TRUE(layer.ok());
  const at::Tensor hidden = Hidden(model, 4);
  {
    c10::InferenceMode no_gradients;
    layer->Forward(hidden, {});
  }
  const at::Tensor leaf = hidden.clone().requires_grad_(true);
  layer->Forward(leaf, {.differentiable = true}).sum().backward();
  EXPECT_TRUE(leaf.grad().defined());
}

TEST(DecoderLayer, ReaderFails_ErrorComesThrough) {
  const SmallModel model = OpenSmallModel("llama_plain");
  const WeightReader broken = [](const std::string& name) -> absl::StatusOr<HostTensor> {
    return absl::DataLossError(name + ": damaged");
  };
  EXPECT_EQ(DecoderLayer::Load(model.spec, 0, broken, at::kFloat).status().code(),
            absl::StatusCode::kDataLoss);
  const WeightReader small = [](const std::string&) -> absl::StatusOr<HostTensor> {
    return HostTensor(DType::kF32, {2, 2});
  };
  const WeightReader codes = [&](const std::string& name) -> absl::StatusOr<HostTensor> {
    auto right = model.source->Read(name);
    return HostTensor(DType::kI8, right->shape());
  };
  for (const WeightReader& reader : {small, codes}) {
    EXPECT_EQ(DecoderLayer::Load(model.spec, 0, reader, at::kFloat).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  for (const int64_t layer : {-1, 3}) {
    EXPECT_EQ(DecoderLayer::Load(model.spec, layer, small, at::kFloat).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(Embedding, IdOutsideVocabulary_InvalidArgument) {
  const SmallModel model = OpenSmallModel("llama_plain");
  auto embedding = Embedding::Load(model.spec, WeightSource::Reader(model.source), {});
  ASSERT_TRUE(embedding.ok());
  for (const int32_t id : {-1, 128}) {
    const std::vector<int32_t> ids = {3, id};
    EXPECT_EQ(embedding->Embed(ids).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(CatchTorch, WrongShapes_InternalWithFirstLineOnly) {
  const absl::Status status = CatchTorch("here", [] {
    at::linear(at::zeros({2, 3}), at::zeros({4, 5}));
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), testing::StartsWith("here: LibTorch: "));
  EXPECT_THAT(std::string(status.message()), testing::Not(testing::HasSubstr("\n")));
}

TEST(CatchTorch, TooMuchMemory_ResourceExhausted) {
  const absl::Status status =
      CatchTorch("here", [] { at::zeros({int64_t{1} << 50}, at::kDouble); });
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
}

TEST(ToHost, EveryStoredType_RoundTrips) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kI8, DType::kF8E4M3, DType::kU8}) {
    const at::Tensor tensor = at::randn({3, 5}).to(TorchType(dtype)).t();
    auto host = ToHost(tensor);
    ASSERT_TRUE(host.ok()) << host.status();
    EXPECT_EQ(host->shape(), (Shape{5, 3}));
    EXPECT_TRUE(at::equal(ToTorch(*std::move(host)).to(at::kFloat), tensor.to(at::kFloat)));
  }
}

}  // namespace
}  // namespace llmc
