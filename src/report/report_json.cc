#include "report/report_json.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "report/badness.h"

namespace llmc {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kVerdicts[] = {"succeeded", "failed", "cancelled"};

std::string Name(Step step) { return std::string(StepName(step)); }

template <typename T>
Json OrNull(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

// "not_finite" keeps apart what JSON's null cannot: not measured, not finite.
Json ErrorJson(const std::optional<double>& error) {
  if (!error) return nullptr;
  return std::isfinite(*error) ? Json(*error) : Json("not_finite");
}

Json LinearJson(const LinearRow& row) {
  return {{"module", row.module},
          {"layer", row.layer},
          {"scheme", row.scheme},
          {"shape", row.shape},
          {"method", row.method},
          {"fallback", row.is_fallback},
          {"output_error", ErrorJson(row.output_error)},
          {"bytes_before", row.bytes_before},
          {"bytes_after", row.bytes_after},
          {"damping_frac", OrNull(row.damping_frac)},
          {"num_tokens", OrNull(row.num_tokens)},
          {"sparsity", OrNull(row.sparsity)},
          {"reason", row.reason}};
}

Json LinearsJson(const RunReport& report, size_t limit) {
  Json out = Json::array();
  if (report.linears.size() <= limit) {
    for (const LinearRow& row : report.linears) out.push_back(LinearJson(row));
    return out;
  }
  for (const LinearRow* row : WorstFirst(report.linears, limit)) out.push_back(LinearJson(*row));
  return out;
}

// Columns instead of objects: a large run has tens of thousands of intervals.
Json StepsJson(const std::vector<StepInterval>& steps) {
  Json step = Json::array(), rank = step, layer = step, begin = step, end = step, finished = step;
  for (const StepInterval& interval : steps) {
    step.push_back(Name(interval.step));
    rank.push_back(interval.rank);
    layer.push_back(interval.layer);
    begin.push_back(interval.begin_s);
    end.push_back(interval.end_s);
    finished.push_back(interval.finished);
  }
  return {{"step", step},     {"rank", rank}, {"layer", layer},
          {"begin_s", begin}, {"end_s", end}, {"finished", finished}};
}

Json MemoryJson(const std::vector<MemorySample>& samples) {
  Json rank = Json::array(), time = rank, rss = rank;
  for (const MemorySample& sample : samples) {
    rank.push_back(sample.rank);
    time.push_back(sample.time_s);
    rss.push_back(sample.rss_bytes);
  }
  return {{"rank", rank}, {"time_s", time}, {"rss_bytes", rss}};
}

Json WarningsJson(const RunReport& report, size_t limit) {
  Json out = Json::array();
  for (const ReportWarning& warning : report.warnings) {
    if (out.size() == limit) break;
    out.push_back({{"time_s", warning.time_s},
                   {"step", Name(warning.step)},
                   {"rank", warning.rank},
                   {"layer", warning.layer},
                   {"module", warning.module},
                   {"message", warning.message}});
  }
  return out;
}

Json CalibrationJson(const std::optional<CalibrationFacts>& facts) {
  if (!facts) return nullptr;
  return {{"datasets", facts->datasets},
          {"num_samples", facts->num_samples},
          {"num_tokens", facts->num_tokens},
          {"max_seq_length", facts->max_seq_length},
          {"seed", facts->seed},
          {"shuffled", facts->shuffled},
          {"token_hash", facts->token_hash}};
}

Json EvaluationJson(const std::optional<EvaluationFacts>& facts) {
  if (!facts) return nullptr;
  return {{"dataset", facts->dataset},
          {"num_windows", facts->num_windows},
          {"window_length", facts->window_length},
          {"perplexity_before", OrNull(facts->perplexity_before)},
          {"perplexity_after", OrNull(facts->perplexity_after)},
          {"mean_kl", OrNull(facts->mean_kl)}};
}

Json EnvironmentJson(const EnvironmentFacts& facts) {
  return {{"host", facts.host},
          {"cpu_model", facts.cpu_model},
          {"device", facts.device},
          {"system", facts.system},
          {"num_cpus", facts.num_cpus},
          {"memory_bytes", facts.memory_bytes},
          {"num_ranks", facts.num_ranks},
          {"num_hosts", facts.num_hosts},
          {"threads_per_rank", facts.threads_per_rank}};
}

Json ResumedJson(const std::vector<ResumedFrom>& resumed) {
  Json out = Json::array();
  for (const ResumedFrom& from : resumed) {
    out.push_back(
        {{"layers_done", from.layers_done}, {"when", from.when}, {"reason", from.reason}});
  }
  return out;
}

Json NamedJson(const std::vector<NamedText>& pairs) {
  Json out = Json::object();
  for (const auto& [name, text] : pairs) out[name] = text;
  return out;
}

Json ModelJson(const RunReport& report) {
  return {{"name", report.model_name},
          {"path", report.model_path},
          {"architecture", report.architecture},
          {"num_layers", report.num_layers},
          {"num_parameters", report.num_parameters},
          {"bytes", report.source_bytes}};
}

Json OutputJson(const RunReport& report) {
  return {{"path", report.output_path},
          {"bytes", report.output_bytes},
          {"bits_per_weight", report.bits_per_weight},
          {"scheme", report.scheme}};
}

Json OmittedJson(const RunReport& report, const JsonLimits& limits) {
  const auto above = [](size_t have, size_t limit) { return have > limit ? have - limit : 0; };
  const auto all_or_none = [](size_t have, size_t limit) { return have > limit ? have : 0; };
  return {{"linears", above(report.linears.size(), limits.linears)},
          {"steps", all_or_none(report.steps.size(), limits.steps)},
          {"memory", all_or_none(report.memory.size(), limits.memory)},
          {"warnings", above(report.warnings.size(), limits.warnings) + report.warnings_dropped}};
}

Json ReportJson(const RunReport& report, const JsonLimits& limits) {
  Json json;
  json["schema_version"] = kReportSchemaVersion;
  json["verdict"] = kVerdicts[static_cast<size_t>(report.verdict)];
  json["verdict_message"] = report.verdict_message;
  json["started_at"] = report.started_at;
  json["wall_time_s"] = report.wall_time_s;
  json["model"] = ModelJson(report);
  json["output"] = OutputJson(report);
  json["command_line"] = report.command_line;
  json["reproduce_command"] = report.reproduce_command;
  json["recipe"] = report.recipe;
  json["calibration"] = CalibrationJson(report.calibration);
  json["evaluation"] = EvaluationJson(report.evaluation);
  json["planned_rank_peak_bytes"] = report.planned_rank_peak_bytes;
  json["rank_budget_bytes"] = report.rank_budget_bytes;
  json["planned_device_peak_bytes"] = report.planned_device_peak_bytes;
  json["device_peak_bytes"] = report.device_peak_bytes;
  json["environment"] = EnvironmentJson(report.environment);
  json["versions"] = NamedJson(report.versions);
  json["hashes"] = NamedJson(report.hashes);
  json["resumed_from"] = ResumedJson(report.resumed_from);
  json["omitted"] = OmittedJson(report, limits);
  json["warnings"] = WarningsJson(report, limits.warnings);
  json["linears"] = LinearsJson(report, limits.linears);
  json["steps"] =
      StepsJson(report.steps.size() <= limits.steps ? report.steps : std::vector<StepInterval>());
  json["memory"] = MemoryJson(report.memory.size() <= limits.memory ? report.memory
                                                                    : std::vector<MemorySample>());
  return json;
}

}  // namespace

std::string ToJson(const RunReport& report) {
  return ReportJson(report, {}).dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string ToCompactJson(const RunReport& report, const JsonLimits& limits) {
  return ReportJson(report, limits).dump(-1, ' ', true, Json::error_handler_t::replace);
}

}  // namespace llmc
