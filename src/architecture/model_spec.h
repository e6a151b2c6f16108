// What config.json says about a decoder model: sizes, block options, names.
#ifndef LLMC_ARCHITECTURE_MODEL_SPEC_H_
#define LLMC_ARCHITECTURE_MODEL_SPEC_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "llmc/dtype.h"
#include "llmc/status.h"
#include "nlohmann/json_fwd.hpp"

namespace llmc {

enum class RopeType : uint8_t { kDefault, kLinear, kDynamic, kLlama3, kYarn, kLongrope };

// Rotary position embedding, old config fields already merged into the new ones.
struct RopeParameters {
  RopeType type = RopeType::kDefault;
  double theta = 10000.0;
  double factor =
      1.0;  // Always given for linear, dynamic, llama3; else max / original when absent.
  int64_t max_position_embeddings = 0;           // Tokens.
  int64_t original_max_position_embeddings = 0;  // Tokens; max_position_embeddings when absent.
  double low_freq_factor = 1.0;                  // llama3.
  double high_freq_factor = 4.0;                 // llama3.
  double beta_fast = 32.0;                       // yarn.
  double beta_slow = 1.0;                        // yarn.
  bool truncate = true;                          // yarn.
  std::optional<double> attention_factor;        // yarn, longrope: multiplies cos and sin.
  std::optional<double> mscale;                  // yarn.
  std::optional<double> mscale_all_dim;          // yarn.
  std::vector<double> short_factor;              // longrope: [head_dim / 2].
  std::vector<double> long_factor;               // longrope: [head_dim / 2].
};

// The function between gate and up.
enum class Activation : uint8_t { kSilu, kGeluTanh, kGelu, kRelu };

// One decoder-only model. Valid by construction: every size is positive and
// within the limits of ParseModelSpec, and the sizes agree with each other.
struct ModelSpec {
  std::string model_type;    // "llama", "mistral", "qwen2", "qwen3".
  std::string class_prefix;  // "Llama": LlamaRMSNorm, LlamaAttention, ...
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;  // Divides num_attention_heads.
  int64_t head_dim = 0;             // Even. q_proj has num_attention_heads * head_dim rows.
  double rms_norm_eps = 1e-6;
  Activation hidden_act = Activation::kSilu;
  std::string activation_class = "SiLUActivation";  // Class name of act_fn.
  bool qkv_bias = false;
  bool o_bias = false;
  bool mlp_bias = false;
  bool qk_norm = false;              // RMS norm over head_dim of q and k, before rope.
  bool tie_word_embeddings = false;  // The head multiplies by the embedding.
  RopeParameters rope;
  // Per layer: tokens that a query sees, itself included; 0 = all before it.
  std::vector<int64_t> sliding_window;  // [num_hidden_layers]
  std::optional<DType> dtype;           // `dtype` or `torch_dtype`, when given.

  // Full names of the modules outside the layers. head_name has a tensor of its
  // own only when !tie_word_embeddings.
  std::string embedding_name = "model.embed_tokens";
  std::string final_norm_name = "model.norm";
  std::string head_name = "lm_head";
  std::string layers_name = "model.layers";

  // "model.layers.3".
  std::string LayerName(int64_t layer) const;
};

// Reads the parsed config.json of a model. Understands both spellings of rope
// (`rope_parameters`; `rope_theta` + `rope_scaling`) and the defaults of the
// transformers classes. kInvalidArgument naming the field when one is missing,
// contradicts another or is out of range (sizes are checked before anything is
// allocated from them); kUnimplemented, saying which families are known, when
// the model_type is not one of them.
absl::StatusOr<ModelSpec> ParseModelSpec(const nlohmann::json& config);

// Names of the families that ParseModelSpec knows: "llama", "mistral", ...
std::vector<std::string> KnownModelTypes();

}  // namespace llmc

#endif  // LLMC_ARCHITECTURE_MODEL_SPEC_H_
