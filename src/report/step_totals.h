// Sums over StepIntervals.
#ifndef LLMC_SRC_REPORT_STEP_TOTALS_H_
#define LLMC_SRC_REPORT_STEP_TOTALS_H_

#include <array>
#include <cstdint>
#include <map>
#include <vector>

#include "report/run_report.h"

namespace llmc {

inline constexpr int kStepCount = static_cast<int>(Step::kVerify) + 1;

// Seconds per step, indexed by Step.
using StepSeconds = std::array<double, kStepCount>;

// Of each rank, over all layers.
std::map<int, StepSeconds> SecondsByRank(const std::vector<StepInterval>& steps);

// Of each layer, the slowest rank of each step; layer -1 is left out.
std::map<int64_t, StepSeconds> SlowestByLayer(const std::vector<StepInterval>& steps);

// Load and Write run beside the computing steps.
bool RunsBeside(Step step);

// Seconds in steps that do not run beside others.
double BusySeconds(const StepSeconds& seconds);

}  // namespace llmc

#endif  // LLMC_SRC_REPORT_STEP_TOTALS_H_
