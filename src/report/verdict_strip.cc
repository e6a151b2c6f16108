#include "report/verdict_strip.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "llmc/byte_size.h"
#include "report/headline.h"
#include "report/html_text.h"
#include "report/numbers.h"

namespace llmc {
namespace {

struct Tile {
  std::string title, big, small;  // HTML.
  std::string gauge;              // HTML, may be empty.
  std::string text;               // HTML.
};

std::string Render(const Tile& tile) {
  return absl::StrCat("<div class=\"tile\"><h2>", tile.title, "</h2><div class=\"big\">", tile.big,
                      tile.small.empty() ? "" : absl::StrCat(" <small>", tile.small, "</small>"),
                      "</div>", tile.gauge, "<p>", tile.text, "</p></div>");
}

// A filled bar with marks, all as shares in [0, 1].
std::string Gauge(double filled, const std::vector<double>& marks) {
  const auto percent = [](double share) { return Coord(100 * std::clamp(share, 0.0, 1.0)); };
  std::string out =
      absl::StrCat("<div class=\"gauge\"><i style=\"width:", percent(filled), "%\"></i>");
  for (double mark : marks) absl::StrAppend(&out, "<u style=\"left:", percent(mark), "%\"></u>");
  return absl::StrCat(out, "</div>");
}

Tile SizeTile(const RunReport& report, const Headline& headline) {
  if (report.output_bytes <= 0) {
    return {"Size", FormatByteSize(report.source_bytes), "", "", "Source; nothing was written"};
  }
  Tile tile = {"Size", FormatByteSize(report.output_bytes), "", "", ""};
  if (headline.ratio <= 0) return tile;
  tile.small = absl::StrCat("from ", FormatByteSize(report.source_bytes));
  tile.gauge = Gauge(1 / headline.ratio, {});
  tile.text =
      absl::StrCat(FormatFixed(headline.ratio, 2), "× smaller, saves ",
                   FormatByteSize(std::max<int64_t>(0, report.source_bytes - report.output_bytes)));
  return tile;
}

Tile BitsTile(const RunReport& report) {
  Tile tile = {"Bits per weight", FormatFixed(report.bits_per_weight, 2), "", "", ""};
  if (report.bits_per_weight <= 0) tile.big = "–";
  int64_t before = 0, after = 0;
  for (const LinearRow& row : report.linears) {
    before += row.bytes_before;
    after += row.bytes_after;
  }
  if (before > 0) tile.gauge = Gauge(static_cast<double>(after) / static_cast<double>(before), {});
  tile.text =
      absl::StrCat("scales included, over ",
                   FormatCount(static_cast<int64_t>(report.linears.size())), " compressed linears");
  return tile;
}

Tile ErrorTile(const Headline& headline) {
  Tile tile = {"Output error of a linear", "–", "", "",
               "not measured: the method needs no calibration"};
  if (headline.median_error) {
    tile.big = FormatFraction(*headline.median_error);
    tile.small = "median";
  }
  if (headline.worst != nullptr) {
    const double error = *headline.worst->output_error;
    tile.text = absl::StrCat(
        std::isfinite(error) ? absl::StrCat("worst ", FormatFraction(error)) : "not finite", " at ",
        EscapeHtml(headline.worst->module));
  }
  return tile;
}

std::string EvaluationText(const EvaluationFacts& facts) {
  std::vector<std::string> parts;
  if (facts.mean_kl)
    parts.push_back(absl::StrCat("KL ", FormatFixed(*facts.mean_kl, 4), " nats per token"));
  if (!facts.dataset.empty()) parts.push_back(absl::StrCat("on ", EscapeHtml(facts.dataset)));
  if (facts.num_windows > 0) {
    parts.push_back(absl::StrCat(FormatCount(facts.num_windows), " windows of ",
                                 FormatCount(facts.window_length)));
  }
  return absl::StrJoin(parts, ", ");
}

Tile QualityTile(const RunReport& report, const Headline& headline) {
  if (!report.evaluation) {
    return {"Perplexity", "–", "", "", "not measured; <code>llmc eval --against</code> does"};
  }
  const EvaluationFacts& facts = *report.evaluation;
  Tile tile = {"Perplexity", facts.perplexity_after ? FormatFixed(*facts.perplexity_after, 3) : "–",
               "", "", EvaluationText(facts)};
  if (facts.perplexity_before) {
    tile.small = absl::StrCat("from ", FormatFixed(*facts.perplexity_before, 3));
  }
  if (headline.perplexity_change) {
    const double percent = *headline.perplexity_change * 100;
    tile.text = absl::StrCat(percent >= 0 ? "+" : "−", FormatFixed(std::fabs(percent), 2), " %",
                             tile.text.empty() ? "" : ", ", tile.text);
  }
  return tile;
}

Tile TimeTile(const RunReport& report) {
  Tile tile = {"Time", FormatDuration(report.wall_time_s), "", "", ""};
  const int ranks = report.environment.num_ranks;
  tile.text = absl::StrCat(ranks, ranks == 1 ? " rank" : " ranks");
  if (report.environment.num_hosts > 1) {
    absl::StrAppend(&tile.text, " on ", report.environment.num_hosts, " hosts");
  }
  if (ranks > 1) {
    absl::StrAppend(&tile.text, ", ", FormatFixed(report.wall_time_s * ranks / 3600, 2),
                    " rank-hours");
  }
  if (report.num_layers > 0) {
    absl::StrAppend(&tile.text, ", ",
                    FormatDuration(report.wall_time_s / static_cast<double>(report.num_layers)),
                    " a layer");
  }
  return tile;
}

Tile MemoryTile(const RunReport& report, const Headline& headline) {
  const bool several = report.environment.num_ranks > 1;
  Tile tile = {several ? "Peak memory of a rank" : "Peak memory", "–", "", "", "not sampled"};
  if (headline.peak_bytes <= 0) return tile;
  const double peak = static_cast<double>(headline.peak_bytes);
  const double plan = static_cast<double>(report.planned_rank_peak_bytes);
  const double budget = static_cast<double>(report.rank_budget_bytes);
  tile.big = FormatByteSize(headline.peak_bytes);
  std::vector<std::string> parts;
  if (several) parts.push_back(absl::StrCat("rank ", headline.peak_rank));
  if (plan > 0) {
    parts.push_back(absl::StrCat(FormatFixed(100 * peak / plan, 0), " % of the planned ",
                                 FormatByteSize(report.planned_rank_peak_bytes)));
  }
  if (budget > 0)
    parts.push_back(absl::StrCat("budget ", FormatByteSize(report.rank_budget_bytes)));
  tile.text = absl::StrJoin(parts, ", ");
  const double full = std::max({peak, plan, budget});
  if (plan > 0 || budget > 0) {
    tile.gauge =
        Gauge(peak / full, plan > 0 ? std::vector<double>{plan / full} : std::vector<double>());
  }
  return tile;
}

std::string Lead(const RunReport& report, const Headline& headline) {
  constexpr const char* kClasses[] = {"ok", "warn", "bad"};
  constexpr const char* kMarks[] = {"✓", "!", "✕"};
  const size_t tone = static_cast<size_t>(ToneOf(report, headline));
  std::string text = absl::StrCat("<b>", VerdictText(report, headline), ".</b>");
  if (!report.verdict_message.empty()) {
    absl::StrAppend(&text, " ", EscapeHtml(report.verdict_message));
  } else if (headline.ratio > 0) {
    absl::StrAppend(&text, " The model is ", FormatFixed(headline.ratio, 2), " times smaller, at ",
                    FormatFixed(report.bits_per_weight, 2), " bits per compressed weight.");
  }
  return absl::StrCat("<div class=\"lead ", kClasses[tone],
                      "\" id=\"verdict\"><span class=\"mark\" aria-hidden=\"true\">", kMarks[tone],
                      "</span><span>", text, "</span></div>\n");
}

}  // namespace

std::string VerdictStrip(const RunReport& report) {
  const Headline headline = HeadlineOf(report);
  return absl::StrCat(Lead(report, headline), "<div class=\"tiles\">",
                      Render(SizeTile(report, headline)), Render(BitsTile(report)),
                      Render(QualityTile(report, headline)), Render(ErrorTile(headline)),
                      Render(TimeTile(report)), Render(MemoryTile(report, headline)), "</div>\n");
}

}  // namespace llmc
