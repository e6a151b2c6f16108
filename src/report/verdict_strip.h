// The top of the page: what came out, in one sentence and six tiles.
#ifndef LLMC_SRC_REPORT_VERDICT_STRIP_H_
#define LLMC_SRC_REPORT_VERDICT_STRIP_H_

#include <string>

#include "report/run_report.h"

namespace llmc {

std::string VerdictStrip(const RunReport& report);

}  // namespace llmc

#endif  // LLMC_SRC_REPORT_VERDICT_STRIP_H_
