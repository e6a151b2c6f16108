#include "evaluation/streamed_model.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "c10/core/InferenceMode.h"
#include "llmc/parallel.h"
#include "model/rotary_table.h"
#include "model/torch_tensor.h"

namespace llmc {

absl::StatusOr<StreamedModel> StreamedModel::Open(const std::filesystem::path& dir,
                                                  at::ScalarType compute_dtype,
                                                  bool quantize_activations) {
  StreamedModel model;
  LLMC_ASSIGN_OR_RETURN(std::shared_ptr<const Checkpoint> checkpoint, Checkpoint::Open(dir));
  absl::StatusOr<ModelSpec> spec = ParseModelSpec(checkpoint->config());
  if (!spec.ok()) return At(dir.string(), spec.status());
  absl::StatusOr<std::shared_ptr<const WeightSource>> source =
      WeightSource::Open(checkpoint, *spec);
  if (!source.ok()) return At(dir.string(), source.status());
  model.source_ = *std::move(source);
  model.reader_ = WeightSource::Reader(model.source_);
  if (quantize_activations) {
    LLMC_ASSIGN_OR_RETURN(model.quantizer_, ActivationQuantizer::Open(model.source_));
  }
  model.placement_.dtype = compute_dtype;
  model.placement_.rotary = std::make_shared<RotaryTable>(spec->rope, spec->head_dim);
  return model;
}

absl::StatusOr<std::vector<at::Tensor>> StreamedModel::FinalStates(
    std::span<const std::vector<int32_t>* const> windows, const Head& head,
    const std::function<void()>& layer_done) const {
  std::vector<at::Tensor> states;
  {
    LLMC_ASSIGN_OR_RETURN(const Embedding embedding, Embedding::Load(spec(), reader_, placement_));
    for (const std::vector<int32_t>* window : windows) {
      LLMC_ASSIGN_OR_RETURN(at::Tensor embedded, embedding.Embed(*window));
      states.push_back(std::move(embedded));
    }
  }
  const auto for_each_window = [&](const std::string& where,
                                   const std::function<at::Tensor(const at::Tensor&)>& next) {
    return CatchTorch(where, [&] {
      ParallelFor(static_cast<int64_t>(states.size()), [&](int64_t i) {
        c10::InferenceMode no_gradients;
        states[i] = next(states[i]);
      });
    });
  };
  for (int64_t index = 0; index < spec().num_hidden_layers; ++index) {
    LLMC_ASSIGN_OR_RETURN(const DecoderLayer layer,
                          DecoderLayer::Load(spec(), index, reader_, placement_));
    LLMC_RETURN_IF_ERROR(
        for_each_window(absl::StrCat("layer ", index), [&](const at::Tensor& hidden) {
          return layer.Forward(hidden, {.taps = quantizer_.get()});
        }));
    layer_done();
  }
  LLMC_RETURN_IF_ERROR(
      for_each_window("final norm", [&](const at::Tensor& hidden) { return head.Norm(hidden); }));
  return states;
}

absl::StatusOr<Head> StreamedModel::LoadHead() const {
  return Head::Load(spec(), reader_, placement_);
}

at::Tensor StreamedModel::Logits(const Head& head, const at::Tensor& states) const {
  const at::Tensor input =
      quantizer_ == nullptr ? states : quantizer_->ReplaceInput(spec().head_name, states);
  return head.Logits(input).to(at::kFloat);
}

}  // namespace llmc
