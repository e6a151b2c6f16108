// Passes of this rank's samples through one layer: Capture and Propagate.
#ifndef LLMC_PIPELINE_LAYER_PASS_H_
#define LLMC_PIPELINE_LAYER_PASS_H_

#include <map>
#include <set>
#include <string>
#include <vector>

#include "calibration/sample_schedule.h"
#include "model/decoder_layer.h"
#include "modifiers/modifier.h"
#include "modifiers/transform.h"
#include "pipeline/hidden_states.h"
#include "pipeline/run_state.h"

namespace llmc {

// How the samples of a job are cut, and which part is this rank's.
struct Schedule {
  std::vector<Chunk> chunks;  // Of the job.
  std::vector<int64_t> mine;  // Numbers of this rank's chunks, rising.
  int64_t num_rounds = 0;     // Chunks of the rank that has most.
  std::vector<Chunk> MyChunks() const;
};
Schedule MakeSchedule(const RunState& run);

// Runs the samples through `layer` and adds up the statistics that `needs` asks
// for. With `store_outputs` the layer's outputs replace the hidden states in the
// same pass (for layers that are not changed by solving). Collective: every rank
// takes part, also without samples; Reduce is included, and a second pass where
// the first chunk misjudged the range of a Hessian.
absl::Status CaptureLayer(RunState& run, const Schedule& schedule, const DecoderLayer& layer,
                          const Needs& needs, bool store_outputs, HiddenStates& hidden,
                          Statistics& statistics);

// The same for the head, whose input the hidden states are by now.
absl::Status CaptureHead(RunState& run, const Schedule& schedule, const Needs& needs,
                         HiddenStates& hidden, Statistics& statistics);

// Capture's samples for transforms that look at the layer again. Local.
class PassSamples : public LayerSamples {
 public:
  PassSamples(const ComputeDevice& device, const Schedule& schedule, const DecoderLayer& layer,
              HiddenStates& hidden)
      : device_(device), schedule_(schedule), layer_(layer), hidden_(hidden) {}

  absl::Status ForEach(const Choice& choice, const Visit& visit) override;

 private:
  const ComputeDevice& device_;
  const Schedule& schedule_;
  const DecoderLayer& layer_;
  HiddenStates& hidden_;
};

// Replaces every hidden state by the layer's output. Local.
absl::Status PropagateLayer(RunState& run, const Schedule& schedule, const DecoderLayer& layer,
                            HiddenStates& hidden);

}  // namespace llmc

#endif  // LLMC_PIPELINE_LAYER_PASS_H_
