// What the steps of one run share on one rank.
#ifndef LLMC_PIPELINE_RUN_STATE_H_
#define LLMC_PIPELINE_RUN_STATE_H_

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "calibration/tensor_collective.h"
#include "checkpoint/checkpoint_writer.h"
#include "collective/collective.h"
#include "dataset/dataset.h"
#include "llmc/status.h"
#include "model/compute_device.h"
#include "pipeline/step_clock.h"
#include "plan/plan.h"

namespace llmc {

// Borrowed by every step; lives as long as the run.
struct RunState {
  const Job& job;
  const Plan& plan;
  Collective& collective;
  const ComputeDevice& device;
  DeviceCollective* device_collective = nullptr;  // Null on the host.
  StepClock& clock;
  CheckpointWriter* writer = nullptr;
  CalibrationSamples samples;               // The same on every rank; none when data-free.
  Estimate estimate;                        // After the text was read.
  const std::atomic<bool>* stop = nullptr;  // Set by a signal.

  RankPlace place() const { return {&device, device_collective}; }
  bool is_leader() const { return collective.rank() == 0; }
};

// Collective: kCancelled on every rank when any of them was told to stop.
absl::Status AgreeToGoOn(RunState& run);

// Collective: whether `unit` was finished by an earlier run, as the leader sees it.
absl::StatusOr<bool> IsUnitDone(RunState& run, const WorkUnit& unit);

// What a rank wrote of one unit.
struct UnitWrites {
  const WorkUnit* unit = nullptr;
  std::map<std::string, std::string> hashes;  // Of the tensors.
};

// Local, on any thread: makes this rank's bytes durable.
absl::Status SyncUnit(const RunState& run);

// Collective: records the unit as done, when `synced`, SyncUnit's status, is OK everywhere.
absl::Status RecordUnit(RunState& run, const UnitWrites& writes, const absl::Status& synced);

// Both.
absl::Status FinishUnit(RunState& run, const UnitWrites& writes);

}  // namespace llmc

#endif  // LLMC_PIPELINE_RUN_STATE_H_
