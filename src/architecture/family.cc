#include "architecture/family.h"

namespace llmc {
namespace {

constexpr absl::string_view kQkvInput = "self_attn.q_proj";
constexpr absl::string_view kOutputInput = "self_attn.o_proj";
constexpr absl::string_view kMlpInput = "mlp.gate_proj";
constexpr absl::string_view kDownInput = "mlp.down_proj";

// Pre-norm block with grouped-query attention and a gated MLP.
constexpr BlockModule kLlamaBlock[] = {
    {.path = "", .class_name = "*DecoderLayer"},
    {.path = "self_attn", .class_name = "*Attention"},
    {.path = "self_attn.q_proj",
     .class_name = "Linear",
     .role = Role::kQuery,
     .rows = Width::kQuery,
     .columns = Width::kHidden,
     .bias = BiasOf::kQkv,
     .input_group = kQkvInput},
    {.path = "self_attn.k_proj",
     .class_name = "Linear",
     .role = Role::kKey,
     .rows = Width::kKeyValue,
     .columns = Width::kHidden,
     .bias = BiasOf::kQkv,
     .input_group = kQkvInput},
    {.path = "self_attn.v_proj",
     .class_name = "Linear",
     .role = Role::kValue,
     .rows = Width::kKeyValue,
     .columns = Width::kHidden,
     .bias = BiasOf::kQkv,
     .input_group = kQkvInput},
    {.path = "self_attn.o_proj",
     .class_name = "Linear",
     .role = Role::kAttentionOutput,
     .rows = Width::kHidden,
     .columns = Width::kQuery,
     .bias = BiasOf::kAttentionOutput,
     .input_group = kOutputInput},
    {.path = "self_attn.q_norm",
     .class_name = "*RMSNorm",
     .role = Role::kQueryNorm,
     .rows = Width::kHeadDim,
     .only_with_qk_norm = true},
    {.path = "self_attn.k_norm",
     .class_name = "*RMSNorm",
     .role = Role::kKeyNorm,
     .rows = Width::kHeadDim,
     .only_with_qk_norm = true},
    {.path = "mlp", .class_name = "*MLP"},
    {.path = "mlp.gate_proj",
     .class_name = "Linear",
     .role = Role::kGate,
     .rows = Width::kIntermediate,
     .columns = Width::kHidden,
     .bias = BiasOf::kMlp,
     .input_group = kMlpInput},
    {.path = "mlp.up_proj",
     .class_name = "Linear",
     .role = Role::kUp,
     .rows = Width::kIntermediate,
     .columns = Width::kHidden,
     .bias = BiasOf::kMlp,
     .input_group = kMlpInput},
    {.path = "mlp.down_proj",
     .class_name = "Linear",
     .role = Role::kDown,
     .rows = Width::kHidden,
     .columns = Width::kIntermediate,
     .bias = BiasOf::kMlp,
     .input_group = kDownInput},
    {.path = "mlp.act_fn", .class_name = "@"},
    {.path = "input_layernorm",
     .class_name = "*RMSNorm",
     .role = Role::kInputNorm,
     .rows = Width::kHidden},
    {.path = "post_attention_layernorm",
     .class_name = "*RMSNorm",
     .role = Role::kMlpNorm,
     .rows = Width::kHidden},
};

constexpr Family kFamilies[] = {
    {.model_type = "llama",
     .class_prefix = "Llama",
     .block = kLlamaBlock,
     .qkv_bias = BiasRule::kConfig,
     .o_bias = BiasRule::kConfig,
     .mlp_bias = BiasRule::kConfig,
     .default_max_position_embeddings = 2048},
    {.model_type = "mistral",
     .class_prefix = "Mistral",
     .block = kLlamaBlock,
     .sliding = SlidingRule::kAllLayers,
     .default_num_key_value_heads = 8,
     .default_max_position_embeddings = 131072},
    {.model_type = "qwen2",
     .class_prefix = "Qwen2",
     .block = kLlamaBlock,
     .qkv_bias = BiasRule::kAlways,
     .sliding = SlidingRule::kLayerTypes,
     .default_num_key_value_heads = 32,
     .default_max_position_embeddings = 32768},
    {.model_type = "qwen3",
     .class_prefix = "Qwen3",
     .block = kLlamaBlock,
     .qkv_bias = BiasRule::kConfig,
     .o_bias = BiasRule::kConfig,
     .qk_norm = true,
     .sliding = SlidingRule::kLayerTypes,
     .default_num_key_value_heads = 32,
     .default_head_dim = 128,
     .default_max_position_embeddings = 32768},
};

}  // namespace

std::span<const Family> Families() { return kFamilies; }

const Family* FindFamily(absl::string_view model_type) {
  for (const Family& family : kFamilies) {
    if (family.model_type == model_type) return &family;
  }
  return nullptr;
}

}  // namespace llmc
