// The output error of every linear: a range per layer, and a heat map of layers
// by kinds of linear.
#ifndef LLMC_SRC_REPORT_ERROR_CHART_H_
#define LLMC_SRC_REPORT_ERROR_CHART_H_

#include <optional>
#include <string>
#include <vector>

#include "report/run_report.h"

namespace llmc {

// The logarithmic scale that both charts and the tables share, in half decades.
class ErrorScale {
 public:
  // Over the finite errors > 0; [1e-4, 1e-1] when there are none.
  explicit ErrorScale(const std::vector<double>& errors);

  double low() const { return low_; }
  double high() const { return high_; }

  // Place on the scale in [0, 1].
  double At(double error) const;

  // Class "e0" (best) to "e8" (worst); "nf" not finite; "en" not measured.
  std::string CssClass(const std::optional<double>& error) const;

 private:
  double low_, high_;
};

// Empty when no linear of a layer has a measured error.
std::string ErrorCharts(const RunReport& report);

}  // namespace llmc

#endif  // LLMC_SRC_REPORT_ERROR_CHART_H_
