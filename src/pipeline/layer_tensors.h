// A layer's tensors between disk and device.
#ifndef LLMC_PIPELINE_LAYER_TENSORS_H_
#define LLMC_PIPELINE_LAYER_TENSORS_H_

#include <future>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model/decoder_layer.h"
#include "modifiers/modifier.h"
#include "pipeline/copy_lane.h"
#include "pipeline/run_state.h"

namespace llmc {

// The dense tensors of one layer where the rank computes, read ahead on a thread of its
// own.
class LayerPrefetch {
 public:
  // `lane`, null on the host, serves one prefetch at a time.
  LayerPrefetch(const RunState& run, int64_t layer, CopyLane* lane);

  // Takes one tensor; each may be taken once. Waits for the read to end.
  absl::StatusOr<at::Tensor> Take(const std::string& name);

  // When it was read. Waits for the read to end.
  const TimeSpan& Span();

 private:
  using Tensors = std::map<std::string, at::Tensor>;
  void Wait();
  absl::StatusOr<Tensors> ReadToHost(const std::vector<std::string>& names) const;
  absl::StatusOr<Tensors> ReadToDevice(const std::vector<std::string>& names, CopyLane& lane) const;

  const RunState& run_;
  TimeSpan span_;
  absl::StatusOr<Tensors> tensors_;
  bool ready_ = false;
  std::future<absl::StatusOr<Tensors>> reading_;  // Ends before what it uses.
};

// The weight of a module as the output's reader sees it: written tensors of
// `planned`, dequantised.
absl::StatusOr<HostTensor> ReadWritten(const CheckpointWriter& writer,
                                       const PlannedModule& planned);

// The tensors that stand for a solved module's weight; takes the weight.
absl::StatusOr<std::vector<kernels::StoredTensor>> StoreSolved(const RunState& run,
                                                               SolvedModule& solved);

// Whether a reader of the packed tensors sees exactly the weight that the solver left: its
// values are codes times scales, rounded as the reader rounds them.
bool IsSeenAsSolved(const SolvedModule& solved);

// The dense weight that `stored` stands for.
absl::StatusOr<HostTensor> Dequantised(const PlannedModule& planned,
                                       const std::vector<kernels::StoredTensor>& stored);

}  // namespace llmc

#endif  // LLMC_PIPELINE_LAYER_TENSORS_H_
