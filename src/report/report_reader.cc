#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "report/run_report.h"

namespace llmc {
namespace {

using Json = nlohmann::ordered_json;  // Named texts keep their order.

const Json& Child(const Json& json, const char* key) {
  static const Json kNone = Json::object();
  const auto found = json.find(key);
  return found == json.end() || found->is_null() ? kNone : *found;
}

// `json` as a T; throws, which ReportFromJson turns into a status, when it is of
// another kind. A fraction is no whole number: its conversion could overflow.
template <typename T>
T As(const Json& json) {
  if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
    if (!json.is_number_integer()) throw std::invalid_argument("expected a whole number");
    if (!json.is_number_unsigned() && std::is_unsigned_v<T>) {
      throw std::invalid_argument("expected a number >= 0");
    }
    const T value = json.get<T>();
    if (Json(value) != json) throw std::invalid_argument("whole number out of range");
    return value;
  } else {
    return json.get<T>();
  }
}

// A key that is absent or null leaves the default.
template <typename T>
void Read(const Json& json, const char* key, T* out) {
  const auto found = json.find(key);
  if (found != json.end() && !found->is_null()) *out = As<T>(*found);
}

template <typename T>
void Read(const Json& json, const char* key, std::optional<T>* out) {
  const auto found = json.find(key);
  if (found != json.end() && !found->is_null()) *out = As<T>(*found);
}

template <typename T>
void Read(const Json& json, const char* key, std::vector<T>* out) {
  for (const Json& one : Child(json, key)) out->push_back(As<T>(one));
}

template <typename T>
T At(const Json& columns, const char* key, size_t i) {
  return As<T>(columns.at(key).at(i));
}

Step StepOf(const std::string& name) {
  for (int s = 0; s <= static_cast<int>(Step::kVerify); ++s) {
    if (StepName(static_cast<Step>(s)) == absl::string_view(name)) return static_cast<Step>(s);
  }
  throw std::invalid_argument("step: unknown name");
}

Verdict VerdictOf(const std::string& name) {
  if (name == "succeeded") return Verdict::kSucceeded;
  if (name == "failed") return Verdict::kFailed;
  if (name == "cancelled") return Verdict::kCancelled;
  throw std::invalid_argument("verdict: expected succeeded, failed or cancelled");
}

LinearRow LinearOf(const Json& json) {
  LinearRow row;
  Read(json, "module", &row.module);
  Read(json, "layer", &row.layer);
  Read(json, "scheme", &row.scheme);
  Read(json, "shape", &row.shape);
  Read(json, "method", &row.method);
  Read(json, "fallback", &row.is_fallback);
  Read(json, "bytes_before", &row.bytes_before);
  Read(json, "bytes_after", &row.bytes_after);
  Read(json, "damping_frac", &row.damping_frac);
  Read(json, "num_tokens", &row.num_tokens);
  Read(json, "sparsity", &row.sparsity);
  Read(json, "reason", &row.reason);
  const auto error = json.find("output_error");
  if (error != json.end() && error->is_string()) {
    row.output_error = std::numeric_limits<double>::quiet_NaN();
  } else {
    Read(json, "output_error", &row.output_error);
  }
  return row;
}

// The six columns have one length; `at` checks every index.
void ReadSteps(const Json& json, std::vector<StepInterval>* steps) {
  if (json.empty()) return;
  const size_t count = json.at("step").size();
  for (size_t i = 0; i < count; ++i) {
    steps->push_back({StepOf(At<std::string>(json, "step", i)), At<int>(json, "rank", i),
                      At<int64_t>(json, "layer", i), At<double>(json, "begin_s", i),
                      At<double>(json, "end_s", i), At<bool>(json, "finished", i)});
  }
}

void ReadMemory(const Json& json, std::vector<MemorySample>* samples) {
  if (json.empty()) return;
  const size_t count = json.at("rank").size();
  for (size_t i = 0; i < count; ++i) {
    samples->push_back({At<int>(json, "rank", i), At<double>(json, "time_s", i),
                        At<int64_t>(json, "rss_bytes", i)});
  }
}

ReportWarning WarningOf(const Json& json) {
  ReportWarning warning;
  Read(json, "time_s", &warning.time_s);
  Read(json, "rank", &warning.rank);
  Read(json, "layer", &warning.layer);
  Read(json, "module", &warning.module);
  Read(json, "message", &warning.message);
  if (json.contains("step")) warning.step = StepOf(json["step"].get<std::string>());
  return warning;
}

CalibrationFacts CalibrationOf(const Json& json) {
  CalibrationFacts facts;
  Read(json, "datasets", &facts.datasets);
  Read(json, "num_samples", &facts.num_samples);
  Read(json, "num_tokens", &facts.num_tokens);
  Read(json, "max_seq_length", &facts.max_seq_length);
  Read(json, "seed", &facts.seed);
  Read(json, "shuffled", &facts.shuffled);
  Read(json, "token_hash", &facts.token_hash);
  return facts;
}

EvaluationFacts EvaluationOf(const Json& json) {
  EvaluationFacts facts;
  Read(json, "dataset", &facts.dataset);
  Read(json, "num_windows", &facts.num_windows);
  Read(json, "window_length", &facts.window_length);
  Read(json, "perplexity_before", &facts.perplexity_before);
  Read(json, "perplexity_after", &facts.perplexity_after);
  Read(json, "mean_kl", &facts.mean_kl);
  return facts;
}

EnvironmentFacts EnvironmentOf(const Json& json) {
  EnvironmentFacts facts;
  Read(json, "host", &facts.host);
  Read(json, "cpu_model", &facts.cpu_model);
  Read(json, "device", &facts.device);
  Read(json, "system", &facts.system);
  Read(json, "num_cpus", &facts.num_cpus);
  Read(json, "memory_bytes", &facts.memory_bytes);
  Read(json, "num_ranks", &facts.num_ranks);
  Read(json, "num_hosts", &facts.num_hosts);
  Read(json, "threads_per_rank", &facts.threads_per_rank);
  return facts;
}

void ReadModelAndOutput(const Json& json, RunReport* report) {
  const Json& model = Child(json, "model");
  Read(model, "name", &report->model_name);
  Read(model, "path", &report->model_path);
  Read(model, "architecture", &report->architecture);
  Read(model, "num_layers", &report->num_layers);
  Read(model, "num_parameters", &report->num_parameters);
  Read(model, "bytes", &report->source_bytes);
  const Json& output = Child(json, "output");
  Read(output, "path", &report->output_path);
  Read(output, "bytes", &report->output_bytes);
  Read(output, "bits_per_weight", &report->bits_per_weight);
  Read(output, "scheme", &report->scheme);
}

void ReadTexts(const Json& json, RunReport* report) {
  Read(json, "verdict_message", &report->verdict_message);
  Read(json, "started_at", &report->started_at);
  Read(json, "wall_time_s", &report->wall_time_s);
  Read(json, "command_line", &report->command_line);
  Read(json, "reproduce_command", &report->reproduce_command);
  Read(json, "recipe", &report->recipe);
  Read(json, "planned_rank_peak_bytes", &report->planned_rank_peak_bytes);
  Read(json, "rank_budget_bytes", &report->rank_budget_bytes);
  Read(json, "planned_device_peak_bytes", &report->planned_device_peak_bytes);
  Read(json, "device_peak_bytes", &report->device_peak_bytes);
  Read(Child(json, "omitted"), "warnings", &report->warnings_dropped);
  for (const auto& [name, text] : Child(json, "versions").items()) {
    report->versions.emplace_back(name, text.get<std::string>());
  }
  for (const auto& [name, text] : Child(json, "hashes").items()) {
    report->hashes.emplace_back(name, text.get<std::string>());
  }
}

void ReadLists(const Json& json, RunReport* report) {
  for (const Json& row : Child(json, "linears")) report->linears.push_back(LinearOf(row));
  for (const Json& one : Child(json, "warnings")) report->warnings.push_back(WarningOf(one));
  for (const Json& one : Child(json, "resumed_from")) {
    ResumedFrom from;
    Read(one, "layers_done", &from.layers_done);
    Read(one, "when", &from.when);
    Read(one, "reason", &from.reason);
    report->resumed_from.push_back(from);
  }
  ReadSteps(Child(json, "steps"), &report->steps);
  ReadMemory(Child(json, "memory"), &report->memory);
}

RunReport ReportOf(const Json& json) {
  RunReport report;
  report.verdict = VerdictOf(json.at("verdict").get<std::string>());
  ReadModelAndOutput(json, &report);
  ReadTexts(json, &report);
  ReadLists(json, &report);
  report.environment = EnvironmentOf(Child(json, "environment"));
  if (!Child(json, "calibration").empty()) report.calibration = CalibrationOf(json["calibration"]);
  if (!Child(json, "evaluation").empty()) report.evaluation = EvaluationOf(json["evaluation"]);
  return report;
}

}  // namespace

absl::StatusOr<RunReport> ReportFromJson(absl::string_view text) {
  const Json json = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return absl::DataLossError("report: expected a JSON object");
  const auto version = json.find("schema_version");
  if (version == json.end() || !version->is_number_integer()) {
    return absl::DataLossError("report: schema_version: expected a whole number");
  }
  if (version->get<int64_t>() > kReportSchemaVersion) {
    return absl::UnimplementedError(absl::StrCat("report: schema_version ", version->get<int64_t>(),
                                                 ": this build reads up to ",
                                                 kReportSchemaVersion));
  }
  try {
    return ReportOf(json);
  } catch (const std::exception& error) {
    return absl::DataLossError(absl::StrCat("report: ", error.what()));
  }
}

}  // namespace llmc
