// The JSON of a report, in full or cut to fit into a page.
#ifndef LLMC_SRC_REPORT_REPORT_JSON_H_
#define LLMC_SRC_REPORT_REPORT_JSON_H_

#include <cstddef>
#include <string>

#include "report/run_report.h"

namespace llmc {

// Upper limits on the long arrays; what is cut is counted in "omitted".
struct JsonLimits {
  size_t linears = SIZE_MAX;  // The worst ones are kept.
  size_t steps = SIZE_MAX;    // All or, when there are more, none.
  size_t memory = SIZE_MAX;   // All or none.
  size_t warnings = SIZE_MAX;
};

// As ToJson, on one line and in ASCII.
std::string ToCompactJson(const RunReport& report, const JsonLimits& limits);

}  // namespace llmc

#endif  // LLMC_SRC_REPORT_REPORT_JSON_H_
