#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "llmc/byte_size.h"
#include "report/badness.h"
#include "report/headline.h"
#include "report/numbers.h"
#include "report/run_report.h"

namespace llmc {
namespace {

constexpr int kNameColumns = 17;

class SummaryText {
 public:
  explicit SummaryText(const Terminal& terminal) : terminal_(terminal) {}

  // One aligned line, cut to the terminal; nothing when `value` is empty. `tone`
  // is a colour of the value.
  void Line(absl::string_view name, absl::string_view value, absl::string_view tone = "") {
    if (value.empty()) return;
    const std::string shown = TruncateToWidth(value, Room(), terminal_.unicode);
    const std::string padding(std::max<size_t>(1, kNameColumns - name.size()), ' ');
    absl::StrAppend(&text_, "  ", Painted(name, "2"), padding, Painted(shown, tone), "\n");
  }

  // As Line, but never cut: for what is copied from the screen.
  void WholeLine(absl::string_view name, absl::string_view value) {
    if (value.empty()) return;
    const std::string padding(std::max<size_t>(1, kNameColumns - name.size()), ' ');
    absl::StrAppend(&text_, "  ", Painted(name, "2"), padding, value, "\n");
  }

  int Room() const { return std::max(20, terminal_.columns - kNameColumns - 3); }
  const Terminal& terminal() const { return terminal_; }
  std::string Take() { return std::move(text_); }

 private:
  std::string Painted(absl::string_view text, absl::string_view code) const {
    if (!terminal_.color || code.empty()) return std::string(text);
    return absl::StrCat("\x1b[", code, "m", text, "\x1b[0m");
  }

  const Terminal terminal_;
  std::string text_;
};

std::string Arrow(const Terminal& terminal) { return terminal.unicode ? " → " : " -> "; }

std::string SizeText(const RunReport& report, const Headline& headline, const Terminal& terminal) {
  if (headline.ratio <= 0) return "";
  return absl::StrCat(FormatByteSize(report.source_bytes), Arrow(terminal),
                      FormatByteSize(report.output_bytes), "  (", FormatFixed(headline.ratio, 2),
                      "x smaller)");
}

std::string PerplexityText(const RunReport& report, const Headline& headline,
                           const Terminal& terminal) {
  if (!report.evaluation || !report.evaluation->perplexity_after) return "";
  const EvaluationFacts& facts = *report.evaluation;
  std::string text;
  if (facts.perplexity_before) {
    text = absl::StrCat(FormatFixed(*facts.perplexity_before, 3), Arrow(terminal));
  }
  absl::StrAppend(&text, FormatFixed(*facts.perplexity_after, 3));
  if (headline.perplexity_change) {
    const double percent = *headline.perplexity_change * 100;
    absl::StrAppend(&text, "  (", percent >= 0 ? "+" : "-", FormatFixed(std::fabs(percent), 2),
                    " %)");
  }
  if (facts.mean_kl) absl::StrAppend(&text, "  KL ", FormatFixed(*facts.mean_kl, 4));
  return text;
}

std::string MemoryText(const RunReport& report, const Headline& headline) {
  if (headline.peak_bytes <= 0) return "";
  std::string text = FormatByteSize(headline.peak_bytes);
  if (report.environment.num_ranks > 1) absl::StrAppend(&text, " on rank ", headline.peak_rank);
  if (report.planned_rank_peak_bytes > 0) {
    absl::StrAppend(&text, "  (plan ", FormatByteSize(report.planned_rank_peak_bytes));
    if (report.rank_budget_bytes > 0) {
      absl::StrAppend(&text, ", budget ", FormatByteSize(report.rank_budget_bytes));
    }
    absl::StrAppend(&text, ")");
  }
  if (report.device_peak_bytes > 0) {
    absl::StrAppend(&text, ", device ", FormatByteSize(report.device_peak_bytes), "  (plan ",
                    FormatByteSize(report.planned_device_peak_bytes), ")");
  }
  return text;
}

std::string TimeText(const RunReport& report) {
  std::string text = FormatDuration(report.wall_time_s);
  const int ranks = report.environment.num_ranks;
  if (ranks > 1) absl::StrAppend(&text, " on ", ranks, " ranks");
  return text;
}

void AddWorst(const RunReport& report, SummaryText* out) {
  constexpr size_t kRows = 3;
  absl::string_view name = "Worst linears";
  for (const LinearRow* row : WorstFirst(report.linears, kRows)) {
    if (!row->output_error) continue;
    const std::string error = FormatFraction(*row->output_error);
    const std::string padding(error.size() < 10 ? 10 - error.size() : 1, ' ');
    const std::string tail = row->is_fallback ? "  (fallback)" : "";
    const int room = out->Room() - 10 - static_cast<int>(tail.size());
    const std::string module =
        ShortenMiddle(EscapeForTerminal(row->module), room, out->terminal().unicode);
    out->Line(name, absl::StrCat(error, padding, module, tail), row->is_fallback ? "33" : "");
    name = "";
  }
}

}  // namespace

std::string ToTerminalSummary(const RunReport& report, const Terminal& terminal,
                              absl::string_view report_path) {
  constexpr const char* kTones[] = {"1;32", "1;33", "1;31"};
  const Headline headline = HeadlineOf(report);
  SummaryText out(terminal);
  out.Line("Result", VerdictText(report, headline),
           kTones[static_cast<size_t>(ToneOf(report, headline))]);
  out.WholeLine("Reason", EscapeForTerminal(report.verdict_message));
  out.Line("Model", EscapeForTerminal(report.model_name));
  out.Line("Scheme", EscapeForTerminal(report.scheme));
  out.Line("Size", SizeText(report, headline, terminal), "1");
  if (report.bits_per_weight > 0) {
    out.Line("Bits per weight", FormatFixed(report.bits_per_weight, 2));
  }
  out.Line("Perplexity", PerplexityText(report, headline, terminal), "1");
  out.Line("Time", TimeText(report));
  out.Line("Peak memory", MemoryText(report, headline));
  if (headline.median_error) {
    out.Line("Median error", FormatFraction(*headline.median_error));
  }
  AddWorst(report, &out);
  out.WholeLine("Output", EscapeForTerminal(report.output_path));
  out.WholeLine("Report", EscapeForTerminal(report_path));
  return out.Take();
}

}  // namespace llmc
