// Memory over time against plan and budget.
#ifndef LLMC_SRC_REPORT_MEMORY_CHART_H_
#define LLMC_SRC_REPORT_MEMORY_CHART_H_

#include <cstdint>
#include <string>

#include "report/run_report.h"

namespace llmc {

// The largest sample of any rank; 0 without samples. `rank` may be null.
int64_t PeakMemory(const RunReport& report, int* rank);

// Empty without samples.
std::string MemoryChart(const RunReport& report);

}  // namespace llmc

#endif  // LLMC_SRC_REPORT_MEMORY_CHART_H_
