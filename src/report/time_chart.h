// Where the time went: steps per rank over time, and as a table.
#ifndef LLMC_SRC_REPORT_TIME_CHART_H_
#define LLMC_SRC_REPORT_TIME_CHART_H_

#include <string>

#include "report/run_report.h"

namespace llmc {

// Lanes for up to 16 ranks; for more, the share of ranks in each step and the
// lanes of rank 0, the busiest and the idlest. Empty without intervals.
std::string TimeChart(const RunReport& report);

// One row per step: seconds of the median rank, share, slowest rank, imbalance.
std::string StepTable(const RunReport& report);

// One row per layer, one column per step: seconds of the slowest rank.
std::string LayerTimeTable(const RunReport& report);

}  // namespace llmc

#endif  // LLMC_SRC_REPORT_TIME_CHART_H_
