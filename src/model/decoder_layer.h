// One transformer block: named linears, a Forward, and taps on its values.
#ifndef LLMC_MODEL_DECODER_LAYER_H_
#define LLMC_MODEL_DECODER_LAYER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/types/span.h"
#include "architecture/model_spec.h"
#include "llmc/status.h"
#include "llmc/tensor.h"

namespace llmc {

class RotaryTable;

// Reads one tensor of the checkpoint by its full name, dense (F64, F32, F16 or
// BF16). kNotFound when the checkpoint has none of that name. Called from one
// thread at a time.
using WeightReader = std::function<absl::StatusOr<HostTensor>(const std::string& tensor_name)>;

// The same as a LibTorch tensor, on any device; one that is where the layer is placed is
// used as it is.
using TensorReader = std::function<absl::StatusOr<at::Tensor>(const std::string& tensor_name)>;

// Queries, keys and values of one sample after norm and rope, as a key-value
// cache would hold them.
struct AttentionStates {
  at::Tensor query;  // [num_attention_heads, tokens, head_dim]
  at::Tensor key;    // [num_key_value_heads, tokens, head_dim]
  at::Tensor value;  // [num_key_value_heads, tokens, head_dim]
};

// Sees, and may replace, values inside a Forward. Called on the thread of that
// Forward; several Forwards may call one Taps object at the same time.
class Taps {
 public:
  virtual ~Taps() = default;

  // `x`, [tokens, in_features] in the compute dtype, is about to be multiplied by
  // each of `linears` (full module names, one input group). Called once per
  // group and before its linears run, in the order of execution. Holds the tokens of all
  // samples of the Forward.
  virtual void Input(absl::Span<const std::string> linears, const at::Tensor& x);

  // What `linear` multiplies in place of `x`. Default: `x`.
  virtual at::Tensor ReplaceInput(const std::string& linear, const at::Tensor& x);

  // What `linear` gives in place of its output `y`, [tokens, out_features].
  // Default: `y`.
  virtual at::Tensor ReplaceOutput(const std::string& linear, const at::Tensor& y);

  // Before attention, once for every sample of the Forward, in order; `attention` is the
  // full module name ("model.layers.0.self_attn"). A member assigned here is used in its
  // place.
  virtual void Attention(const std::string& attention, AttentionStates& states);
};

// Weights that linears use in place of their own, by full module name; in the layer's
// compute dtype and on its device.
using WeightOverrides = std::map<std::string, at::Tensor>;

// A block inside a layer, without the norm before it and the residual after it.
enum class LayerPart : uint8_t { kAttention, kMlp };

struct ForwardOptions {
  // Tokens of each of several samples whose rows `hidden` holds one after the other:
  // products are of all rows, attention is by sample. Empty: one sample.
  std::span<const int64_t> lengths = {};
  Taps* taps = nullptr;  // Borrowed; null: none.
  // False: stop after the last Input tap, before down_proj; the returned tensor
  // is then undefined. Saves a product when only inputs are wanted.
  bool output_needed = true;
  // True: LibTorch operations alone, which have gradients and round as those of
  // transformers do. False: our own kernels where there is one that is faster.
  bool differentiable = false;
  const WeightOverrides* weights = nullptr;  // Borrowed; null: none.
};

// Where a layer computes.
struct LayerPlacement {
  at::ScalarType dtype = at::kFloat;         // Compute dtype: kFloat or kBFloat16.
  at::Device device = at::Device(at::kCPU);  // Of weights and activations.
  std::shared_ptr<RotaryTable> rotary;       // Shared by layers; null: one of its own.
  // Whether our own kernels of the CPU may take the place of LibTorch's operations.
  bool host_kernels = true;
};

// One block on one device.
//
// With compute dtype BF16 every operation rounds as transformers' modules do
// in BF16, but for the attention of ForwardOptions::differentiable; with F32 the
// weights are widened. Callers that need no gradients run Forward under
// c10::InferenceMode or at::NoGradGuard. Forward and the readers are const and may
// be called from many threads at once; set_weight and set_bias may not.
class DecoderLayer {
 public:
  // Reads the tensors of `layer` in [0, num_hidden_layers). kInvalidArgument for a
  // tensor of the wrong shape or dtype; errors of `reader` as they come.
  static absl::StatusOr<DecoderLayer> Load(const ModelSpec& spec, int64_t layer,
                                           const WeightReader& reader,
                                           const LayerPlacement& placement);
  static absl::StatusOr<DecoderLayer> Load(const ModelSpec& spec, int64_t layer,
                                           const WeightReader& reader,
                                           at::ScalarType compute_dtype);
  static absl::StatusOr<DecoderLayer> LoadTensors(const ModelSpec& spec, int64_t layer,
                                                  const TensorReader& reader,
                                                  const LayerPlacement& placement);

  DecoderLayer(DecoderLayer&&) noexcept;
  DecoderLayer& operator=(DecoderLayer&&) noexcept;
  ~DecoderLayer();

  // `hidden`: [tokens, hidden_size] of one sample, positions 0.. tokens-1, or of those of
  // options.lengths, in the compute dtype on the layer's device. Returns the block's
  // output, same shape. On a device it enqueues and does not wait.
  // Throws c10::Error when LibTorch does (wrong shapes, out of memory): wrap a
  // batch of calls in CatchTorch.
  at::Tensor Forward(const at::Tensor& hidden, const ForwardOptions& options) const;

  // Runs one block on its normed input, [tokens, hidden_size] of one sample, with
  // `weights` in place of its own. Throws like Forward.
  at::Tensor RunPart(LayerPart part, const at::Tensor& input, const WeightOverrides& weights) const;

  // Full names of the linears, in module order.
  const std::vector<std::string>& linears() const;
  // Full names of the modules with a weight, norms included, in module order.
  const std::vector<std::string>& modules() const;

  // Weight of a linear, [out_features, in_features], or of a norm, [channels], in
  // the compute dtype. `module` must be one of modules().
  const at::Tensor& weight(const std::string& module) const;
  // Replaces it; `weight` has the old one's shape and is converted to its dtype and
  // device when they differ. kInvalidArgument on another shape, kNotFound on an
  // unknown name.
  absl::Status set_weight(const std::string& module, const at::Tensor& weight);

  // Bias of a linear, [out_features]; undefined when it has none.
  const at::Tensor& bias(const std::string& module) const;
  // Replaces or adds it.
  absl::Status set_bias(const std::string& module, const at::Tensor& bias);

  int64_t index() const;  // Which layer this is.
  const LayerPlacement& placement() const;
  int64_t num_bytes() const;  // Of all weights and biases.

 private:
  struct Impl;
  explicit DecoderLayer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmc

#endif  // LLMC_MODEL_DECODER_LAYER_H_
