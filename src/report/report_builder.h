// Collects the StepEvents of all ranks into a RunReport.
#ifndef LLMC_SRC_REPORT_REPORT_BUILDER_H_
#define LLMC_SRC_REPORT_REPORT_BUILDER_H_

#include <cstddef>
#include <map>
#include <string>
#include <tuple>

#include "absl/strings/string_view.h"
#include "llmc/status.h"
#include "llmc/step.h"
#include "report/run_report.h"

namespace llmc {

// Not thread-safe: one thread adds events. Events of one rank come in the order
// they happened; ranks may be mixed in any way.
//
// Use: fill what the plan knows (`report()`, one AddLinear per planned linear),
// pass `Sink()` to the pipeline, AddJsonLines for the other ranks, Build().
class ReportBuilder {
 public:
  static constexpr size_t kMaxWarnings = 10000;

  // The facts that no event carries; the caller fills them at any time before
  // Build().
  RunReport& report() { return report_; }

  // Says what the plan knows of a linear: scheme, shape, bytes, method. The
  // kLinear event of the same module adds error, method, damping and tokens.
  void AddLinear(LinearRow row);

  // kBegin opens and kEnd closes a StepInterval; a kEnd with rss_bytes is also a
  // memory sample; kLinear fills a row (message: a SolveNote; output_error < 0:
  // not measured; told by several ranks: the largest error counts); kWarning
  // adds a warning; kProgress adds a memory sample when it has rss_bytes.
  void Add(const StepEvent& event);

  // One event per line, as ToJsonLine writes them. kDataLoss with the line's
  // number at the first bad line; those before it are kept.
  absl::Status AddJsonLines(absl::string_view lines);

  // Forwards to Add(); the builder must outlive it.
  StepSink Sink();

  // Closes open intervals as unfinished, sorts, and fills what is still 0:
  // wall_time_s, num_layers, bits_per_weight.
  RunReport Build() &&;

 private:
  using StepKey = std::tuple<int, int64_t, Step>;  // rank, layer, step

  LinearRow& RowOf(const std::string& module, int64_t layer);
  void AddLinearEvent(const StepEvent& event);
  void AddWarning(const StepEvent& event);
  void AddMemory(const StepEvent& event);

  RunReport report_;
  std::map<std::string, size_t> row_of_module_;
  std::map<StepKey, double> open_;
  double last_time_s_ = 0;
};

}  // namespace llmc

#endif  // LLMC_SRC_REPORT_REPORT_BUILDER_H_
