#include "report/headline.h"

#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "report/badness.h"
#include "report/memory_chart.h"
#include "report/numbers.h"

namespace llmc {
namespace {

std::string Counted(int64_t count, absl::string_view noun) {
  return absl::StrCat(FormatCount(count), " ", noun, count == 1 ? "" : "s");
}

int64_t NumWarnings(const RunReport& report) {
  return static_cast<int64_t>(report.warnings.size()) + report.warnings_dropped;
}

std::optional<double> PerplexityChange(const RunReport& report) {
  if (!report.evaluation) return std::nullopt;
  const EvaluationFacts& facts = *report.evaluation;
  if (!facts.perplexity_before || !facts.perplexity_after) return std::nullopt;
  const double change = *facts.perplexity_after / *facts.perplexity_before - 1;
  return std::isfinite(change) ? std::optional(change) : std::nullopt;
}

}  // namespace

Headline HeadlineOf(const RunReport& report) {
  Headline headline;
  if (report.source_bytes > 0 && report.output_bytes > 0) {
    headline.ratio =
        static_cast<double>(report.source_bytes) / static_cast<double>(report.output_bytes);
  }
  for (const LinearRow& row : report.linears) {
    headline.fallbacks += row.is_fallback ? 1 : 0;
    headline.not_finite += row.output_error && !std::isfinite(*row.output_error) ? 1 : 0;
  }
  const std::vector<double> errors = FiniteErrors(report.linears);
  if (!errors.empty()) headline.median_error = Median(errors);
  const std::vector<const LinearRow*> worst = WorstFirst(report.linears, 1);
  if (!worst.empty() && worst[0]->output_error) headline.worst = worst[0];
  headline.peak_bytes = PeakMemory(report, &headline.peak_rank);
  headline.perplexity_change = PerplexityChange(report);
  return headline;
}

Tone ToneOf(const RunReport& report, const Headline& headline) {
  if (report.verdict == Verdict::kFailed) return Tone::kBad;
  const bool odd = headline.fallbacks > 0 || headline.not_finite > 0 || NumWarnings(report) > 0;
  return odd || report.verdict == Verdict::kCancelled ? Tone::kWarning : Tone::kGood;
}

std::string VerdictText(const RunReport& report, const Headline& headline) {
  if (report.verdict == Verdict::kFailed) return "Failed";
  if (report.verdict == Verdict::kCancelled) return "Stopped before the end";
  std::vector<std::string> oddities;
  if (headline.not_finite > 0) {
    oddities.push_back(absl::StrCat(Counted(headline.not_finite, "linear"), " not finite"));
  }
  if (headline.fallbacks > 0) oddities.push_back(Counted(headline.fallbacks, "fallback"));
  if (NumWarnings(report) > 0) oddities.push_back(Counted(NumWarnings(report), "warning"));
  if (oddities.empty()) return "Succeeded";
  return absl::StrCat("Succeeded, with ", absl::StrJoin(oddities, " and "));
}

}  // namespace llmc
