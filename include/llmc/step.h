// The straight line a job follows, and the one stream of events that feeds
// progress bars, logs, metrics and the report.
#ifndef LLMC_STEP_H_
#define LLMC_STEP_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/strings/string_view.h"

namespace llmc {

enum class Step : uint8_t {
  kSubmit,
  kClaim,
  kPlan,
  kLoad,
  kCapture,
  kReduce,
  kSolve,
  kPropagate,
  kWrite,
  kCommit,
  kVerify,
};

// "Load", "Capture", ...
absl::string_view StepName(Step step);

// Something a rank tells about its work. Times are seconds since the job began.
struct StepEvent {
  enum class Kind : uint8_t { kBegin, kProgress, kEnd, kLinear, kWarning };

  Kind kind = Kind::kBegin;
  Step step = Step::kPlan;
  int rank = 0;
  int64_t layer = -1;       // -1: the step does not belong to a layer.
  int64_t num_layers = 0;   // Units of the job that have this step.
  double time_s = 0;        // When it happened.
  double done_frac = 0;     // kProgress: in [0, 1].
  int64_t rss_bytes = 0;    // kEnd: resident memory of this rank now.
  std::string module;       // kLinear, kWarning: the module's full name.
  double output_error = 0;  // kLinear: tr(E H E^T) / tr(W H W^T), a fraction.
  std::string message;      // kWarning: what happened. kLinear: how it was solved.
};

// Receives events of this rank, on the thread that runs the pipeline.
using StepSink = std::function<void(const StepEvent&)>;

}  // namespace llmc

#endif  // LLMC_STEP_H_
