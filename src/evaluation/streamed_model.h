// A model that is run layer by layer over many windows.
#ifndef LLMC_EVALUATION_STREAMED_MODEL_H_
#define LLMC_EVALUATION_STREAMED_MODEL_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "ATen/core/Tensor.h"
#include "llmc/status.h"
#include "model/activation_quantization.h"
#include "model/model_ends.h"
#include "model/weight_source.h"

namespace llmc {

// Holds one layer, or the embedding, or the head at a time.
class StreamedModel {
 public:
  static absl::StatusOr<StreamedModel> Open(const std::filesystem::path& dir,
                                            at::ScalarType compute_dtype,
                                            bool quantize_activations);

  // The states before the head of every window, final norm included, each
  // [tokens, hidden_size]. Windows run in parallel, each on one thread.
  // `layer_done` is called after every layer.
  absl::StatusOr<std::vector<at::Tensor>> FinalStates(
      std::span<const std::vector<int32_t>* const> windows, const Head& head,
      const std::function<void()>& layer_done) const;

  absl::StatusOr<Head> LoadHead() const;

  // Logits in float32, [tokens, vocab_size], of rows of FinalStates.
  at::Tensor Logits(const Head& head, const at::Tensor& states) const;

  const ModelSpec& spec() const { return source_->spec(); }

 private:
  StreamedModel() = default;

  std::shared_ptr<const WeightSource> source_;
  WeightReader reader_;
  std::unique_ptr<ActivationQuantizer> quantizer_;  // Null: activations stay as they are.
  LayerPlacement placement_;
};

}  // namespace llmc

#endif  // LLMC_EVALUATION_STREAMED_MODEL_H_
