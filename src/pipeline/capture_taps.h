// What Capture takes from the activations of a layer while samples go through it.
#ifndef LLMC_PIPELINE_CAPTURE_TAPS_H_
#define LLMC_PIPELINE_CAPTURE_TAPS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "calibration/extrema.h"
#include "kernels/hessian.h"
#include "llmc/status.h"
#include "model/compute_device.h"
#include "model/decoder_layer.h"
#include "plan/statistics_need.h"

namespace llmc {

// `x`, [tokens, features] in F32 or BF16, as the kernels take it. Borrowed.
kernels::TokenRows RowsOf(const at::Tensor& x);

// Samples that go through a layer in one Forward: on the host one, on a device a pack.
struct Batch {
  std::vector<int64_t> samples;  // Consecutive.
  std::vector<int64_t> lengths;  // Tokens of each.
};

// What was seen of one activation of one sample. On the device until somebody asks.
struct SampleRanges {
  int64_t sample = 0;
  int64_t tokens = 0;
  at::Tensor channel_min, channel_max;  // F32 [in_features]
  at::Tensor magnitudes, squares;       // F64 [in_features]: sums over tokens.
  at::Tensor min, max;                  // F32 [num_channels]
  std::vector<Extrema> searched;        // [num_channels]
};

// What is kept of one activation of one batch.
struct BatchActivation {
  at::Tensor rows;  // [tokens of the batch, features]; undefined: only ranges are wanted.
  std::vector<SampleRanges> ranges;
};

// Taps of one batch, on the thread of the batch. Not thread-safe. Throws c10::Error.
class CaptureTaps : public Taps {
 public:
  // All are borrowed.
  CaptureTaps(const ComputeDevice& device, const Needs& needs, const Batch& batch)
      : device_(&device), needs_(&needs), batch_(&batch) {}

  void Input(absl::Span<const std::string> linears, const at::Tensor& x) override;
  at::Tensor ReplaceOutput(const std::string& linear, const at::Tensor& y) override;
  void Attention(const std::string& attention, AttentionStates& states) override;

  // The head is the one group that is asked for.
  void InputOfHead(const at::Tensor& x);

  std::map<std::string, BatchActivation> kept;  // By tap.
  absl::Status status;

 private:
  const StatisticsNeed* NeedOf(const std::string& tap) const;
  void Keep(const std::string& tap, const at::Tensor& value);
  // [heads, tokens, head_dim] of one sample.
  void KeepHeads(const std::string& tap, const at::Tensor& states, int64_t sample);
  void AddRanges(BatchActivation& activation, const StatisticsNeed& need, const at::Tensor& x,
                 int64_t sample);

  const ComputeDevice* device_;
  const Needs* needs_;
  const Batch* batch_;
  size_t next_attention_ = 0;  // In `batch_->samples`.
};

}  // namespace llmc

#endif  // LLMC_PIPELINE_CAPTURE_TAPS_H_
