// StepEvents on their way: as JSON lines between ranks, to several receivers,
// and the wording of "how this linear was solved".
#ifndef LLMC_SRC_REPORT_STEP_STREAM_H_
#define LLMC_SRC_REPORT_STEP_STREAM_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "llmc/status.h"
#include "llmc/step.h"

namespace llmc {

// One line of JSON without a line end. Fields that hold their default are left
// out; a number that is not finite is written as null.
std::string ToJsonLine(const StepEvent& event);

// The reverse. kDataLoss for text that is not such a line: not an object, longer
// than 64 KiB, an unknown kind or step, a number outside its range.
absl::StatusOr<StepEvent> StepEventFromJsonLine(absl::string_view line);

// Calls every sink, in order. Empty functions are skipped.
StepSink FanOut(std::vector<StepSink> sinks);

// How a linear was solved: the text of StepEvent::message of a kLinear event,
// "GPTQ damping=0.01 tokens=262144" or
// "RTN fallback damping=1 tokens=12: Hessian is not positive definite".
struct SolveNote {
  std::string method;                  // "GPTQ", "RTN", "AWQ", ...: one word.
  bool is_fallback = false;            // Not the method that the recipe asks for.
  std::optional<double> damping_frac;  // Of the Hessian's mean diagonal, as used.
  std::optional<int64_t> num_tokens;   // Calibration tokens this linear saw.
  std::string reason;                  // Why it fell back, or other remarks.
  // Fraction of its weights that pruning has left 0.
  std::optional<double> sparsity = std::nullopt;

  bool operator==(const SolveNote&) const = default;
};
std::string ToString(const SolveNote& note);

// Never fails: text of another form becomes `method` up to its first colon and
// `reason` after it.
SolveNote ParseSolveNote(absl::string_view message);

}  // namespace llmc

#endif  // LLMC_SRC_REPORT_STEP_STREAM_H_
