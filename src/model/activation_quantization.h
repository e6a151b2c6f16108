// Activations as a serving client would quantise them, simulated in the compute
// dtype the way transformers with compressed-tensors does.
#ifndef LLMC_MODEL_ACTIVATION_QUANTIZATION_H_
#define LLMC_MODEL_ACTIVATION_QUANTIZATION_H_

#include <memory>
#include <string>
#include <unordered_map>

#include "ATen/core/Tensor.h"
#include "llmc/scheme.h"
#include "llmc/status.h"
#include "model/decoder_layer.h"
#include "model/weight_source.h"

namespace llmc {

// Stored parameters of a calibrated activation; undefined where not stored.
struct ActivationScale {
  at::Tensor scale;         // [1] or [heads, 1, 1].
  at::Tensor zero_point;    // As scale; undefined: 0.
  at::Tensor global_scale;  // F32 [1]: NVFP4.
};

// Quantises `x` and dequantises it again; every step is rounded to the dtype of
// `x` (F32, BF16, F16), and so is the result. Scales come from `x` itself when
// args.dynamic says so (token: per row of the last dimension; group: per
// group_size of it; tensor: all of `x`), from `stored` otherwise. Shapes: any,
// last dimension = channels; kAttnHead: [..., heads, tokens, head_dim].
// kInvalidArgument when a stored scale is missing or a group does not divide.
absl::StatusOr<at::Tensor> FakeQuantize(const at::Tensor& x, const QuantizationArgs& args,
                                        const ActivationScale& stored);

// Taps that put every quantised linear's inputs and outputs, and the keys and
// values of a quantised cache, through FakeQuantize. For one model; stateless
// after Open, so any number of Forwards may share it.
class ActivationQuantizer : public Taps {
 public:
  // Null when the model quantises no activations. kDataLoss when a static scale is
  // missing.
  static absl::StatusOr<std::unique_ptr<ActivationQuantizer>> Open(
      const std::shared_ptr<const WeightSource>& source);

  at::Tensor ReplaceInput(const std::string& linear, const at::Tensor& x) override;
  at::Tensor ReplaceOutput(const std::string& linear, const at::Tensor& y) override;
  void Attention(const std::string& attention, AttentionStates& states) override;

 private:
  struct Quantised {
    QuantizationArgs args;
    ActivationScale stored;
  };
  using ByName = std::unordered_map<std::string, Quantised>;

  static at::Tensor Apply(const ByName& all, const std::string& name, const at::Tensor& x);

  ByName inputs_;
  ByName outputs_;
  ByName keys_;
  ByName values_;
};

}  // namespace llmc

#endif  // LLMC_MODEL_ACTIVATION_QUANTIZATION_H_
