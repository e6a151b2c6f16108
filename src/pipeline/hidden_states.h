// The hidden states of this rank's samples, as tensors.
#ifndef LLMC_PIPELINE_HIDDEN_STATES_H_
#define LLMC_PIPELINE_HIDDEN_STATES_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "ATen/core/Tensor.h"
#include "calibration/activation_store.h"
#include "calibration/sample_schedule.h"
#include "llmc/status.h"
#include "llmc/tensor.h"
#include "pipeline/copy_lane.h"
#include "pipeline/run_state.h"

namespace llmc {

// One tensor [tokens, hidden_size] a sample, for the samples of the chunks that
// this rank owns. Between layers they are kept in the model's dtype when that is
// BF16, else in F32: on the device as far as its memory goes, then in host memory, then
// on disk. Where a sample is does not change its bits. On the host different samples may
// be used by different threads at once.
class HiddenStates {
 public:
  // Token embeddings of the samples of `chunks`. Rows of the table are read one by
  // one, so a large vocabulary costs no memory.
  static absl::StatusOr<std::unique_ptr<HiddenStates>> Embed(const RunState& run,
                                                             const std::vector<Chunk>& chunks,
                                                             at::ScalarType compute_dtype);

  // Rows of consecutive samples, one sample after the other, in the compute dtype, where
  // the rank computes; not to be written to. May throw c10::Error.
  absl::StatusOr<at::Tensor> Load(int64_t sample) const;
  absl::StatusOr<at::Tensor> Load(std::span<const int64_t> samples) const;
  absl::Status Store(std::span<const int64_t> samples, const at::Tensor& hidden);

  // For a rank on a device, samples that are elsewhere, as they are kept there. Both wait
  // until the copy is done, on the queue of `lane`, and may run on any thread, one a lane.
  bool IsOffDevice(int64_t sample) const {
    return !device_.is_host() && slot_of_sample_[sample] >= 0;
  }
  absl::StatusOr<at::Tensor> Fetch(int64_t sample, CopyLane& lane) const;
  absl::Status Put(int64_t sample, const at::Tensor& kept, CopyLane& lane);
  // `rows` of Store as Put takes them, and what Fetch gives as Load does. May throw
  // c10::Error.
  at::Tensor Kept(const at::Tensor& rows) const;
  at::Tensor Loaded(const at::Tensor& kept) const { return kept.to(compute_dtype_); }
  bool AllOnDevice() const { return resident_bytes() + spilled_bytes() == 0; }

  int64_t tokens(int64_t sample) const { return tokens_[sample]; }

  int64_t device_bytes() const { return device_bytes_; }
  int64_t resident_bytes() const { return store_->resident_bytes(); }
  int64_t spilled_bytes() const { return store_->spilled_bytes(); }

 private:
  explicit HiddenStates(const RunState& run);
  void Place(const std::vector<Chunk>& chunks, int64_t device_budget_bytes);
  absl::StatusOr<HostTensor> EmbedSample(const RunState& run, int64_t sample) const;
  absl::Status EmbedSamples(const RunState& run, std::span<const int64_t> samples);
  absl::Status StoreSample(int64_t sample, const at::Tensor& rows);
  int64_t BytesOf(int64_t sample) const;

  const ComputeDevice& device_;
  std::unique_ptr<ActivationStore> store_;
  std::vector<int64_t> mine_;            // This rank's samples.
  std::vector<int64_t> store_sizes_;     // Of the samples in `store_`.
  std::vector<at::Tensor> on_device_;    // [num_samples]; undefined: elsewhere.
  std::vector<int64_t> slot_of_sample_;  // [num_samples], in `store_`; -1: not there.
  std::vector<int64_t> tokens_;          // [num_samples]
  int64_t device_bytes_ = 0;
  int64_t hidden_size_ = 0;
  DType stored_dtype_ = DType::kBF16;
  at::ScalarType compute_dtype_ = at::kFloat;
};

}  // namespace llmc

#endif  // LLMC_PIPELINE_HIDDEN_STATES_H_
