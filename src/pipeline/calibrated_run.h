// Jobs that need data: layer by layer, Load, Capture, Reduce, Solve, Propagate, Write.
#ifndef LLMC_PIPELINE_CALIBRATED_RUN_H_
#define LLMC_PIPELINE_CALIBRATED_RUN_H_

#include "pipeline/run_state.h"

namespace llmc {

// Collective. Layers that an earlier run finished are loaded as they were written
// and only propagated. Memory: one layer and the next one's tensors, a layer's
// statistics, this rank's activations up to the budget.
absl::Status RunCalibrated(RunState& run);

}  // namespace llmc

#endif  // LLMC_PIPELINE_CALIBRATED_RUN_H_
