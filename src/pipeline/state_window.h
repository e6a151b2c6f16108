// Copies of hidden states that hide behind the work on a device.
#ifndef LLMC_PIPELINE_STATE_WINDOW_H_
#define LLMC_PIPELINE_STATE_WINDOW_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "ATen/core/Tensor.h"
#include "kernels/device_queue.h"
#include "llmc/status.h"
#include "pipeline/capture_taps.h"
#include "pipeline/hidden_states.h"

namespace llmc {

// The hidden states of one pass over a device's packs. Those that lie off the device are
// read ahead on one thread and put back on another, each with a queue of its own, while the
// device works on earlier packs. At most `depth` packs are read and not done, and as many
// done and not put back, so that is the memory it takes; what a pass computes does not
// depend on it. For the thread that computes.
class StateWindow {
 public:
  // `packs`: the pass's batches, in its order. Waits for what the device still does with
  // the states.
  static absl::StatusOr<std::unique_ptr<StateWindow>> Open(const ComputeDevice& device,
                                                           HiddenStates& hidden,
                                                           std::vector<Batch> packs, int64_t depth);
  ~StateWindow();  // Without Finish: what is not put back yet may be lost.
  StateWindow(const StateWindow&) = delete;
  StateWindow& operator=(const StateWindow&) = delete;

  // Input of the next pack, as HiddenStates::Load. Waits until it is there. May throw
  // c10::Error.
  absl::StatusOr<at::Tensor> Take();

  // All work of the pack that was taken last is enqueued. An `output` that is defined
  // replaces its states. The first error of any pack so far. May throw c10::Error.
  absl::Status Done(const at::Tensor& output);

  // Every output is where it belongs.
  absl::Status Finish();

 private:
  // A sample's rows on their way back.
  struct Leaving {
    int64_t sample = 0;
    at::Tensor kept;
  };
  struct LeavingPack {
    kernels::DeviceEvent computed;
    std::vector<Leaving> samples;
  };
  using Arrived = std::map<int64_t, at::Tensor>;  // By sample.

  StateWindow(const ComputeDevice& device, HiddenStates& hidden, std::vector<Batch> packs,
              int64_t depth);
  void ReadAhead();
  absl::StatusOr<Arrived> ReadPack(const Batch& pack);
  void PutBack();
  absl::Status PutPack(const LeavingPack& pack);
  void Fail(const absl::Status& status);

  const ComputeDevice& device_;
  HiddenStates& hidden_;
  const std::vector<Batch> packs_;
  const int64_t depth_;
  std::unique_ptr<CopyLane> in_;
  std::unique_ptr<CopyLane> out_;
  int64_t next_ = 0;  // Of packs_, for Take.

  std::mutex mutex_;
  std::condition_variable changed_;
  absl::Status status_;                     // The first error.
  std::deque<Arrived> arrived_;             // From pack next_ on.
  std::deque<kernels::DeviceEvent> dones_;  // Of packs, but for those the reader has seen.
  std::deque<LeavingPack> leaving_;         // Each until it is put back.

  std::thread reader_;
  std::thread writer_;
};

}  // namespace llmc

#endif  // LLMC_PIPELINE_STATE_WINDOW_H_
