// Perplexity of a model on token windows, and its divergence from another model.
#ifndef LLMC_EVALUATION_EVALUATION_H_
#define LLMC_EVALUATION_EVALUATION_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "collective/collective.h"
#include "llmc/dtype.h"
#include "llmc/status.h"

namespace llmc {

struct EvaluationResult {
  double perplexity = 0;  // exp(mean_nll).
  double mean_nll = 0;    // Nats per predicted token.
  int64_t num_windows = 0;
  int64_t num_tokens = 0;                // Predicted tokens: (L - 1) per window of L.
  std::optional<double> kl_mean;         // Mean KL(against || model), nats per predicted token.
  std::optional<double> top1_agreement;  // Share of predicted tokens with the same most
                                         // likely token in both, in [0, 1].
  std::optional<double> against_perplexity;
  double seconds = 0;  // Wall time.
};

struct EvaluationRequest {
  std::filesystem::path model;                    // Dense or compressed directory.
  std::optional<std::filesystem::path> against;   // Usually the dense original.
  std::span<const std::vector<int32_t>> windows;  // Each of >= 2 ids.
  DType compute_dtype = DType::kF32;              // F32 or BF16.
  bool quantize_activations = true;  // Simulate activations where the model has such schemes.
  int64_t max_state_bytes = int64_t{4} << 30;  // Hidden states held at once by this rank.
  Collective* collective = nullptr;            // Ranks share the windows; null: one rank.
  // Told after every layer of every batch of windows: share of this rank's work
  // that is done, in [0, 1]. May be empty.
  std::function<void(double)> progress;
};

// Streams the model layer by layer over all windows, so that one layer (and the
// head) is in memory at a time. Windows run in parallel, each on one thread; sums
// are taken in double in window order, so the result does not depend on the number
// of threads or ranks; with a collective all ranks return the same.
// kInvalidArgument: no windows, a window of fewer than 2 ids, an id outside the
// vocabulary, vocabularies of different sizes; errors of opening a model.
absl::StatusOr<EvaluationResult> Evaluate(const EvaluationRequest& request);

}  // namespace llmc

#endif  // LLMC_EVALUATION_EVALUATION_H_
