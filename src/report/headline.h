// The few figures that the page and the terminal both lead with.
#ifndef LLMC_SRC_REPORT_HEADLINE_H_
#define LLMC_SRC_REPORT_HEADLINE_H_

#include <cstdint>
#include <optional>
#include <string>

#include "report/run_report.h"

namespace llmc {

struct Headline {
  double ratio = 0;  // Source bytes / output bytes; 0: unknown.
  std::optional<double> median_error;
  const LinearRow* worst = nullptr;  // Into the report; null when nothing was measured.
  int64_t fallbacks = 0;
  int64_t not_finite = 0;  // Linears whose error is not a number.
  int64_t peak_bytes = 0;  // Of one rank.
  int peak_rank = 0;
  std::optional<double> perplexity_change;  // After / before - 1.
};

// The result points into `report`.
Headline HeadlineOf(const RunReport& report);

enum class Tone : uint8_t { kGood, kWarning, kBad };

// kBad: failed; kWarning: cancelled, or done with fallbacks, warnings or errors
// that are not finite.
Tone ToneOf(const RunReport& report, const Headline& headline);

// "Succeeded", "Succeeded, with 3 fallbacks and 1 warning", "Failed", "Stopped
// before the end".
std::string VerdictText(const RunReport& report, const Headline& headline);

}  // namespace llmc

#endif  // LLMC_SRC_REPORT_HEADLINE_H_
