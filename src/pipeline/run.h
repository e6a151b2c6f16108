// One compression job on one rank, from the plan to the verified output.
#ifndef LLMC_PIPELINE_RUN_H_
#define LLMC_PIPELINE_RUN_H_

#include <atomic>
#include <functional>
#include <string>

#include "collective/collective.h"
#include "llmc/status.h"
#include "llmc/step.h"
#include "plan/job.h"
#include "plan/plan.h"
#include "report/run_report.h"

namespace llmc {

struct RunOptions {
  std::string command_line;                 // For the report.
  StepSink sink;                            // This rank's events; may be empty.
  const std::atomic<bool>* stop = nullptr;  // True: stop after the current layer.
  // Asked on every rank before any work; an error ends the job. Empty: any plan.
  std::function<absl::Status(const Plan&)> check_plan;
  // Asked on rank 0 right before the output is put in place; an error leaves it
  // unfinished. Empty: always allowed.
  std::function<absl::Status()> may_publish;
};

// Collective: every rank of `collective` calls it with the same job. Follows the
// straight line Plan, [Load, Capture, Reduce, Solve, Propagate, Write], Commit,
// Verify; see docs/architecture.md.
//
// All ranks return the same status. On rank 0 `report` is filled as far as the run
// came, also when it fails. The report lies in the output's llmc_report/ as
// report.json and report.html after success.
absl::Status RunJob(Job job, Collective& collective, const RunOptions& options, RunReport& report);

}  // namespace llmc

#endif  // LLMC_PIPELINE_RUN_H_
