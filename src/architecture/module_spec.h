// The modules of a model, as transformers names them, without loading any.
#ifndef LLMC_ARCHITECTURE_MODULE_SPEC_H_
#define LLMC_ARCHITECTURE_MODULE_SPEC_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "architecture/model_spec.h"
#include "llmc/status.h"
#include "llmc/tensor.h"

namespace llmc {

// What a module does in its block, so that code need not know names.
enum class Role : uint8_t {
  kContainer,  // Has no weight of its own: ModuleList, attention, activation, ...
  kEmbedding,
  kInputNorm,  // Before attention.
  kQuery,
  kKey,
  kValue,
  kAttentionOutput,
  kQueryNorm,  // Per head, before rope.
  kKeyNorm,
  kMlpNorm,  // Before the MLP.
  kGate,
  kUp,
  kDown,
  kFinalNorm,
  kHead,
  kUnknown,  // Guessed from a tensor name.
};

// One module of the model's tree.
struct ModuleSpec {
  std::string name;        // "model.layers.0.self_attn.q_proj"; "" for the model itself.
  std::string class_name;  // "Linear", "Embedding", "LlamaRMSNorm", "LlamaAttention", ...
  Shape weight_shape;      // [out_features, in_features] of a Linear; empty: no weight.
  bool has_bias = false;
  Role role = Role::kContainer;
  int64_t layer = -1;  // -1 outside the decoder layers.
  // Linears that multiply the same input carry the same text here (the name of
  // the first of them): q/k/v; gate/up; o; down; the head. Empty for the others.
  std::string input_group;

  bool is_linear() const { return class_name == "Linear"; }
  std::string weight_name() const { return name + ".weight"; }
  std::string bias_name() const { return name + ".bias"; }

  bool operator==(const ModuleSpec&) const = default;
};

// Every module in the order of transformers' named_modules(), containers
// included. A tied head is listed too: its weight is the embedding's tensor.
std::vector<ModuleSpec> Modules(const ModelSpec& spec);

// The modules of one decoder layer, in the same order.
std::vector<ModuleSpec> LayerModules(const ModelSpec& spec, int64_t layer);

// Linear and Embedding modules of a checkpoint of any architecture, guessed from
// its 2-D `*.weight` tensors alone and sorted by name (numbers by value):
// class_name is "Embedding" where the name says so, else "Linear"; `layer` is the
// first number in the name, -1 without one; q/k/v, gate/up and w1/w3 of one
// parent share an input group. Other tensors give no module.
std::vector<ModuleSpec> ModulesFromTensors(std::span<const TensorSpec> tensors);

// A tensor that the model cannot run without.
struct RequiredTensor {
  std::string name;
  Shape shape;
};
std::vector<RequiredTensor> RequiredTensors(const ModelSpec& spec);

// OK when `tensors` holds every required tensor in its shape. kInvalidArgument
// listing the missing and misshapen ones (the first few by name). Further
// tensors are fine. For dense checkpoints: quantised ones store other tensors.
absl::Status CheckTensors(const ModelSpec& spec, std::span<const TensorSpec> tensors);

// One smoothing that keeps a layer's function: `source`'s output channels are
// divided, `consumers`' input channels multiplied (SmoothQuant, AWQ).
struct SmoothMapping {
  enum class Kind : uint8_t {
    kNorm,  // source is a norm's weight; any channel factor is allowed.
    kUp,    // source is up_proj: output rows.
    kValue  // source is v_proj: the factor of a channel is shared by the query
            // heads that read its key-value head.
  };
  Kind kind = Kind::kNorm;
  std::string source;                  // Module name.
  std::vector<std::string> consumers;  // Names of linears with the same input.
};

// The smoothings of one layer, in the order of execution.
std::vector<SmoothMapping> SmoothMappings(const ModelSpec& spec, int64_t layer);

}  // namespace llmc

#endif  // LLMC_ARCHITECTURE_MODULE_SPEC_H_
