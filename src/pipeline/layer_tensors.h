// A layer's tensors between disk and device.
#ifndef LLMC_PIPELINE_LAYER_TENSORS_H_
#define LLMC_PIPELINE_LAYER_TENSORS_H_

#include <future>
#include <map>
#include <string>
#include <vector>

#include "model/decoder_layer.h"
#include "modifiers/modifier.h"
#include "pipeline/run_state.h"

namespace llmc {

// The dense tensors of one layer, read ahead on a thread of its own.
class LayerPrefetch {
 public:
  LayerPrefetch(const Plan& plan, int64_t layer);

  // Takes one tensor; each may be taken once. Waits for the read to end.
  absl::StatusOr<HostTensor> Take(const std::string& name);

 private:
  using Tensors = std::map<std::string, HostTensor>;
  std::future<absl::StatusOr<Tensors>> reading_;
  absl::StatusOr<Tensors> tensors_;
  bool ready_ = false;
};

// The weight of a module as the output's reader sees it: written tensors of
// `planned`, dequantised.
absl::StatusOr<HostTensor> ReadWritten(const CheckpointWriter& writer,
                                       const PlannedModule& planned);

// The tensors that stand for a solved module's weight; takes the weight.
absl::StatusOr<std::vector<kernels::StoredTensor>> StoreSolved(const RunState& run,
                                                               SolvedModule& solved);

// The dense weight that `stored` stands for.
absl::StatusOr<HostTensor> Dequantised(const PlannedModule& planned,
                                       const std::vector<kernels::StoredTensor>& stored);

}  // namespace llmc

#endif  // LLMC_PIPELINE_LAYER_TENSORS_H_
