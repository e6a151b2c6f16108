// The hidden states of this rank's samples, as tensors.
#ifndef LLMC_PIPELINE_HIDDEN_STATES_H_
#define LLMC_PIPELINE_HIDDEN_STATES_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "ATen/core/Tensor.h"
#include "calibration/activation_store.h"
#include "calibration/sample_schedule.h"
#include "llmc/status.h"
#include "pipeline/run_state.h"

namespace llmc {

// One tensor [tokens, hidden_size] a sample, for the samples of the chunks that
// this rank owns. Between layers they are kept in the model's dtype when that is
// BF16, else in F32. Different samples may be used by different threads at once.
class HiddenStates {
 public:
  // Token embeddings of the samples of `chunks`. Rows of the table are read one by
  // one, so a large vocabulary costs no memory.
  static absl::StatusOr<std::unique_ptr<HiddenStates>> Embed(const RunState& run,
                                                             const std::vector<Chunk>& chunks,
                                                             at::ScalarType compute_dtype);

  // In the compute dtype.
  absl::StatusOr<at::Tensor> Load(int64_t sample) const;
  absl::Status Store(int64_t sample, const at::Tensor& hidden);

  int64_t resident_bytes() const { return store_->resident_bytes(); }
  int64_t spilled_bytes() const { return store_->spilled_bytes(); }

 private:
  HiddenStates() = default;
  absl::Status EmbedSample(const RunState& run, int64_t sample);

  std::unique_ptr<ActivationStore> store_;
  std::vector<int64_t> slot_of_sample_;  // [num_samples]; -1: another rank's.
  std::vector<int64_t> tokens_;          // [num_samples]
  int64_t hidden_size_ = 0;
  DType stored_dtype_ = DType::kBF16;
  at::ScalarType compute_dtype_ = at::kFloat;
};

}  // namespace llmc

#endif  // LLMC_PIPELINE_HIDDEN_STATES_H_
