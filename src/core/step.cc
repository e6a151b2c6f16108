#include "llmc/step.h"

namespace llmc {

absl::string_view StepName(Step step) {
  constexpr absl::string_view kNames[] = {"Submit",  "Claim",  "Plan",  "Load",
                                          "Capture", "Reduce", "Solve", "Propagate",
                                          "Write",   "Commit", "Verify"};
  return kNames[static_cast<size_t>(step)];
}

}  // namespace llmc
