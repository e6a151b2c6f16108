#include <algorithm>
#include <initializer_list>
#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "llmc/byte_size.h"
#include "report/error_chart.h"
#include "report/html_text.h"
#include "report/linear_table.h"
#include "report/memory_chart.h"
#include "report/numbers.h"
#include "report/page_style.h"
#include "report/report_json.h"
#include "report/run_report.h"
#include "report/time_chart.h"
#include "report/verdict_strip.h"

namespace llmc {
namespace {

constexpr size_t kWorstRows = 20;
constexpr size_t kMaxNameBytes = 500;
constexpr size_t kMaxListLength = 100;

// How much of the long parts goes into the page; tried in turn until it fits.
struct PageLimits {
  size_t text_bytes;  // Of the recipe or a command.
  size_t linear_rows;
  size_t warnings;
  JsonLimits json;
};
constexpr PageLimits kLimits[] = {
    {65536, 1500, 200, {5000, 60000, 60000, 2000}},
    {65536, 1000, 100, {1500, 10000, 10000, 500}},
    {32768, 300, 50, {300, 0, 0, 100}},
    {8192, 20, 10, {0, 0, 0, 0}},
};

std::string Section(absl::string_view id, absl::string_view title, absl::string_view note,
                    absl::string_view body) {
  if (body.empty()) return "";
  return absl::StrCat("<section id=\"", id, "\" class=\"long\"><h2>", title, "</h2>",
                      note.empty() ? "" : absl::StrCat("<p>", note, "</p>"), "\n", body,
                      "</section>\n");
}

// A row of a <dl>; nothing when `html` is empty.
std::string Fact(absl::string_view name, absl::string_view html) {
  return html.empty() ? "" : absl::StrCat("<dt>", name, "</dt><dd>", html, "</dd>");
}

std::string CountFact(absl::string_view name, int64_t count) {
  return count > 0 ? Fact(name, FormatCount(count)) : "";
}

std::string Code(absl::string_view text) {
  return text.empty() ? "" : absl::StrCat("<code>", EscapeHtml(text), "</code>");
}

std::string List(absl::string_view title, absl::string_view facts) {
  if (facts.empty()) return "";
  return absl::StrCat("<div><h3>", title, "</h3><dl>", facts, "</dl></div>");
}

std::string Block(absl::string_view title, absl::string_view text) {
  if (text.empty()) return "";
  return absl::StrCat("<h3>", title, "</h3><pre>", EscapeHtmlBlock(text), "</pre>\n");
}

void Clip(std::string* text, size_t limit) {
  if (text->size() <= limit) return;
  text->resize(limit);
  absl::StrAppend(text, " [cut here]");
}

void ClipNames(std::initializer_list<std::string*> names) {
  for (std::string* name : names) Clip(name, kMaxNameBytes);
}

void ClipPairs(std::vector<NamedText>* pairs) {
  pairs->resize(std::min(pairs->size(), kMaxListLength));
  for (auto& [name, text] : *pairs) ClipNames({&name, &text});
}

void ClipRows(RunReport* report) {
  for (LinearRow& row : report->linears) {
    ClipNames({&row.module, &row.scheme, &row.method, &row.reason});
    if (row.shape.size() > 8) row.shape.resize(8);
  }
  for (ReportWarning& warning : report->warnings) {
    ClipNames({&warning.module});
    Clip(&warning.message, 4 * kMaxNameBytes);
  }
  report->resumed_from.resize(std::min(report->resumed_from.size(), kMaxListLength));
  for (ResumedFrom& from : report->resumed_from) ClipNames({&from.when, &from.reason});
}

// Strings of any length come in; none may take the page.
RunReport Clipped(RunReport report, size_t text_bytes) {
  for (std::string* text : {&report.command_line, &report.reproduce_command, &report.recipe}) {
    Clip(text, text_bytes);
  }
  Clip(&report.verdict_message, 4 * kMaxNameBytes);
  ClipNames({&report.started_at, &report.model_name, &report.model_path, &report.output_path,
             &report.architecture, &report.scheme});
  EnvironmentFacts& place = report.environment;
  ClipNames({&place.host, &place.cpu_model, &place.device, &place.system});
  if (report.evaluation) ClipNames({&report.evaluation->dataset});
  if (report.calibration) {
    ClipNames({&report.calibration->token_hash});
    std::vector<std::string>& datasets = report.calibration->datasets;
    datasets.resize(std::min(datasets.size(), kMaxListLength));
    for (std::string& dataset : datasets) ClipNames({&dataset});
  }
  ClipPairs(&report.versions);
  ClipPairs(&report.hashes);
  ClipRows(&report);
  return report;
}

// "2026-05-04T09:12:33Z" as "2026-05-04 09:12:33 UTC"; other text as it is.
std::string ReadableTime(std::string text) {
  if (text.size() != 20 || text[10] != 'T' || text[19] != 'Z') return text;
  text[10] = ' ';
  return absl::StrCat(text.substr(0, 19), " UTC");
}

std::string Header(const RunReport& report) {
  std::vector<std::string> facts;
  if (!report.scheme.empty()) facts.push_back(EscapeHtml(report.scheme));
  if (!report.architecture.empty()) facts.push_back(EscapeHtml(report.architecture));
  if (report.num_layers > 0)
    facts.push_back(absl::StrCat(FormatCount(report.num_layers), " layers"));
  if (report.num_parameters > 0) {
    facts.push_back(absl::StrCat(FormatCount(report.num_parameters), " parameters"));
  }
  const std::string name = report.model_name.empty() ? "Model" : EscapeHtml(report.model_name);
  return absl::StrCat(
      "<header><div class=\"brand\"><b>llmc</b><span class=\"sep\">/</span>"
      "<span>compression report</span>",
      report.started_at.empty() ? "" : "<span class=\"sep\">/</span>",
      EscapeHtml(ReadableTime(report.started_at)), "</div>\n<h1>", name, "</h1>\n<p class=\"sub\">",
      absl::StrJoin(facts, "  ·  "), "</p>\n", VerdictStrip(report));
}

// Equal messages once, with how often and where first.
struct WarningGroup {
  const ReportWarning* first = nullptr;
  int64_t count = 0;
};

std::string Where(const WarningGroup& group) {
  const ReportWarning& first = *group.first;
  std::vector<std::string> parts;
  if (!first.module.empty()) parts.push_back(Code(first.module));
  if (first.layer >= 0) parts.push_back(absl::StrCat("layer ", first.layer));
  parts.push_back(absl::StrCat(std::string(StepName(first.step)), " on rank ", first.rank,
                               " after ", FormatClock(first.time_s)));
  const std::string times =
      group.count > 1 ? absl::StrCat(FormatCount(group.count), " times, first at ") : "";
  return absl::StrCat(times, absl::StrJoin(parts, " · "));
}

std::vector<WarningGroup> GroupWarnings(const std::vector<ReportWarning>& warnings) {
  std::vector<WarningGroup> groups;
  std::map<std::string, size_t> group_of;
  for (const ReportWarning& warning : warnings) {
    const auto [found, is_new] = group_of.try_emplace(warning.message, groups.size());
    if (is_new) groups.push_back({&warning, 0});
    ++groups[found->second].count;
  }
  return groups;
}

std::string Warnings(const RunReport& report, size_t limit) {
  const std::vector<WarningGroup> groups = GroupWarnings(report.warnings);
  if (groups.empty()) return "<p class=\"quiet\">None.</p>";
  std::string out = "<ul class=\"warns\">";
  for (size_t i = 0; i < std::min(groups.size(), limit); ++i) {
    absl::StrAppend(&out, "<li>", EscapeHtml(groups[i].first->message), "<span class=\"where\">",
                    Where(groups[i]), "</span></li>");
  }
  absl::StrAppend(&out, "</ul>");
  const int64_t more = static_cast<int64_t>(groups.size() - std::min(groups.size(), limit));
  if (more + report.warnings_dropped > 0) {
    absl::StrAppend(&out, "<p class=\"note\">And ", FormatCount(more + report.warnings_dropped),
                    " more.</p>");
  }
  return out;
}

std::string Resumes(const RunReport& report) {
  if (report.resumed_from.empty()) return "";
  std::string out =
      "<h3>Earlier attempts</h3><div class=\"scroll\"><table id=\"resumes\"><thead><tr>"
      "<th class=\"n\">Layers kept</th><th>Stopped</th><th>Reason</th></tr></thead><tbody>";
  for (const ResumedFrom& from : report.resumed_from) {
    absl::StrAppend(&out, "<tr><td class=\"n\">", from.layers_done, "</td><td>",
                    EscapeHtml(from.when), "</td><td>", EscapeHtml(from.reason), "</td></tr>");
  }
  return absl::StrCat(out, "</tbody></table></div>\n");
}

std::string Calibration(const RunReport& report) {
  if (!report.calibration) return "";
  const CalibrationFacts& facts = *report.calibration;
  std::vector<std::string> datasets;
  for (const std::string& dataset : facts.datasets) datasets.push_back(Code(dataset));
  return List(
      "Calibration",
      absl::StrCat(Fact("Data", absl::StrJoin(datasets, "<br>")),
                   CountFact("Samples", facts.num_samples), CountFact("Tokens", facts.num_tokens),
                   CountFact("Longest sample", facts.max_seq_length),
                   Fact("Order", facts.shuffled ? absl::StrCat("shuffled, seed ", facts.seed)
                                                : std::string("as in the files")),
                   Fact("Token hash", Code(facts.token_hash))));
}

std::string Environment(const EnvironmentFacts& facts) {
  std::string ranks = absl::StrCat(facts.num_ranks, " × ", facts.threads_per_rank,
                                   facts.threads_per_rank == 1 ? " thread" : " threads");
  if (facts.num_hosts > 1) absl::StrAppend(&ranks, " on ", facts.num_hosts, " hosts");
  return List(
      "Environment",
      absl::StrCat(Fact("Host", EscapeHtml(facts.host)), Fact("CPU", EscapeHtml(facts.cpu_model)),
                   CountFact("CPUs", facts.num_cpus),
                   Fact("Memory", facts.memory_bytes > 0 ? FormatByteSize(facts.memory_bytes) : ""),
                   Fact("Device", EscapeHtml(facts.device)), Fact("Ranks", ranks),
                   Fact("System", EscapeHtml(facts.system))));
}

std::string Named(absl::string_view title, const std::vector<NamedText>& pairs, bool as_code) {
  std::string facts;
  for (const auto& [name, text] : pairs) {
    absl::StrAppend(&facts, Fact(EscapeHtml(name), as_code ? Code(text) : EscapeHtml(text)));
  }
  return List(title, facts);
}

std::string Files(const RunReport& report) {
  return List("Files", absl::StrCat(Fact("Model", Code(report.model_path)),
                                    Fact("Output", Code(report.output_path))));
}

std::string Linears(const RunReport& report) {
  return absl::StrCat(ErrorCharts(report), MethodTable(report), ExpertTable(report));
}

std::string Body(const RunReport& report, const PageLimits& limits) {
  const std::string time =
      absl::StrCat(TimeChart(report), StepTable(report), LayerTimeTable(report));
  return absl::StrCat(
      Section(
          "errors", "Output error",
          "Error of each linear's output on the calibration data, as a share of the output itself.",
          Linears(report)),
      Section("worst-linears", "Worst linears",
              "Sorted by output error. The third figure compares with the median of the same kind "
              "in other layers.",
              absl::StrCat(WorstTable(report, kWorstRows),
                           AllLinearsTable(report, limits.linear_rows))),
      Section("warnings", "Warnings", "",
              absl::StrCat(Warnings(report, limits.warnings), Resumes(report))),
      Section("time", "Time", "Steps of each rank from the start of the run.", time),
      Section("memory", "Memory", "Resident memory of a rank, sampled at the end of each step.",
              MemoryChart(report)),
      Section(
          "reproduce", "Reproduce", "",
          absl::StrCat(Block("Command", report.command_line),
                       Block("With every default spelled out", report.reproduce_command),
                       Block("Recipe", report.recipe), "<div class=\"cols\">", Calibration(report),
                       Environment(report.environment), Named("Versions", report.versions, false),
                       Files(report), "</div>", Named("Hashes", report.hashes, true))));
}

std::string Nav() {
  return "<nav aria-label=\"Sections\"><a href=\"#errors\">Output error</a>"
         "<a href=\"#worst-linears\">Worst linears</a><a href=\"#warnings\">Warnings</a>"
         "<a href=\"#time\">Time</a><a href=\"#memory\">Memory</a>"
         "<a href=\"#reproduce\">Reproduce</a></nav></header>\n";
}

std::string Page(const RunReport& report, const PageLimits& limits) {
  return absl::StrCat(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
      "'unsafe-inline'\">\n<meta name=\"referrer\" content=\"no-referrer\">\n<title>",
      EscapeHtml(report.model_name), " – llmc report</title>\n<style>", PageStyle(),
      "</style></head>\n<body>", Header(report), Nav(), "<main>", Body(report, limits),
      "</main>\n<footer>Written by llmc. The figures are in this page as JSON, element "
      "<code>llmc-report</code>, schema ",
      kReportSchemaVersion, ".</footer>\n<script type=\"application/json\" id=\"llmc-report\">",
      EscapeJsonForScript(ToCompactJson(report, limits.json)), "</script></body></html>\n");
}

}  // namespace

std::string ToHtml(const RunReport& report) {
  std::string page;
  for (const PageLimits& limits : kLimits) {
    page = Page(Clipped(report, limits.text_bytes), limits);
    if (page.size() <= kMaxHtmlBytes) break;
  }
  return page;
}

}  // namespace llmc
