// The modules of the reference checkpoints in testdata: one layer, hidden 128.
#ifndef LLMC_TESTS_RECIPE_TINY_LLAMA_H_
#define LLMC_TESTS_RECIPE_TINY_LLAMA_H_

#include <string>
#include <vector>

#include "recipe/resolve.h"

namespace llmc {

// In module order, containers included.
inline std::vector<ModuleRef> TinyLlama() {
  return {{"", "LlamaForCausalLM", {}},
          {"model", "LlamaModel", {}},
          {"model.embed_tokens", "Embedding", {32, 128}},
          {"model.layers", "ModuleList", {}},
          {"model.layers.0", "LlamaDecoderLayer", {}},
          {"model.layers.0.self_attn", "LlamaAttention", {}},
          {"model.layers.0.self_attn.q_proj", "Linear", {128, 128}},
          {"model.layers.0.self_attn.k_proj", "Linear", {32, 128}},
          {"model.layers.0.self_attn.v_proj", "Linear", {32, 128}},
          {"model.layers.0.self_attn.o_proj", "Linear", {128, 128}},
          {"model.layers.0.mlp", "LlamaMLP", {}},
          {"model.layers.0.mlp.gate_proj", "Linear", {128, 128}},
          {"model.layers.0.mlp.up_proj", "Linear", {128, 128}},
          {"model.layers.0.mlp.down_proj", "Linear", {128, 128}},
          {"model.layers.0.mlp.act_fn", "SiLUActivation", {}},
          {"model.layers.0.input_layernorm", "LlamaRMSNorm", {128}},
          {"model.layers.0.post_attention_layernorm", "LlamaRMSNorm", {128}},
          {"model.norm", "LlamaRMSNorm", {128}},
          {"model.rotary_emb", "LlamaRotaryEmbedding", {}},
          {"lm_head", "Linear", {32, 128}}};
}

}  // namespace llmc

#endif  // LLMC_TESTS_RECIPE_TINY_LLAMA_H_
