// The table of model families: a family is a row of options, not code.
#ifndef LLMC_ARCHITECTURE_FAMILY_H_
#define LLMC_ARCHITECTURE_FAMILY_H_

#include <cstdint>
#include <span>

#include "absl/strings/string_view.h"
#include "architecture/module_spec.h"

namespace llmc {

// Whether a bias exists: the class decides, or a field of config.json does.
enum class BiasRule : uint8_t { kNever, kAlways, kConfig };

// Which layers have a sliding window.
enum class SlidingRule : uint8_t {
  kNone,        // The class knows no windows.
  kAllLayers,   // All, when `sliding_window` is not null.
  kLayerTypes,  // `layer_types`, else layers >= max_window_layers; and only
                // when `use_sliding_window`.
};

// A length that a weight's shape is made of.
enum class Width : uint8_t { kNone, kHidden, kQuery, kKeyValue, kIntermediate, kHeadDim, kVocab };

// Which of ModelSpec's bias options a module follows.
enum class BiasOf : uint8_t { kNone, kQkv, kAttentionOutput, kMlp };

// One module of a decoder block, in the order of named_modules().
struct BlockModule {
  absl::string_view path = {};  // Below the layer, "self_attn.q_proj"; "" is the block itself.
  absl::string_view class_name = {};  // "*" stands for the class prefix, "@" for the activation.
  Role role = Role::kContainer;
  Width rows = Width::kNone;  // kNone in both: no weight.
  Width columns = Width::kNone;
  BiasOf bias = BiasOf::kNone;
  absl::string_view input_group = {};  // Path of the first linear with the same input.
  bool only_with_qk_norm = false;
};

// What the transformers classes of one family fix, and their config defaults.
struct Family {
  absl::string_view model_type;
  absl::string_view class_prefix;
  std::span<const BlockModule> block;
  BiasRule qkv_bias = BiasRule::kNever;  // kConfig: `attention_bias`.
  BiasRule o_bias = BiasRule::kNever;    // kConfig: `attention_bias`.
  BiasRule mlp_bias = BiasRule::kNever;  // kConfig: `mlp_bias`.
  bool qk_norm = false;
  SlidingRule sliding = SlidingRule::kNone;
  int64_t default_num_key_value_heads = 0;  // 0: num_attention_heads.
  int64_t default_head_dim = 0;             // 0: hidden_size / num_attention_heads.
  int64_t default_max_position_embeddings = 0;
};

std::span<const Family> Families();

// Null when no family has that model_type.
const Family* FindFamily(absl::string_view model_type);

}  // namespace llmc

#endif  // LLMC_ARCHITECTURE_FAMILY_H_
