#include "architecture/model_spec.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "architecture/config_fields.h"
#include "architecture/family.h"
#include "architecture/rope_parameters.h"
#include "nlohmann/json.hpp"

namespace llmc {
namespace {

// Far above every published model, far below what would make sums overflow.
constexpr int64_t kMaxVocab = int64_t{1} << 24;
constexpr int64_t kMaxWidth = int64_t{1} << 20;
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxHeads = 1 << 14;
constexpr int64_t kMaxHeadDim = 1 << 12;
constexpr int64_t kMaxPositions = int64_t{1} << 40;

absl::Status UnknownFamily(absl::string_view name) {
  return absl::UnimplementedError(absl::StrCat(
      "config.json: model_type: \"", name.substr(0, 60), "\", expected one of ",
      absl::StrJoin(KnownModelTypes(), ", "),
      "; schemes that need no calibration data (FP8_DYNAMIC, FP8_BLOCK, W8A16 and others by "
      "rounding to nearest) work with every architecture"));
}

// A class that is not for causal language modelling has other ends.
absl::Status CheckArchitectures(const nlohmann::json& config) {
  const auto it = config.find("architectures");
  if (it == config.end() || !it->is_array() || it->empty()) return absl::OkStatus();
  for (const nlohmann::json& name : *it) {
    if (name.is_string() && absl::EndsWithIgnoreCase(name.get<std::string>(), "ForCausalLM")) {
      return absl::OkStatus();
    }
  }
  return absl::UnimplementedError(
      absl::StrCat("config.json: architectures: ", it->dump().substr(0, 80),
                   ", expected a ...ForCausalLM class"));
}

absl::StatusOr<const Family*> FamilyOf(const nlohmann::json& config) {
  ConfigFields fields(config, "config.json");
  const std::string model_type = fields.String("model_type", "");
  LLMC_RETURN_IF_ERROR(fields.status());
  if (model_type.empty()) {
    fields.Fail("model_type", "missing, expected a text such as \"llama\"");
    return fields.status();
  }
  const Family* family = FindFamily(model_type);
  if (family == nullptr) return UnknownFamily(model_type);
  LLMC_RETURN_IF_ERROR(CheckArchitectures(config));
  return family;
}

void ReadSizes(const Family& family, ConfigFields& fields, ModelSpec& spec) {
  spec.vocab_size = fields.RequiredInt("vocab_size", 1, kMaxVocab);
  spec.hidden_size = fields.RequiredInt("hidden_size", 1, kMaxWidth);
  spec.intermediate_size = fields.RequiredInt("intermediate_size", 1, kMaxWidth);
  spec.num_hidden_layers = fields.RequiredInt("num_hidden_layers", 1, kMaxLayers);
  spec.num_attention_heads = fields.RequiredInt("num_attention_heads", 1, kMaxHeads);
  const int64_t default_kv_heads = family.default_num_key_value_heads != 0 &&
                                           spec.num_attention_heads != 0 &&
                                           !fields.Has("num_key_value_heads")
                                       ? family.default_num_key_value_heads
                                       : spec.num_attention_heads;
  spec.num_key_value_heads = fields.Int("num_key_value_heads", default_kv_heads, 1, kMaxHeads);
  if (spec.num_attention_heads % spec.num_key_value_heads != 0) {
    fields.Fail("num_key_value_heads",
                absl::StrCat(spec.num_key_value_heads, ", expected a divisor of ",
                             "num_attention_heads, ", spec.num_attention_heads));
  }
}

void ReadHeadDim(const Family& family, ConfigFields& fields, ModelSpec& spec) {
  const bool derived = !fields.Has("head_dim") && family.default_head_dim == 0;
  if (derived && spec.hidden_size % spec.num_attention_heads != 0) {
    fields.Fail("hidden_size",
                absl::StrCat(spec.hidden_size, ", expected a multiple of ", "num_attention_heads, ",
                             spec.num_attention_heads, ", when head_dim is not given"));
  }
  const int64_t quotient = spec.hidden_size / spec.num_attention_heads;
  spec.head_dim =
      fields.Int("head_dim", family.default_head_dim != 0 ? family.default_head_dim : quotient, 1,
                 kMaxHeadDim);
  if (spec.head_dim % 2 != 0) {
    fields.Fail("head_dim", absl::StrCat(spec.head_dim, ", expected an even number"));
  }
  if (spec.head_dim * spec.num_attention_heads > kMaxWidth) {
    fields.Fail("head_dim", absl::StrCat(spec.head_dim, ", expected head_dim * ",
                                         "num_attention_heads <= ", kMaxWidth));
  }
}

bool HasBias(BiasRule rule, bool configured) {
  return rule == BiasRule::kAlways || (rule == BiasRule::kConfig && configured);
}

struct KnownActivation {
  absl::string_view name;
  Activation activation;
  absl::string_view class_name;
};
constexpr KnownActivation kActivations[] = {
    {"silu", Activation::kSilu, "SiLUActivation"},
    {"swish", Activation::kSilu, "SiLU"},
    {"gelu", Activation::kGelu, "GELUActivation"},
    {"gelu_new", Activation::kGeluTanh, "NewGELUActivation"},
    {"gelu_pytorch_tanh", Activation::kGeluTanh, "GELUTanh"},
    {"relu", Activation::kRelu, "ReLU"},
};

void ReadActivation(ConfigFields& fields, ModelSpec& spec) {
  const std::string name = fields.String("hidden_act", "silu");
  for (const KnownActivation& known : kActivations) {
    if (known.name != name) continue;
    spec.hidden_act = known.activation;
    spec.activation_class = std::string(known.class_name);
    return;
  }
  fields.Fail(
      absl::UnimplementedError(absl::StrCat("config.json: hidden_act: \"", name.substr(0, 40),
                                            "\", expected silu, gelu, gelu_pytorch_tanh or relu")));
}

void ReadOptions(const Family& family, ConfigFields& fields, ModelSpec& spec) {
  const bool attention_bias = fields.Bool("attention_bias", false);
  spec.qkv_bias = HasBias(family.qkv_bias, attention_bias);
  spec.o_bias = HasBias(family.o_bias, attention_bias);
  spec.mlp_bias = HasBias(family.mlp_bias, fields.Bool("mlp_bias", false));
  spec.qk_norm = family.qk_norm;
  spec.tie_word_embeddings = fields.Bool("tie_word_embeddings", false);
  spec.rms_norm_eps = fields.Positive("rms_norm_eps", 1e-6);
  ReadActivation(fields, spec);
}

// From `layer_types`, one text per layer.
void ReadLayerTypes(const nlohmann::json& types, int64_t window, ConfigFields& fields,
                    ModelSpec& spec) {
  if (!types.is_array() || static_cast<int64_t>(types.size()) != spec.num_hidden_layers) {
    fields.Fail("layer_types", absl::StrCat("expected a list of num_hidden_layers, ",
                                            spec.num_hidden_layers, ", texts"));
    return;
  }
  for (int64_t layer = 0; layer < spec.num_hidden_layers; ++layer) {
    const nlohmann::json& type = types[layer];
    if (type == "full_attention") continue;
    if (type != "sliding_attention") {
      fields.Fail("layer_types", absl::StrCat(type.dump().substr(0, 40), " at layer ", layer,
                                              ", expected full_attention or sliding_attention"));
      return;
    }
    if (window == 0) {
      fields.Fail("layer_types", absl::StrCat("sliding_attention at layer ", layer,
                                              " without a sliding_window in use"));
      return;
    }
    spec.sliding_window[layer] = window;
  }
}

void ReadSlidingWindows(const nlohmann::json& config, SlidingRule rule, ConfigFields& fields,
                        ModelSpec& spec) {
  spec.sliding_window.assign(spec.num_hidden_layers, 0);
  if (rule == SlidingRule::kNone) return;
  const bool given = config.contains("sliding_window");
  int64_t window = fields.Int("sliding_window", given ? 0 : 4096, 0, kMaxPositions);
  if (rule == SlidingRule::kAllLayers) {
    spec.sliding_window.assign(spec.num_hidden_layers, window);
    return;
  }
  if (!fields.Bool("use_sliding_window", false)) window = 0;
  if (fields.Has("layer_types")) {
    ReadLayerTypes(config.at("layer_types"), window, fields, spec);
    return;
  }
  const int64_t first = fields.Int("max_window_layers", 28, 0, kMaxPositions);
  for (int64_t layer = first; layer < spec.num_hidden_layers; ++layer) {
    spec.sliding_window[layer] = window;
  }
}

absl::Status ReadDType(ConfigFields& fields, ModelSpec& spec) {
  const std::string name = fields.String("dtype", fields.String("torch_dtype", "auto"));
  LLMC_RETURN_IF_ERROR(fields.status());
  if (name == "auto") return absl::OkStatus();
  const absl::StatusOr<DType> dtype = DTypeFromTorch(name);
  if (!dtype.ok()) return At("config.json: dtype", dtype.status());
  spec.dtype = *dtype;
  return absl::OkStatus();
}

}  // namespace

std::string ModelSpec::LayerName(int64_t layer) const {
  return absl::StrCat(layers_name, ".", layer);
}

std::vector<std::string> KnownModelTypes() {
  std::vector<std::string> names;
  for (const Family& family : Families()) names.emplace_back(family.model_type);
  return names;
}

absl::StatusOr<ModelSpec> ParseModelSpec(const nlohmann::json& config) {
  LLMC_ASSIGN_OR_RETURN(const Family* family, FamilyOf(config));
  ConfigFields fields(config, "config.json");
  ModelSpec spec;
  spec.model_type = std::string(family->model_type);
  spec.class_prefix = std::string(family->class_prefix);
  ReadSizes(*family, fields, spec);
  LLMC_RETURN_IF_ERROR(fields.status());
  ReadHeadDim(*family, fields, spec);
  ReadOptions(*family, fields, spec);
  ReadSlidingWindows(config, family->sliding, fields, spec);
  LLMC_RETURN_IF_ERROR(ReadDType(fields, spec));
  const int64_t max_positions = fields.Int(
      "max_position_embeddings", family->default_max_position_embeddings, 1, kMaxPositions);
  LLMC_RETURN_IF_ERROR(fields.status());
  LLMC_ASSIGN_OR_RETURN(spec.rope, ParseRopeParameters(config, spec.head_dim, max_positions));
  return spec;
}

}  // namespace llmc
