#include "verify/verify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "checkpoint/checkpoint_writer.h"
#include "editable_checkpoint.h"
#include "llmc/float_formats.h"

namespace llmc {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Json = nlohmann::json;

constexpr char kDown[] = "model.layers.0.mlp.down_proj";

std::string Listed(const VerifyReport& report) {
  std::string text;
  for (const Problem& problem : report.problems)
    absl::StrAppend(&text, ProblemName(problem.code), " ", problem.subject, ": ", problem.text,
                    "\n");
  return text;
}

VerifyReport Verify(const std::filesystem::path& dir, bool against = true,
                    const VerifyOptions& options = {}) {
  const absl::StatusOr<VerifyReport> report =
      against ? VerifyCheckpoint(dir, TestData("dense"), options)
              : VerifyCheckpoint(dir, std::nullopt, options);
  EXPECT_TRUE(report.ok()) << report.status();
  return report.ok() ? *report : VerifyReport{};
}

testing::Matcher<const VerifyReport&> Finds(ProblemCode code, const std::string& subject) {
  return Field("problems", &VerifyReport::problems,
               Contains(AllOf(Field("code", &Problem::code, code),
                              Field("subject", &Problem::subject, HasSubstr(subject)))));
}

// What the reference tool wrote is sound, with the source and without.
class ReferenceOutput : public ::testing::TestWithParam<const char*> {};

TEST_P(ReferenceOutput, AgainstItsSource_IsSound) {
  const EditableCheckpoint checkpoint(GetParam());
  const VerifyReport report = Verify(checkpoint.dir());
  EXPECT_TRUE(report.ok()) << Listed(report);
  EXPECT_EQ(report.num_quantized_modules, 7);
  EXPECT_EQ(report.num_weights_compared, absl::StrContains(GetParam(), "spin") ? 0 : 7);
  EXPECT_LT(report.largest_relative_error, 0.3);
}

TEST_P(ReferenceOutput, Alone_IsSound) {
  const EditableCheckpoint checkpoint(GetParam());
  const VerifyReport report = Verify(checkpoint.dir(), /*against=*/false);
  EXPECT_TRUE(report.ok()) << Listed(report);
}

TEST_P(ReferenceOutput, AnyQuantisedTensorGone_IsFound) {
  const EditableCheckpoint whole(GetParam());
  for (const auto& [name, unused] : whole.tensors) {
    if (!absl::StartsWith(name, kDown)) continue;
    EditableCheckpoint checkpoint(GetParam());
    checkpoint.tensors.erase(name);
    checkpoint.Save();
    EXPECT_THAT(Verify(checkpoint.dir()), Finds(ProblemCode::kMissingTensor, name));
    EXPECT_THAT(Verify(checkpoint.dir(), false), Finds(ProblemCode::kMissingTensor, kDown));
  }
}

TEST_P(ReferenceOutput, CodesNeverWritten_IsFound) {
  EditableCheckpoint checkpoint(GetParam());
  for (auto& [name, tensor] : checkpoint.tensors) {
    const bool is_codes =
        absl::EndsWith(name, ".weight_packed") ||
        (absl::EndsWith(name, "_proj.weight") && !IsDenseFloat(tensor.spec.dtype));
    if (is_codes && absl::StartsWith(name, kDown))
      std::fill(tensor.bytes.begin(), tensor.bytes.end(), '\0');
  }
  checkpoint.Save();
  EXPECT_THAT(Verify(checkpoint.dir(), false), Finds(ProblemCode::kBadValues, kDown));
  EXPECT_THAT(Verify(checkpoint.dir()), Finds(ProblemCode::kBadValues, kDown));
}

INSTANTIATE_TEST_SUITE_P(Schemes, ReferenceOutput,
                         ::testing::Values("W4A16", "W4A16_ASYM", "W3A16", "W8A8", "FP8",
                                           "FP8_BLOCK", "NVFP4", "MXFP4A16", "MXFP8A16",
                                           "FP8_DYNAMIC_kv_head", "mixed_W4A16_FP8",
                                           "spinquant_R1R2_W4A16"));

// Schemes whose down_proj has more than one scale.
class ScaledOutput : public ::testing::TestWithParam<const char*> {};

TEST_P(ScaledOutput, ScalesInAnotherOrder_DoNotFit) {
  EditableCheckpoint checkpoint(GetParam());
  EditableCheckpoint::Tensor& scale = checkpoint.tensors.at(absl::StrCat(kDown, ".weight_scale"));
  const size_t row = scale.bytes.size() / static_cast<size_t>(scale.spec.shape[0]);
  std::rotate(scale.bytes.begin(), scale.bytes.begin() + static_cast<int64_t>(row * 5),
              scale.bytes.end());
  checkpoint.Save();
  EXPECT_THAT(Verify(checkpoint.dir()), Finds(ProblemCode::kScaleDoesNotFit, kDown));
}

// The sixth: the fourth row of this weight is zero and fits any scale.
TEST_P(ScaledOutput, OneScaleDoubled_DoesNotFit) {
  EditableCheckpoint checkpoint(GetParam());
  EditableCheckpoint::Tensor& scale = checkpoint.tensors.at(absl::StrCat(kDown, ".weight_scale"));
  if (scale.spec.dtype == DType::kBF16) {
    uint16_t bits;
    std::memcpy(&bits, scale.bytes.data() + 10, 2);
    bits = FloatToBf16(2 * Bf16ToFloat(bits));
    std::memcpy(scale.bytes.data() + 10, &bits, 2);
  } else if (scale.spec.dtype == DType::kU8) {
    ++scale.bytes[5];
  } else {
    scale.bytes[5] =
        static_cast<char>(FloatToE4m3(0.5f * E4m3ToFloat(static_cast<uint8_t>(scale.bytes[5]))));
  }
  checkpoint.Save();
  EXPECT_THAT(Verify(checkpoint.dir()), Finds(ProblemCode::kScaleDoesNotFit, kDown));
}

TEST_P(ScaledOutput, ImpossibleScale_IsFound) {
  const EditableCheckpoint whole(GetParam());
  const TensorSpec spec = whole.tensors.at(absl::StrCat(kDown, ".weight_scale")).spec;
  std::vector<std::string> values = {"\xff"};  // E8M0 and E4M3 NaN.
  if (spec.dtype == DType::kF8E4M3) values.push_back(std::string(1, '\0'));
  if (spec.dtype == DType::kBF16)
    values = {std::string(2, '\0'), "\xc0\x7f", "\x80\x7f", "\x80\xbf"};
  for (const std::string& value : values) {
    EditableCheckpoint checkpoint(GetParam());
    std::string& bytes = checkpoint.tensors.at(spec.name).bytes;
    bytes.replace(bytes.size() - value.size(), value.size(), value);
    checkpoint.Save();
    EXPECT_THAT(Verify(checkpoint.dir(), false), Finds(ProblemCode::kBadScale, spec.name));
  }
}

INSTANTIATE_TEST_SUITE_P(Schemes, ScaledOutput,
                         ::testing::Values("W4A16", "W4A16_ASYM", "W8A8", "NVFP4", "MXFP4A16",
                                           "MXFP8A16", "FP8_DYNAMIC_kv_head"));

TEST(Verify, OtherScales_AreChecked) {
  for (const auto& [scheme, name] :
       std::map<std::string, std::string>{{"FP8", "down_proj.input_scale"},
                                          {"NVFP4", "down_proj.weight_global_scale"},
                                          {"NVFP4", "down_proj.input_global_scale"},
                                          {"FP8_DYNAMIC_kv_head", "self_attn.k_scale"}}) {
    EditableCheckpoint checkpoint(scheme);
    for (auto& [tensor_name, tensor] : checkpoint.tensors)
      if (absl::EndsWith(tensor_name, name))
        std::fill(tensor.bytes.begin(), tensor.bytes.end(), '\0');
    checkpoint.Save();
    EXPECT_THAT(Verify(checkpoint.dir()), Finds(ProblemCode::kBadScale, name));
  }
}

TEST(Verify, KvScalesGone_AreMissing) {
  EditableCheckpoint checkpoint("FP8_DYNAMIC_kv_head");
  checkpoint.tensors.erase("model.layers.0.self_attn.v_scale");
  checkpoint.Save();
  EXPECT_THAT(Verify(checkpoint.dir(), false),
              Finds(ProblemCode::kMissingTensor, "self_attn.v_scale"));
}

TEST(Verify, WholeModuleGone_IsFoundWithoutTheSource) {
  EditableCheckpoint checkpoint("W4A16");
  std::erase_if(checkpoint.tensors,
                [](const auto& entry) { return absl::StrContains(entry.first, "q_proj"); });
  checkpoint.tensors.erase("model.norm.weight");
  checkpoint.Save();
  const VerifyReport report = Verify(checkpoint.dir(), false);
  EXPECT_THAT(report, Finds(ProblemCode::kMissingTensor, "self_attn.q_proj"));
  EXPECT_THAT(report, Finds(ProblemCode::kMissingTensor, "model.norm.weight"));
}

TEST(Verify, StrayTensors_AreExtra) {
  EditableCheckpoint checkpoint("W4A16");
  checkpoint.Add("model.layers.7.x.weight_scale", DType::kBF16, {1}, "\x80\x3f");
  checkpoint.Add("lm_head.weight_zero_point", DType::kI8, {1}, "\x01");
  checkpoint.Add("model.layers.0.bonus", DType::kF32, {1}, std::string(4, '\0'));
  checkpoint.Save();
  const VerifyReport alone = Verify(checkpoint.dir(), false);
  EXPECT_THAT(alone, Finds(ProblemCode::kExtraTensor, "lm_head.weight_zero_point"));
  EXPECT_THAT(alone, Finds(ProblemCode::kMissingTensor, "model.layers.7.x"));
  EXPECT_THAT(Verify(checkpoint.dir()), Finds(ProblemCode::kExtraTensor, "model.layers.0.bonus"));
}

TEST(Verify, OtherDtype_IsFound) {
  EditableCheckpoint checkpoint("W4A16");
  const std::string name = absl::StrCat(kDown, ".weight_scale");
  checkpoint.tensors.at(name).spec.dtype = DType::kF16;
  checkpoint.Save();
  EXPECT_THAT(Verify(checkpoint.dir()), Finds(ProblemCode::kWrongDtype, name));
}

TEST(Verify, OtherShape_IsFound) {
  EditableCheckpoint checkpoint("W4A16");
  const std::string name = absl::StrCat(kDown, ".weight_scale");
  checkpoint.tensors.at(name).spec.shape = {1, 128};
  checkpoint.Save();
  EXPECT_THAT(Verify(checkpoint.dir()), Finds(ProblemCode::kWrongShape, name));
  EXPECT_THAT(Verify(checkpoint.dir(), false), Finds(ProblemCode::kWrongShape, name));
}

TEST(Verify, WrongWeightShape_IsFound) {
  EditableCheckpoint checkpoint("W4A16");
  const std::string name = absl::StrCat(kDown, ".weight_shape");
  checkpoint.tensors.at(name).bytes[0] = 1;
  checkpoint.Save();
  EXPECT_THAT(Verify(checkpoint.dir()), Finds(ProblemCode::kWeightShape, name));
}

TEST(Verify, Fp8NanCode_IsFound) {
  EditableCheckpoint checkpoint("FP8_BLOCK");
  checkpoint.tensors.at(absl::StrCat(kDown, ".weight")).bytes[1000] = '\x7f';
  checkpoint.Save();
  EXPECT_THAT(Verify(checkpoint.dir(), false), Finds(ProblemCode::kBadValues, kDown));
}

TEST(Verify, CodesOfAnotherModule_AreTooFarFromTheSource) {
  EditableCheckpoint checkpoint("W4A16");
  std::swap(checkpoint.tensors.at("model.layers.0.mlp.gate_proj.weight_packed").bytes,
            checkpoint.tensors.at("model.layers.0.mlp.up_proj.weight_packed").bytes);
  checkpoint.Save();
  EXPECT_THAT(Verify(checkpoint.dir()), Finds(ProblemCode::kScaleDoesNotFit, "gate_proj"));
}

TEST(Verify, UntouchedTensorChanged_IsFound) {
  EditableCheckpoint checkpoint("W4A16");
  checkpoint.tensors.at("model.embed_tokens.weight").bytes[77] ^= 1;
  checkpoint.Save();
  EXPECT_THAT(Verify(checkpoint.dir()),
              Finds(ProblemCode::kUntouchedChanged, "model.embed_tokens.weight"));
  EXPECT_TRUE(Verify(checkpoint.dir(), true, {.weights_transformed = true}).ok());
}

TEST(Verify, NanInADenseTensor_IsFound) {
  EditableCheckpoint checkpoint("W4A16");
  checkpoint.tensors.at("model.norm.weight").bytes.replace(0, 2, "\xc0\x7f");
  checkpoint.Save();
  EXPECT_THAT(Verify(checkpoint.dir(), false), Finds(ProblemCode::kBadValues, "model.norm.weight"));
}

TEST(Verify, IntegersBeyondTheirBits_AreFound) {
  EditableCheckpoint checkpoint("W8A8");
  checkpoint.config["quantization_config"]["config_groups"]["group_0"]["weights"]["num_bits"] = 4;
  checkpoint.Save();
  EXPECT_THAT(Verify(checkpoint.dir(), false), Finds(ProblemCode::kBadValues, "down_proj.weight"));
}

TEST(Verify, ZeroPointBeyondItsBits_IsFound) {
  EditableCheckpoint checkpoint("W8A8");
  Json& weights = checkpoint.config["quantization_config"]["config_groups"]["group_0"]["weights"];
  weights["num_bits"] = 4;
  weights["symmetric"] = false;
  weights["zp_dtype"] = "torch.int8";
  const std::string name = absl::StrCat(kDown, ".weight_zero_point");
  checkpoint.Add(name, DType::kI8, {128, 1}, std::string(127, '\x07') + '\x08');
  checkpoint.Save();
  EXPECT_THAT(Verify(checkpoint.dir(), false), Finds(ProblemCode::kBadZeroPoint, name));
}

// int3, channel, one row of 10 columns: 30 of 32 bits are used.
Json TinyConfig() {
  return Json::parse(R"({"quantization_config": {"quant_method": "compressed-tensors",
    "format": "pack-quantized", "quantization_status": "compressed", "ignore": [],
    "config_groups": {"group_0": {"targets": ["Linear"], "format": "pack-quantized",
      "weights": {"num_bits": 3, "type": "int", "symmetric": false, "strategy": "channel"}}}}})");
}

TEST(Verify, PaddingBits_MustBeZero) {
  for (const bool in_zero_point : {false, true}) {
    const auto checkpoint = EditableCheckpoint::Make(TinyConfig());
    checkpoint->Add("m.weight_packed", DType::kI32, {1, 1},
                    std::string(in_zero_point ? "\x77\x33\x11\x00" : "\x77\x33\x11\x80", 4));
    checkpoint->Add("m.weight_scale", DType::kBF16, {1, 1}, "\x80\x3f");
    checkpoint->Add("m.weight_shape", DType::kI64, {2},
                    std::string("\x01\0\0\0\0\0\0\0\x0a\0\0\0\0\0\0\0", 16));
    checkpoint->Add("m.weight_zero_point", DType::kI32, {1, 1},
                    std::string(in_zero_point ? "\x0b\0\0\0" : "\x03\0\0\0", 4));
    checkpoint->Save();
    EXPECT_THAT(Verify(checkpoint->dir(), false),
                Finds(ProblemCode::kPaddingBits,
                      in_zero_point ? "m.weight_zero_point" : "m.weight_packed"));
  }
}

TEST(Verify, TieFlag_MustFitTheHead) {
  EditableCheckpoint checkpoint("W4A16");
  checkpoint.config["tie_word_embeddings"] = true;
  checkpoint.Save();
  EXPECT_THAT(Verify(checkpoint.dir(), false), Finds(ProblemCode::kTieFlag, "lm_head"));
  checkpoint.tensors["lm_head.weight"].bytes =
      checkpoint.tensors["model.embed_tokens.weight"].bytes;
  checkpoint.Save();
  EXPECT_TRUE(Verify(checkpoint.dir(), false).ok());
  checkpoint.config["tie_word_embeddings"] = false;
  checkpoint.tensors.erase("lm_head.weight");
  checkpoint.Save();
  EXPECT_THAT(Verify(checkpoint.dir(), false), Finds(ProblemCode::kTieFlag, "lm_head"));
}

TEST(Verify, WrongConfig_IsFound) {
  for (const auto& [key, value] : std::map<std::string, Json>{
           {"quantization_status", "frozen"}, {"quant_method", "gptq"}, {"config_groups", 3}}) {
    EditableCheckpoint checkpoint("W4A16");
    checkpoint.config["quantization_config"][key] = value;
    checkpoint.Save();
    EXPECT_THAT(Verify(checkpoint.dir(), false),
                Finds(ProblemCode::kConfigWrong, "quantization_config"));
  }
  EditableCheckpoint checkpoint("W4A16");
  checkpoint.config["rms_norm_eps"] = 1e-5;
  checkpoint.Save();
  EXPECT_THAT(Verify(checkpoint.dir()), Finds(ProblemCode::kConfigWrong, "rms_norm_eps"));
}

TEST(Verify, NoQuantizationConfig_LeavesScalesExtra) {
  EditableCheckpoint checkpoint("W4A16");
  checkpoint.config.erase("quantization_config");
  checkpoint.Save();
  EXPECT_THAT(Verify(checkpoint.dir(), false),
              Finds(ProblemCode::kExtraTensor, absl::StrCat(kDown, ".weight_scale")));
}

TEST(Verify, MissingTokenizer_IsFound) {
  const EditableCheckpoint checkpoint("W4A16");
  std::filesystem::remove(checkpoint.dir() / "tokenizer.json");
  EXPECT_THAT(Verify(checkpoint.dir()), Finds(ProblemCode::kMissingFile, "tokenizer.json"));
  std::filesystem::remove(checkpoint.dir() / "tokenizer_config.json");
  EXPECT_THAT(Verify(checkpoint.dir(), false), Finds(ProblemCode::kMissingFile, "tokenizer"));
}

TEST(Verify, DamagedFiles_AreFindingsNotErrors) {
  const EditableCheckpoint checkpoint("W4A16");
  std::filesystem::resize_file(checkpoint.dir() / "model.safetensors", 20000);
  EXPECT_THAT(Verify(checkpoint.dir()), Finds(ProblemCode::kUnreadable, ""));
  std::filesystem::remove(checkpoint.dir() / "config.json");
  EXPECT_THAT(Verify(checkpoint.dir()), Finds(ProblemCode::kUnreadable, ""));
  EXPECT_EQ(VerifyCheckpoint(checkpoint.dir() / "none").status().code(),
            absl::StatusCode::kNotFound);
}

TEST(Verify, Index_IsChecked) {
  const EditableCheckpoint checkpoint("W4A16");
  const auto write_index = [&](int64_t total_size, const std::string& file) {
    Json index = {{"metadata", {{"total_size", total_size}}}, {"weight_map", Json::object()}};
    int64_t total = 0;
    for (const auto& [name, tensor] : checkpoint.tensors) {
      index["weight_map"][name] = file;
      total += tensor.spec.num_bytes();
    }
    if (total_size == 0) index["metadata"]["total_size"] = total;
    std::ofstream(checkpoint.dir() / "model.safetensors.index.json") << index.dump();
  };
  write_index(0, "model.safetensors");
  EXPECT_TRUE(Verify(checkpoint.dir()).ok());
  write_index(17, "model.safetensors");
  EXPECT_THAT(Verify(checkpoint.dir()), Finds(ProblemCode::kIndexWrong, "index.json"));
  write_index(0, "other.safetensors");
  EXPECT_THAT(Verify(checkpoint.dir()), Finds(ProblemCode::kIndexWrong, "index.json"));
}

// W4A16 as llmc writes it, with a manifest.
class ManifestTest : public ::testing::Test {
 protected:
  ManifestTest() {
    std::vector<TensorSpec> specs;
    for (const auto& [name, tensor] : source_.tensors) specs.push_back(tensor.spec);
    WriterOptions options;
    options.output_dir = output_;
    options.layout = *OutputLayout::Make(specs);
    const auto writer = CheckpointWriter::Create(options);
    EXPECT_TRUE(writer.ok());
    DoneUnit unit{"all", {}, {}, nullptr};
    for (const auto& [name, tensor] : source_.tensors) {
      EXPECT_TRUE((*writer)->Write(name, std::as_bytes(std::span<const char>(tensor.bytes))).ok());
      unit.tensors.push_back(name);
    }
    EXPECT_TRUE((*writer)->Sync().ok() && (*writer)->MarkDone(unit).ok());
    CommitContents contents;
    contents.config_json = source_.config.dump();
    contents.source_dir = source_.dir();
    contents.source_files = {"tokenizer.json"};
    EXPECT_TRUE((*writer)->Commit(contents).ok());
  }

  void FlipByte(const std::string& file, int64_t from_end) {
    std::fstream stream(output_ / file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(-from_end, std::ios::end);
    const char byte = static_cast<char>(stream.get() ^ 1);
    stream.seekp(-from_end, std::ios::end);
    stream.put(byte);
  }

  const EditableCheckpoint source_{"W4A16"};
  const std::filesystem::path output_ = source_.dir() / "out";
};

TEST_F(ManifestTest, OwnOutput_IsSound) {
  const VerifyReport report = Verify(output_, false);
  EXPECT_TRUE(report.ok()) << Listed(report);
  EXPECT_THAT(report.warnings, IsEmpty());
}

TEST_F(ManifestTest, AnyFlippedBit_IsFound) {
  FlipByte("model.safetensors", 1);
  const VerifyReport report = Verify(output_, false);
  EXPECT_THAT(report, Finds(ProblemCode::kHashDiffers, ""));
  FlipByte("model.safetensors", 1);
  FlipByte("tokenizer.json", 5);
  EXPECT_THAT(Verify(output_, false), Finds(ProblemCode::kHashDiffers, "tokenizer.json"));
}

TEST_F(ManifestTest, FileOfTheManifestGone_IsFound) {
  std::filesystem::remove(output_ / "tokenizer.json");
  EXPECT_THAT(Verify(output_, false), Finds(ProblemCode::kMissingFile, "tokenizer.json"));
}

TEST(Verify, ReportAsJson_HasCodesAndCounts) {
  EditableCheckpoint checkpoint("W4A16");
  checkpoint.tensors.erase("model.norm.weight");
  checkpoint.Save();
  const Json json = ToJson(Verify(checkpoint.dir()));
  EXPECT_EQ(json["ok"], false);
  EXPECT_EQ(json["problems"][0]["code"], "missing_tensor");
  EXPECT_EQ(json["problems"][0]["subject"], "model.norm.weight");
  EXPECT_EQ(json["num_weights_compared"], 7);
}

}  // namespace
}  // namespace llmc
