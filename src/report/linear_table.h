// Tables about linears.
#ifndef LLMC_SRC_REPORT_LINEAR_TABLE_H_
#define LLMC_SRC_REPORT_LINEAR_TABLE_H_

#include <cstddef>
#include <string>

#include "report/run_report.h"

namespace llmc {

// The worst linears, with how much worse each is than others of its kind.
std::string WorstTable(const RunReport& report, size_t limit);

// Every linear (at most `limit`, then the worst ones), folded away.
std::string AllLinearsTable(const RunReport& report, size_t limit);

// Calibration tokens of mixture-of-experts linears; empty without any.
std::string ExpertTable(const RunReport& report);

// Linears per scheme and method, with bytes before and after.
std::string MethodTable(const RunReport& report);

}  // namespace llmc

#endif  // LLMC_SRC_REPORT_LINEAR_TABLE_H_
