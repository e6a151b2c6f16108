// The two ends of a decoder model: token embedding, and final norm with head.
#ifndef LLMC_MODEL_MODEL_ENDS_H_
#define LLMC_MODEL_MODEL_ENDS_H_

#include <cstdint>
#include <span>

#include "ATen/core/Tensor.h"
#include "architecture/model_spec.h"
#include "llmc/status.h"
#include "model/decoder_layer.h"

namespace llmc {

// The embedding table, kept in its stored dtype; rows are converted when read.
class Embedding {
 public:
  static absl::StatusOr<Embedding> Load(const ModelSpec& spec, const WeightReader& reader,
                                        const LayerPlacement& placement);

  // [ids.size(), hidden_size] in the compute dtype. kInvalidArgument when an id is
  // outside [0, vocab_size).
  absl::StatusOr<at::Tensor> Embed(std::span<const int32_t> ids) const;

  const at::Tensor& table() const { return table_; }

 private:
  Embedding(at::Tensor table, LayerPlacement placement);
  at::Tensor table_;  // [vocab_size, hidden_size]
  LayerPlacement placement_;
};

// Final norm and head; the head's weight is the embedding's when tied.
class Head {
 public:
  static absl::StatusOr<Head> Load(const ModelSpec& spec, const WeightReader& reader,
                                   const LayerPlacement& placement);

  // Final norm of [tokens, hidden_size], same shape.
  at::Tensor Norm(const at::Tensor& hidden) const;
  // [tokens, vocab_size] of already normed states, in the compute dtype. Ask for
  // few tokens at a time: a vocabulary is wide. Throws c10::Error.
  at::Tensor Logits(const at::Tensor& normed) const;

  const at::Tensor& norm_weight() const { return norm_; }
  const at::Tensor& weight() const { return weight_; }
  void set_weight(at::Tensor weight) { weight_ = std::move(weight); }

 private:
  Head(at::Tensor norm, at::Tensor weight, double eps);
  at::Tensor norm_;    // [hidden_size]
  at::Tensor weight_;  // [vocab_size, hidden_size]
  double eps_;
};

}  // namespace llmc

#endif  // LLMC_MODEL_MODEL_ENDS_H_
