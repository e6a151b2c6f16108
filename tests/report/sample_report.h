// Reports of runs that never happened, for tests: every figure is made by a
// fixed formula.
#ifndef LLMC_TESTS_REPORT_SAMPLE_REPORT_H_
#define LLMC_TESTS_REPORT_SAMPLE_REPORT_H_

#include <string>

#include "report/run_report.h"

namespace llmc {

struct SampleShape {
  int64_t num_layers = 32;
  int num_ranks = 1;
  int num_experts = 0;  // > 0: a mixture of experts.
};

// A run with calibration, fallbacks and warnings, made by feeding events of all
// ranks through ReportBuilder.
RunReport SampleReport(const SampleShape& shape);

// "dense", "large" (80 layers, 64 ranks), "ranks4", "experts", "failed",
// "datafree", "clean", "hostile"; anything else: "dense".
RunReport NamedSample(const std::string& name);

// Text that breaks out of anything which is not escaped.
inline constexpr char kHostileText[] =
    "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\x1b[31m\xff\xe2\x80\xae";

}  // namespace llmc

#endif  // LLMC_TESTS_REPORT_SAMPLE_REPORT_H_
