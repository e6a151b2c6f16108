// Everything a finished (or failed) run has to tell, and its three renderings.
//
// docs/report-schema.md documents the JSON. Strings are hostile input: model
// names, module names and messages are escaped by every rendering.
#ifndef LLMC_SRC_REPORT_RUN_REPORT_H_
#define LLMC_SRC_REPORT_RUN_REPORT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "llmc/status.h"
#include "llmc/step.h"
#include "report/terminal.h"

namespace llmc {

inline constexpr int kReportSchemaVersion = 1;

enum class Verdict : uint8_t { kSucceeded, kFailed, kCancelled };

// One quantised (or otherwise changed) linear.
struct LinearRow {
  std::string module;                  // Full name, "model.layers.3.mlp.down_proj".
  int64_t layer = -1;                  // -1: outside the decoder layers.
  std::string scheme;                  // "W4A16 g128".
  std::vector<int64_t> shape;          // [out_features, in_features].
  std::string method;                  // "GPTQ", "RTN", ...
  bool is_fallback = false;            // `method` is not what the recipe asked for.
  std::optional<double> output_error;  // tr(E H E^T) / tr(W H W^T), a fraction. NaN: not finite.
  int64_t bytes_before = 0;            // Stored, weight only.
  int64_t bytes_after = 0;             // Stored, codes + scales + zero points.
  std::optional<double> damping_frac;  // As used, after retries.
  std::optional<int64_t> num_tokens;   // Calibration tokens it saw.
  std::optional<double> sparsity;      // Fraction that pruning has left 0.
  std::string reason;                  // Why it fell back, or another remark.
};

// One step of one layer on one rank. Seconds since the job began.
struct StepInterval {
  Step step = Step::kPlan;
  int rank = 0;
  int64_t layer = -1;
  double begin_s = 0;
  double end_s = 0;
  bool finished = true;  // False: the run stopped inside it.
};

struct MemorySample {
  int rank = 0;
  double time_s = 0;
  int64_t rss_bytes = 0;
};

struct ReportWarning {
  double time_s = 0;
  Step step = Step::kPlan;
  int rank = 0;
  int64_t layer = -1;
  std::string module;  // May be empty.
  std::string message;
};

struct CalibrationFacts {
  std::vector<std::string> datasets;
  int64_t num_samples = 0;
  int64_t num_tokens = 0;
  int64_t max_seq_length = 0;
  uint64_t seed = 0;
  bool shuffled = true;
  std::string token_hash;
};

// As `llmc eval` defines them; `before` is the dense model.
struct EvaluationFacts {
  std::string dataset;
  int64_t num_windows = 0;
  int64_t window_length = 0;
  std::optional<double> perplexity_before;
  std::optional<double> perplexity_after;
  std::optional<double> mean_kl;  // KL(before || after) in nats per token.
};

// One earlier attempt whose finished layers this run kept.
struct ResumedFrom {
  int64_t layers_done = 0;
  std::string when;    // ISO 8601, or empty.
  std::string reason;  // "signal 15", "rank 3 lost", or empty.
};

struct EnvironmentFacts {
  std::string host;
  std::string cpu_model;
  std::string device;  // "cpu", "cuda (8x NVIDIA H100)".
  std::string system;  // Kernel name and release.
  int num_cpus = 0;    // That this process may use.
  int64_t memory_bytes = 0;
  int num_ranks = 1;
  int num_hosts = 1;
  int threads_per_rank = 1;
};

using NamedText = std::pair<std::string, std::string>;

struct RunReport {
  Verdict verdict = Verdict::kSucceeded;
  std::string verdict_message;  // Why it failed or stopped; empty after success.
  std::string started_at;       // ISO 8601, UTC.
  double wall_time_s = 0;

  std::string model_name;
  std::string model_path;
  std::string output_path;
  std::string architecture;  // "LlamaForCausalLM".
  int64_t num_layers = 0;
  int64_t num_parameters = 0;
  int64_t source_bytes = 0;
  int64_t output_bytes = 0;
  // Stored bits (codes, scales, zero points) per weight, over the linears that
  // were compressed. ReportBuilder computes it from `linears` when 0.
  double bits_per_weight = 0;

  std::string scheme;             // One line: "GPTQ W4A16 g128 sym".
  std::string recipe;             // The recipe's text, as resolved (YAML).
  std::string command_line;       // Exactly as typed.
  std::string reproduce_command;  // With every default spelled out.

  std::vector<LinearRow> linears;
  std::vector<StepInterval> steps;
  std::vector<MemorySample> memory;
  int64_t planned_rank_peak_bytes = 0;  // Of one rank; 0: no plan.
  int64_t rank_budget_bytes = 0;        // Host budget / ranks on the host; 0: none.
  // Memory of the CUDA device of one rank; 0: computed on the CPU.
  int64_t planned_device_peak_bytes = 0;
  int64_t device_peak_bytes = 0;  // The most that was seen, of any rank.

  std::optional<CalibrationFacts> calibration;
  std::optional<EvaluationFacts> evaluation;
  std::vector<ReportWarning> warnings;
  int64_t warnings_dropped = 0;  // Above the limit of ReportBuilder.
  std::vector<ResumedFrom> resumed_from;

  EnvironmentFacts environment;
  std::vector<NamedText> versions;  // {"llmc", "0.1.0"}, {"LibTorch", "2.11.0"}, ...
  std::vector<NamedText> hashes;    // {"plan", "..."}, {"output", "sha256:..."}, ...
};

// Host, CPU, kernel and memory of this machine; ranks, hosts, threads and device
// are the caller's.
EnvironmentFacts DetectEnvironment();

// UTF-8 text of one JSON object, two-space indented, `schema_version` first.
std::string ToJson(const RunReport& report);

// The reverse; unknown keys are ignored, so that newer reports stay readable.
// kDataLoss: not such an object; kUnimplemented: a newer major schema_version.
absl::StatusOr<RunReport> ReportFromJson(absl::string_view json);

// One HTML file of at most kMaxHtmlBytes that needs nothing else: no script, no
// network. What does not fit is left out of its JSON island and long tables and
// the page says so; ToJson always has everything.
std::string ToHtml(const RunReport& report);
inline constexpr size_t kMaxHtmlBytes = size_t{2} << 20;

// A dozen aligned lines for the end of a run. `report_path` is printed when not
// empty. Ends with a line feed.
std::string ToTerminalSummary(const RunReport& report, const Terminal& terminal,
                              absl::string_view report_path);

}  // namespace llmc

#endif  // LLMC_SRC_REPORT_RUN_REPORT_H_
