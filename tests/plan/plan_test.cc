#include "plan/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/safetensors.h"
#include "plan/statistics.h"

namespace llmc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int64_t kHidden = 128;
constexpr int64_t kLayers = 2;

// Two llama layers with 128 features, BF16, all zero.
std::vector<TensorSpec> LlamaTensors(bool tied) {
  std::vector<TensorSpec> tensors = {{"model.embed_tokens.weight", DType::kBF16, {32, kHidden}},
                                     {"model.norm.weight", DType::kBF16, {kHidden}}};
  if (!tied) tensors.push_back({"lm_head.weight", DType::kBF16, {32, kHidden}});
  const std::vector<std::pair<std::string, Shape>> in_layer = {
      {"self_attn.q_proj", {128, kHidden}},   {"self_attn.k_proj", {64, kHidden}},
      {"self_attn.v_proj", {64, kHidden}},    {"self_attn.o_proj", {kHidden, 128}},
      {"mlp.gate_proj", {256, kHidden}},      {"mlp.up_proj", {256, kHidden}},
      {"mlp.down_proj", {kHidden, 256}},      {"input_layernorm", {kHidden}},
      {"post_attention_layernorm", {kHidden}}};
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    for (const auto& [name, shape] : in_layer) {
      tensors.push_back(
          {"model.layers." + std::to_string(layer) + "." + name + ".weight", DType::kBF16, shape});
    }
  }
  return tensors;
}

class PlanTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "llmc_plan_XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    config_ = {{"model_type", "llama"},        {"architectures", {"LlamaForCausalLM"}},
               {"hidden_size", kHidden},       {"intermediate_size", 256},
               {"num_hidden_layers", kLayers}, {"num_attention_heads", 4},
               {"num_key_value_heads", 2},     {"vocab_size", 32},
               {"torch_dtype", "bfloat16"},    {"tie_word_embeddings", false}};
    WriteModel(LlamaTensors(false));
    job_.model = (dir_ / "model").string();
    job_.recipe = "W4A16";
    job_.output = (dir_ / "out").string();
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  void WriteModel(const std::vector<TensorSpec>& tensors) {
    std::vector<StoredTensor> stored;
    int64_t offset = 0;
    for (const TensorSpec& spec : tensors) {
      stored.push_back({spec, offset});
      offset += spec.num_bytes();
    }
    std::filesystem::create_directories(dir_ / "model");
    std::ofstream(dir_ / "model/model.safetensors", std::ios::binary)
        << EncodeSafetensorsHeader(stored, {{"format", "pt"}}) << std::string(offset, '\0');
    std::ofstream(dir_ / "model/config.json") << config_.dump();
  }

  // A recipe file of one QuantizationModifier with these fields.
  void WriteRecipe(const std::string& fields) {
    job_.recipe = (dir_ / "recipe.yaml").string();
    std::ofstream(job_.recipe)
        << "default_stage:\n  default_modifiers:\n    QuantizationModifier: {" << fields << "}\n";
  }

  Plan MustPlan() {
    absl::StatusOr<Plan> plan = MakePlan(job_);
    EXPECT_TRUE(plan.ok()) << plan.status();
    return plan.ok() ? *std::move(plan) : Plan();
  }

  void ExpectRefused(absl::StatusCode code, const std::string& part) {
    const absl::Status status = MakePlan(job_).status();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  }

  std::filesystem::path dir_;
  nlohmann::json config_;
  Job job_;
};

std::vector<std::string> UnitNames(const Plan& plan) {
  std::vector<std::string> names;
  for (const WorkUnit& unit : plan.units) names.push_back(unit.name);
  return names;
}

// Every source tensor is copied or replaced once; every output tensor is in one unit.
void ExpectEveryTensorHasOnePlace(const Plan& plan) {
  std::multiset<std::string> sources;
  std::multiset<std::string> outputs;
  for (const WorkUnit& unit : plan.units) {
    outputs.insert(unit.tensors.begin(), unit.tensors.end());
    sources.insert(unit.copies.begin(), unit.copies.end());
    for (int index : unit.modules) {
      EXPECT_TRUE(plan.modules[index].is_quantized());
      sources.insert(plan.modules[index].source.name);
    }
  }
  std::multiset<std::string> in_source;
  for (const CheckpointTensor& tensor : plan.source->tensors()) in_source.insert(tensor.spec.name);
  std::multiset<std::string> in_layout;
  for (const PlacedTensor& tensor : plan.layout.tensors()) in_layout.insert(tensor.spec.name);
  EXPECT_EQ(sources, in_source);
  EXPECT_EQ(outputs, in_layout);
}

TEST_F(PlanTest, IntPreset_GptqOnEveryLinearButTheHead) {
  const Plan plan = MustPlan();
  EXPECT_TRUE(plan.calibrated);
  EXPECT_THAT(UnitNames(plan), ElementsAre("layer-00000", "layer-00001", "outside"));
  ASSERT_EQ(plan.modules.size(), 2u + 7 * kLayers);
  for (const PlannedModule& module : plan.modules) {
    const bool inside = module.module.layer >= 0;
    EXPECT_EQ(module.method, inside ? Method::kGptq : Method::kCopy) << module.module.name;
    EXPECT_FALSE(module.why.empty());
    EXPECT_EQ(plan.Find(module.module.name), &module);
  }
  EXPECT_EQ(plan.Find("model.absent"), nullptr);
  ExpectEveryTensorHasOnePlace(plan);
}

TEST_F(PlanTest, IntPreset_StoresEightCodesInAWord) {
  const Plan plan = MustPlan();
  std::map<std::string, Shape> stored;
  for (const TensorSpec& spec : plan.Find("model.layers.1.mlp.down_proj")->stored) {
    stored[spec.name] = spec.shape;
  }
  EXPECT_EQ(stored.at("model.layers.1.mlp.down_proj.weight_packed"), (Shape{kHidden, 256 / 8}));
  EXPECT_EQ(stored.at("model.layers.1.mlp.down_proj.weight_scale"), (Shape{kHidden, 256 / 128}));
}

TEST_F(PlanTest, DataFreePreset_NeedsNoDataAndJoinsLayers) {
  job_.recipe = "FP8_DYNAMIC";
  const Plan plan = MustPlan();
  EXPECT_FALSE(plan.calibrated);
  EXPECT_THAT(plan.calibration_reason, IsEmpty());
  EXPECT_THAT(UnitNames(plan), ElementsAre("layers-00000-00001", "outside"));
  EXPECT_EQ(plan.units[0].num_layers, kLayers);
  ExpectEveryTensorHasOnePlace(plan);
}

TEST_F(PlanTest, Config_KeepsItsFieldsAndGainsTheScheme) {
  nlohmann::json config = nlohmann::json::parse(MustPlan().config_json);
  EXPECT_EQ(config["quantization_config"]["quant_method"], "compressed-tensors");
  config.erase("quantization_config");
  EXPECT_EQ(config, config_);
}

TEST_F(PlanTest, TiedHeadThatIsTargeted_GetsItsOwnTensors) {
  config_["tie_word_embeddings"] = true;
  WriteModel(LlamaTensors(true));
  WriteRecipe("targets: [Linear], scheme: FP8_DYNAMIC");
  const Plan plan = MustPlan();
  EXPECT_TRUE(plan.unties_embeddings);
  EXPECT_EQ(plan.Find("lm_head")->source.name, "model.embed_tokens.weight");
  EXPECT_NE(plan.layout.Find("lm_head.weight"), nullptr);
  EXPECT_NE(plan.layout.Find("model.embed_tokens.weight"), nullptr);
  EXPECT_EQ(nlohmann::json::parse(plan.config_json)["tie_word_embeddings"], false);
}

TEST_F(PlanTest, TiedHeadThatIsNotTargeted_StaysTied) {
  config_["tie_word_embeddings"] = true;
  WriteModel(LlamaTensors(true));
  const Plan plan = MustPlan();
  EXPECT_FALSE(plan.unties_embeddings);
  EXPECT_EQ(nlohmann::json::parse(plan.config_json)["tie_word_embeddings"], true);
  ExpectEveryTensorHasOnePlace(plan);
}

TEST_F(PlanTest, UnknownFamily_DataFreeOnly) {
  config_["model_type"] = "unheard_of";
  WriteModel(LlamaTensors(false));
  ExpectRefused(absl::StatusCode::kUnimplemented, "unheard_of");
  job_.recipe = "FP8_DYNAMIC";
  const Plan plan = MustPlan();
  EXPECT_FALSE(plan.model.has_value());
  EXPECT_FALSE(plan.warnings.empty());
  EXPECT_TRUE(plan.Find("model.layers.0.mlp.up_proj")->is_quantized());
  ExpectEveryTensorHasOnePlace(plan);
}

TEST_F(PlanTest, NoModelOrNoRecipe_NotFound) {
  job_.recipe = (dir_ / "absent.yaml").string();
  ExpectRefused(absl::StatusCode::kNotFound, "absent.yaml");
  job_.recipe = "W4A16";
  job_.model = (dir_ / "absent").string();
  ExpectRefused(absl::StatusCode::kNotFound, "absent");
}

TEST_F(PlanTest, QuantisedSource_Unimplemented) {
  config_["quantization_config"] = {{"quant_method", "compressed-tensors"}};
  WriteModel(LlamaTensors(false));
  ExpectRefused(absl::StatusCode::kUnimplemented, "already quantised");
}

TEST_F(PlanTest, MissingTensor_InvalidArgumentNamingIt) {
  std::vector<TensorSpec> tensors = LlamaTensors(false);
  std::erase_if(tensors, [](const TensorSpec& spec) {
    return spec.name == "model.layers.1.self_attn.k_proj.weight";
  });
  WriteModel(tensors);
  ExpectRefused(absl::StatusCode::kInvalidArgument, "model.layers.1.self_attn.k_proj");
}

TEST_F(PlanTest, WeightThatIsNoFloat_InvalidArgumentNamingIt) {
  std::vector<TensorSpec> tensors = LlamaTensors(false);
  for (TensorSpec& spec : tensors) {
    if (spec.name == "model.layers.0.mlp.up_proj.weight") spec.dtype = DType::kI8;
  }
  WriteModel(tensors);
  ExpectRefused(absl::StatusCode::kInvalidArgument, "model.layers.0.mlp.up_proj.weight");
}

TEST_F(PlanTest, TargetThatMatchesNothing_InvalidArgument) {
  WriteRecipe("targets: ['re:.*experts.*'], scheme: FP8_DYNAMIC");
  ExpectRefused(absl::StatusCode::kInvalidArgument, "experts");
}

TEST_F(PlanTest, Estimate_MemoryAddsUp) {
  const Plan plan = MustPlan();
  const CalibrationExtent extent{10, 1001, 200};
  for (int world_size : {1, 2, 3}) {
    const Ranks ranks{world_size, 2};
    const Estimate free = EstimatePlan(plan, extent, ranks, std::nullopt);
    const int64_t share = (1001 + world_size - 1) / world_size;
    EXPECT_EQ(free.activation_bytes, share * kHidden * 2);
    EXPECT_EQ(free.peak_memory_bytes, free.min_memory_bytes + free.activation_bytes);
    EXPECT_EQ(free.spilled_bytes, 0);
    const Estimate ample = EstimatePlan(plan, extent, ranks, free.peak_memory_bytes);
    EXPECT_EQ(ample.spilled_bytes, 0);
    const int64_t budget = free.min_memory_bytes + 1000;
    const Estimate tight = EstimatePlan(plan, extent, ranks, budget);
    EXPECT_EQ(tight.peak_memory_bytes, budget);
    EXPECT_EQ(tight.spilled_bytes, free.activation_bytes - 1000);
    const Estimate none = EstimatePlan(plan, extent, ranks, 1);
    EXPECT_EQ(none.peak_memory_bytes, free.min_memory_bytes);
    EXPECT_EQ(none.spilled_bytes, free.activation_bytes);
  }
}

TEST_F(PlanTest, Estimate_DeviceTakesActivationsFirst) {
  job_.device = "cuda";
  const Plan plan = MustPlan();
  EXPECT_TRUE(plan.on_device);
  const CalibrationExtent extent{10, 1001, 200};
  const Ranks ranks{1, 2};
  const Estimate free = EstimatePlan(plan, extent, ranks, std::nullopt);
  EXPECT_GT(free.device_memory_bytes, 0);
  EXPECT_EQ(free.device_activation_bytes, free.activation_bytes);
  EXPECT_EQ(free.peak_memory_bytes, free.min_memory_bytes);
  const int64_t device = free.device_memory_bytes + 1000;
  const int64_t host = free.min_memory_bytes + 500;
  const Estimate tight = EstimatePlan(plan, extent, ranks, host, device);
  EXPECT_EQ(tight.device_activation_bytes, 1000);
  EXPECT_EQ(tight.peak_memory_bytes, host);
  EXPECT_EQ(tight.spilled_bytes, free.activation_bytes - 1500);
  EXPECT_TRUE(CheckResources(job_, tight, {}).ok());
  const Estimate small =
      EstimatePlan(plan, extent, ranks, std::nullopt, free.device_memory_bytes - 1);
  EXPECT_EQ(small.device_activation_bytes, 0);
  EXPECT_EQ(CheckResources(job_, small, {}).code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(PlanTest, Estimate_PacksInFlightTakeAtMostHalfOfTheRoom) {
  job_.device = "cuda";
  const Plan plan = MustPlan();
  const CalibrationExtent extent{1000, 1'000'000, 1000};
  const auto with_room = [&](int64_t room) {
    const int64_t beside = EstimatePlan(plan, extent, {1, 2}, std::nullopt).device_memory_bytes;
    return EstimatePlan(plan, extent, {1, 2}, std::nullopt, beside + room);
  };
  const int64_t pack = with_room(0).device_pack_bytes;
  ASSERT_GT(with_room(0).activation_bytes, 40 * pack);
  for (const int64_t packs : {0, 1, 3, 4, 9, 40}) {
    const Estimate estimate = with_room(packs * pack);
    const int64_t window = estimate.device_packs_in_flight - 1;
    EXPECT_EQ(window, std::min<int64_t>(packs / 2, 7)) << packs;
    EXPECT_EQ(estimate.device_activation_bytes, (packs - window) * pack) << packs;
  }
  EXPECT_EQ(with_room(with_room(0).activation_bytes).device_packs_in_flight, 1);
}

TEST_F(PlanTest, Estimate_WorkIsLinearInTokens) {
  const Plan plan = MustPlan();
  const auto flops = [&](int64_t tokens) {
    return EstimatePlan(plan, {1, tokens, tokens}, {1, 1}, std::nullopt).matrix_product_flops;
  };
  EXPECT_NEAR(flops(3000) - flops(2000), flops(2000) - flops(1000), 1.0);
  // At least two forward passes through the linears of every layer.
  double weights = 0;
  for (const PlannedModule& module : plan.modules) {
    if (module.module.layer >= 0) weights += static_cast<double>(NumElements(module.source.shape));
  }
  EXPECT_GE(flops(2000) - flops(1000), 1000 * 2 * 2 * weights);
}

TEST_F(PlanTest, Estimate_OutputBytesAreHeadersAndTensors) {
  const Plan plan = MustPlan();
  int64_t bytes = 0;
  for (const PlacedTensor& tensor : plan.layout.tensors()) bytes += tensor.spec.num_bytes();
  for (const ShardLayout& shard : plan.layout.shards()) {
    bytes += static_cast<int64_t>(shard.header.size());
  }
  EXPECT_EQ(EstimatePlan(plan, ExtentFromFlags(job_), {}, std::nullopt).output_bytes, bytes);
}

TEST_F(PlanTest, Estimate_DataFreeHasNoActivations) {
  job_.recipe = "FP8_DYNAMIC";
  const Estimate estimate = EstimatePlan(MustPlan(), ExtentFromFlags(job_), {}, std::nullopt);
  EXPECT_EQ(estimate.activation_bytes, 0);
  EXPECT_EQ(estimate.matrix_product_flops, 0);
}

TEST_F(PlanTest, CheckResources_RefusesWhatIsTooSmall) {
  const Plan plan = MustPlan();
  Estimate estimate = EstimatePlan(plan, {1, 100, 100}, {}, std::nullopt);
  EXPECT_TRUE(CheckResources(job_, estimate, {}).ok());
  job_.memory_budget_bytes = estimate.peak_memory_bytes - 1;
  EXPECT_EQ(CheckResources(job_, estimate, {}).code(), absl::StatusCode::kResourceExhausted);
  job_.memory_budget_bytes = estimate.peak_memory_bytes;
  EXPECT_TRUE(CheckResources(job_, estimate, {}).ok());
  job_.memory_budget_bytes.reset();
  EXPECT_EQ(CheckResources(job_, estimate, {1 << 20, 1}).code(),
            absl::StatusCode::kResourceExhausted);
  estimate.output_bytes = int64_t{1} << 60;
  const absl::Status disk = CheckResources(job_, estimate, {});
  EXPECT_EQ(disk.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(disk.message()), HasSubstr("is missing"));
}

using Fingerprint = std::map<std::string, std::string>;

std::vector<std::string> Differences(const Fingerprint& a, const Fingerprint& b) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : a) {
    if (b.at(key) != value) keys.push_back(key);
  }
  return keys;
}

TEST_F(PlanTest, Fingerprint_ChangesExactlyWithWhatFixesTheOutput) {
  const Plan plan = MustPlan();
  const Fingerprint before = JobFingerprint(job_, plan, "hash");
  EXPECT_THAT(Differences(before, JobFingerprint(job_, MustPlan(), "hash")), IsEmpty());
  EXPECT_THAT(Differences(before, JobFingerprint(job_, plan, "other")), ElementsAre("calibration"));
  Job job = job_;
  job.output = "elsewhere";
  job.memory_budget_bytes = 1;
  job.work_dir = "w";
  EXPECT_THAT(Differences(before, JobFingerprint(job, plan, "hash")), IsEmpty());
  job = job_;
  job.quotient_rounding = QuotientRounding::kFloat32;
  EXPECT_THAT(Differences(before, JobFingerprint(job, plan, "hash")),
              ElementsAre("quotient_rounding"));
}

TEST_F(PlanTest, FingerprintOfOtherComputeDType_Differs) {
  job_.compute_dtype = ComputeDType::kFloat32;
  const Fingerprint before = JobFingerprint(job_, MustPlan(), "hash");
  job_.compute_dtype = ComputeDType::kBFloat16;
  EXPECT_THAT(Differences(before, JobFingerprint(job_, MustPlan(), "hash")),
              ElementsAre("compute_dtype"));
}

TEST_F(PlanTest, AutoComputeDType_IsDecidedByThePlan) {
  EXPECT_NE(MustPlan().compute_dtype, ComputeDType::kAuto);
}

TEST_F(PlanTest, FingerprintOfOtherShardsOrSource_Differs) {
  const Fingerprint before = JobFingerprint(job_, MustPlan(), "hash");
  job_.max_shard_bytes = 100'000;
  EXPECT_THAT(Differences(before, JobFingerprint(job_, MustPlan(), "hash")), ElementsAre("layout"));
  job_.max_shard_bytes = Job().max_shard_bytes;
  config_["rms_norm_eps"] = 0.5;
  std::ofstream(dir_ / "model/config.json") << config_.dump();
  EXPECT_THAT(Differences(before, JobFingerprint(job_, MustPlan(), "hash")), ElementsAre("source"));
}

TEST_F(PlanTest, Table_NamesEveryModule) {
  const Plan plan = MustPlan();
  const std::string table = ToTable(plan, EstimatePlan(plan, ExtentFromFlags(job_), {}, {}));
  for (const PlannedModule& module : plan.modules)
    EXPECT_THAT(table, HasSubstr(module.module.name));
  EXPECT_THAT(table, HasSubstr(plan.calibration_reason));
}

TEST_F(PlanTest, Json_BytesAddUpToTheOutput) {
  const Plan plan = MustPlan();
  const Estimate estimate = EstimatePlan(plan, ExtentFromFlags(job_), {}, {});
  const nlohmann::json json = ToJson(plan, estimate);
  ASSERT_EQ(json["modules"].size(), plan.modules.size());
  int64_t bytes = 0;
  for (const nlohmann::json& module : json["modules"]) {
    if (module["method"] != "copy") bytes += module["bytes_after"].get<int64_t>();
  }
  for (const std::string name : json["copied_tensors"]) {
    bytes += plan.source->Find(name)->spec.num_bytes();
  }
  EXPECT_EQ(bytes, plan.layout.total_bytes());
  EXPECT_EQ(json["output_bytes"], estimate.output_bytes);
  EXPECT_EQ(json["calibrated"], true);
}

// One modifier of a recipe in YAML's flow form.
std::string RecipeOf(const std::vector<std::string>& modifiers) {
  std::string text = "a_stage:\n  a_modifiers:\n";
  for (const std::string& modifier : modifiers) text += "    " + modifier + "\n";
  return text;
}

const char* const kGptq = "GPTQModifier: {targets: [Linear], ignore: [lm_head], scheme: W8A8}";
const char* const kRtn =
    "QuantizationModifier: {targets: [Linear], ignore: [lm_head], scheme: W8A8}";

TEST_F(PlanTest, SmoothQuantBeforeGptq_SharesOneCapture) {
  std::ofstream(dir_ / "r.yaml") << RecipeOf({"SmoothQuantModifier: {}", kGptq});
  job_.recipe = (dir_ / "r.yaml").string();
  const auto plan = MakePlan(job_);
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(plan->transforms.size(), 2u * kLayers);
  const WorkUnit& unit = plan->units[0];
  const std::string query = "model.layers.0.self_attn.q_proj";
  const Needs needs = NeedsOfUnit(*plan, unit);
  EXPECT_TRUE(needs.at(query).hessian);
  EXPECT_TRUE(needs.at(query).channel_extrema);
  EXPECT_FALSE(needs.at("model.layers.0.mlp.down_proj").channel_extrema);
  const auto readers = StatisticsReaders(*plan, unit, query);
  EXPECT_THAT(readers.at("Hessian"), ElementsAre("GPTQModifier"));
  EXPECT_THAT(readers.at("channel extrema"), ElementsAre("SmoothQuantModifier"));
  EXPECT_THAT(unit.rewritten,
              testing::UnorderedElementsAre("model.layers.0.input_layernorm.weight",
                                            "model.layers.0.post_attention_layernorm.weight"));
  EXPECT_THAT(unit.copies, IsEmpty());
}

TEST_F(PlanTest, Propagation_TakesTheSourceUnlessTheFunctionChanges) {
  const std::string norm = "model.layers.0.input_layernorm.weight";
  const std::string down = "model.layers.0.mlp.down_proj.weight";
  for (const bool is_gptq : {false, true}) {
    std::ofstream(dir_ / "r.yaml") << RecipeOf({"SmoothQuantModifier: {}", is_gptq ? kGptq : kRtn});
    job_.recipe = (dir_ / "r.yaml").string();
    const auto plan = MakePlan(job_);
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_EQ(ChangesOutput(*plan, plan->units[0]), is_gptq);
    EXPECT_TRUE(PropagatesStored(*plan, plan->units[0], norm));
    EXPECT_EQ(PropagatesStored(*plan, plan->units[0], down), is_gptq);
  }
}

TEST_F(PlanTest, AwqWithStaticCache_CapturesScaledValuesAgain) {
  std::ofstream(dir_ / "r.yaml") << RecipeOf(
      {"AWQModifier: {}",
       "QuantizationModifier: {targets: [Linear], ignore: [lm_head], scheme: W4A16, "
       "kv_cache_scheme: {num_bits: 8, type: float, strategy: tensor, dynamic: false}}"});
  job_.recipe = (dir_ / "r.yaml").string();
  const auto plan = MakePlan(job_);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const Needs after = NeedsAfterTransforms(*plan, plan->units[0]);
  ASSERT_EQ(after.size(), 1u);
  EXPECT_EQ(after.begin()->first, AttentionTap("model.layers.0.self_attn", "v"));
  EXPECT_FALSE(NeedsOfUnit(*plan, plan->units[0]).contains(after.begin()->first));
}

TEST_F(PlanTest, AwqWithScaleOfTheTensor_IsRefused) {
  std::ofstream(dir_ / "r.yaml") << RecipeOf(
      {"AWQModifier: {}",
       "QuantizationModifier: {config_groups: {a: {targets: [Linear], weights: {num_bits: 8, "
       "strategy: tensor}}}, ignore: [lm_head]}"});
  job_.recipe = (dir_ / "r.yaml").string();
  const auto plan = MakePlan(job_);
  EXPECT_EQ(plan.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(plan.status().message()), HasSubstr("duo_scaling"));
}

}  // namespace
}  // namespace llmc
