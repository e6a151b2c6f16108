#include "report/time_chart.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "report/badness.h"
#include "report/html_text.h"
#include "report/numbers.h"
#include "report/plot.h"
#include "report/step_totals.h"

namespace llmc {
namespace {

constexpr double kWidth = 1000;
constexpr double kLane = 20;       // Height of a rank's lane, px and SVG units.
constexpr double kComputing = 11;  // Of it, the steps that compute.
constexpr double kBeside = 4;      // And those beside them.
constexpr size_t kMaxLanes = 16;
constexpr size_t kMaxTitled = 1500;  // Intervals drawn with a tooltip each.
constexpr double kThinnest = 0.12;   // SVG units; thinner intervals are widened to it.
constexpr int kBins = 200;

std::string StepClass(Step step) { return absl::StrCat("s", std::string(StepName(step))); }

double TotalSeconds(const RunReport& report) {
  double total = report.wall_time_s;
  for (const StepInterval& interval : report.steps) total = std::max(total, interval.end_s);
  return total > 0 && std::isfinite(total) ? total : 1;
}

std::string IntervalTitle(const StepInterval& interval) {
  std::string text = absl::StrCat("rank ", interval.rank, ": ");
  if (interval.layer >= 0) absl::StrAppend(&text, "layer ", interval.layer, " ");
  return absl::StrCat(text, StepName(interval.step), ", ",
                      FormatDuration(interval.end_s - interval.begin_s),
                      interval.finished ? "" : ", not finished");
}

Box IntervalBox(const StepInterval& interval, double lane_top, double total_s) {
  const double x = kWidth * std::clamp(interval.begin_s / total_s, 0.0, 1.0);
  const double end = kWidth * std::clamp(interval.end_s / total_s, 0.0, 1.0);
  const bool beside = RunsBeside(interval.step);
  return {x, lane_top + (beside ? kComputing + 2.5 : 1.5), std::max(end - x, kThinnest),
          beside ? kBeside : kComputing};
}

// The ranks that get a lane, in order of rank.
std::vector<int> LanesOf(const std::map<int, StepSeconds>& by_rank) {
  std::vector<std::pair<double, int>> busy;
  for (const auto& [rank, seconds] : by_rank) busy.emplace_back(BusySeconds(seconds), rank);
  std::vector<int> lanes;
  if (busy.size() > kMaxLanes) {
    std::sort(busy.begin(), busy.end());
    const int first = by_rank.begin()->first;
    std::vector<std::pair<double, int>> chosen(busy.begin(), busy.begin() + 3);
    chosen.insert(chosen.end(), busy.end() - 4, busy.end());
    busy = chosen;
    lanes.push_back(first);
  }
  for (const auto& [seconds, rank] : busy) lanes.push_back(rank);
  std::sort(lanes.begin(), lanes.end());
  lanes.erase(std::unique(lanes.begin(), lanes.end()), lanes.end());
  return lanes;
}

// Alternating bands: from the first begin to the last end of a layer's computing on any rank.
struct Span {
  double begin_s = INFINITY, end_s = 0;
};

std::map<int64_t, Span> LayerSpans(const std::vector<StepInterval>& steps) {
  std::map<int64_t, Span> spans;
  for (const StepInterval& interval : steps) {
    if (interval.layer < 0 || RunsBeside(interval.step)) continue;
    Span& span = spans[interval.layer];
    span.begin_s = std::min(span.begin_s, interval.begin_s);
    span.end_s = std::max(span.end_s, interval.end_s);
  }
  return spans;
}

std::string LayerBand(const RunReport& report, double total_s) {
  const std::map<int64_t, Span> spans = LayerSpans(report.steps);
  if (spans.empty() || spans.size() > kMaxTitled) return "";
  std::string out;
  for (const auto& [layer, span] : spans) {
    const Box box = {kWidth * span.begin_s / total_s, 0,
                     kWidth * std::max(span.end_s - span.begin_s, 0.0) / total_s, 6};
    absl::StrAppend(&out, SvgRect(box, layer % 2 == 0 ? "even" : "sPlan",
                                  absl::StrCat("layer ", layer, ": ",
                                               FormatDuration(span.end_s - span.begin_s))));
  }
  return out;
}

std::string LaneShapes(const RunReport& report, const std::map<int, size_t>& lane_of,
                       double first_top) {
  const double total_s = TotalSeconds(report);
  size_t shown = 0;
  for (const StepInterval& interval : report.steps) shown += lane_of.count(interval.rank);
  std::string out;
  std::map<std::string, std::string> paths;
  for (const StepInterval& interval : report.steps) {
    const auto lane = lane_of.find(interval.rank);
    if (lane == lane_of.end()) continue;
    const double top = first_top + kLane * static_cast<double>(lane->second);
    const Box box = IntervalBox(interval, top, total_s);
    if (shown <= kMaxTitled) {
      absl::StrAppend(&out, SvgRect(box, StepClass(interval.step), IntervalTitle(interval)));
    } else {
      absl::StrAppend(&paths[StepClass(interval.step)], PathBox(box));
    }
  }
  for (const auto& [css_class, path] : paths) {
    absl::StrAppend(&out, "<path class=\"", css_class, "\" d=\"", path, "\"/>");
  }
  return out;
}

std::string Lanes(const RunReport& report, const std::vector<int>& lanes) {
  constexpr double kBand = 10;
  std::map<int, size_t> lane_of;
  for (size_t i = 0; i < lanes.size(); ++i) lane_of[lanes[i]] = i;
  const double total_s = TotalSeconds(report);
  Plot plot;
  plot.title = "Steps of each rank over time";
  plot.width = kWidth;
  plot.height = kBand + kLane * static_cast<double>(lanes.size());
  plot.height_px = static_cast<int>(plot.height);
  plot.svg = LayerBand(report, total_s) + LaneShapes(report, lane_of, kBand);
  plot.y_ticks.push_back({3 / plot.height, "layers"});
  for (size_t i = 0; i < lanes.size(); ++i) {
    plot.y_ticks.push_back({(kBand + kLane * (static_cast<double>(i) + 0.5)) / plot.height,
                            absl::StrCat("rank ", lanes[i])});
  }
  plot.x_ticks = TimeTicks(total_s);
  return ToHtml(plot);
}

// How many ranks are in each step, per time bin.
std::vector<StepSeconds> Shares(const RunReport& report, double total_s, size_t num_ranks) {
  std::vector<StepSeconds> bins(kBins);
  const double bin_s = total_s / kBins;
  for (const StepInterval& interval : report.steps) {
    if (RunsBeside(interval.step)) continue;
    const int first = static_cast<int>(std::clamp(interval.begin_s / bin_s, 0.0, kBins - 1.0));
    const int last = static_cast<int>(std::clamp(interval.end_s / bin_s, 0.0, kBins - 1.0));
    for (int bin = first; bin <= last; ++bin) {
      const double begin = std::max(interval.begin_s, bin * bin_s);
      const double end = std::min(interval.end_s, (bin + 1) * bin_s);
      const double share = std::max(0.0, end - begin) / bin_s / static_cast<double>(num_ranks);
      bins[bin][static_cast<size_t>(interval.step)] += share;
    }
  }
  return bins;
}

std::string ShareChart(const RunReport& report, size_t num_ranks) {
  const double total_s = TotalSeconds(report);
  const std::vector<StepSeconds> bins = Shares(report, total_s, num_ranks);
  Plot plot;
  plot.title = "Share of ranks in each step over time";
  plot.width = kWidth;
  plot.height = plot.height_px = 120;
  std::vector<double> floor(kBins, 0);
  for (int s = 0; s < kStepCount; ++s) {
    std::string path;
    for (int bin = 0; bin < kBins; ++bin) {
      const double height = plot.height * std::min(bins[bin][s], 1 - floor[bin]);
      if (height < 0.05) continue;
      const double bottom = plot.height * (1 - floor[bin]);
      path += PathBox({kWidth * bin / kBins, bottom - height, kWidth / kBins, height});
      floor[bin] += height / plot.height;
    }
    if (path.empty()) continue;
    absl::StrAppend(&plot.svg, "<path class=\"", StepClass(static_cast<Step>(s)), "\" d=\"", path,
                    "\"/>");
  }
  plot.y_ticks = {{0.05, "all ranks"}, {0.5, "half"}, {0.96, "none"}};
  plot.x_ticks = TimeTicks(total_s);
  return ToHtml(plot);
}

std::string Legend(const RunReport& report) {
  std::string out = "<ul class=\"key\">";
  StepSeconds seen{};
  for (const StepInterval& interval : report.steps) ++seen[static_cast<size_t>(interval.step)];
  bool beside = false;
  for (int s = 0; s < kStepCount; ++s) {
    if (seen[s] == 0) continue;
    const Step step = static_cast<Step>(s);
    beside = beside || RunsBeside(step);
    absl::StrAppend(&out, "<li><svg viewBox=\"0 0 10 10\" aria-hidden=\"true\">",
                    SvgRect({0, 0, 10, 10}, StepClass(step)), "</svg>", std::string(StepName(step)),
                    "</li>");
  }
  if (beside) absl::StrAppend(&out, "<li>thin: beside the computing steps</li>");
  return absl::StrCat(out, "</ul>\n");
}

struct StepRow {
  double median_s = 0, slowest_s = 0;
  int slowest_rank = 0;
};

StepRow RowOf(const std::map<int, StepSeconds>& by_rank, int step) {
  StepRow row;
  std::vector<double> values;
  for (const auto& [rank, seconds] : by_rank) {
    values.push_back(seconds[step]);
    if (seconds[step] <= row.slowest_s) continue;
    row.slowest_s = seconds[step];
    row.slowest_rank = rank;
  }
  row.median_s = Median(std::move(values));
  return row;
}

std::string ShareBar(double share) {
  return absl::StrCat(FormatFixed(share * 100, 1), " %<span class=\"ebar\"><i style=\"width:",
                      Coord(std::clamp(share, 0.0, 1.0) * 100), "%\"></i></span>");
}

}  // namespace

std::string TimeChart(const RunReport& report) {
  const std::map<int, StepSeconds> by_rank = SecondsByRank(report.steps);
  if (by_rank.empty()) return "";
  const std::vector<int> lanes = LanesOf(by_rank);
  std::string out;
  if (lanes.size() < by_rank.size()) {
    out = ShareChart(report, by_rank.size());
    absl::StrAppend(&out, "<h3>", lanes.size(), " of ", by_rank.size(),
                    " ranks: the first, the busiest and the least busy</h3>\n");
  }
  return absl::StrCat(out, Lanes(report, lanes), Legend(report));
}

std::string StepTable(const RunReport& report) {
  const std::map<int, StepSeconds> by_rank = SecondsByRank(report.steps);
  if (by_rank.empty()) return "";
  const double total_s = TotalSeconds(report);
  const bool several = by_rank.size() > 1;
  std::string out = absl::StrCat(
      "<div class=\"scroll\"><table id=\"steps\"><thead><tr><th>Step</th><th class=\"n\">",
      several ? "Median rank" : "Time", "</th><th class=\"n\">Share of the run</th>",
      several ? "<th class=\"n\">Slowest rank</th><th class=\"n\">Imbalance</th>" : "",
      "</tr></thead><tbody>");
  for (int s = 0; s < kStepCount; ++s) {
    const StepRow row = RowOf(by_rank, s);
    if (row.slowest_s <= 0) continue;
    absl::StrAppend(&out, "<tr><td>", std::string(StepName(static_cast<Step>(s))),
                    "</td><td class=\"n\">", FormatDuration(row.median_s), "</td><td class=\"n\">",
                    ShareBar(row.median_s / total_s), "</td>");
    if (several) {
      const double ratio = row.median_s > 0 ? row.slowest_s / row.median_s : NAN;
      absl::StrAppend(&out, "<td class=\"n\">", FormatDuration(row.slowest_s), " (rank ",
                      row.slowest_rank, ")</td><td class=\"n\">", FormatFixed(ratio, 2), "×</td>");
    }
    absl::StrAppend(&out, "</tr>");
  }
  return absl::StrCat(out, "</tbody></table></div>\n");
}

std::string LayerTimeTable(const RunReport& report) {
  constexpr size_t kMaxRows = 1000;
  const std::map<int64_t, StepSeconds> by_layer = SlowestByLayer(report.steps);
  if (by_layer.empty()) return "";
  std::vector<int> columns;
  for (int s = 0; s < kStepCount; ++s) {
    const bool used = std::any_of(by_layer.begin(), by_layer.end(),
                                  [&](const auto& layer) { return layer.second[s] > 0; });
    if (used) columns.push_back(s);
  }
  std::string out =
      "<details><summary>Time of every layer</summary><div class=\"scroll tall\"><table "
      "id=\"layers\"><thead><tr><th class=\"n\">Layer</th>";
  for (int s : columns) {
    absl::StrAppend(&out, "<th class=\"n\">", std::string(StepName(static_cast<Step>(s))), "</th>");
  }
  absl::StrAppend(&out, "</tr></thead><tbody>");
  size_t rows = 0;
  for (const auto& [layer, seconds] : by_layer) {
    if (rows++ == kMaxRows) break;
    absl::StrAppend(&out, "<tr><td class=\"n\">", layer, "</td>");
    for (int s : columns) {
      absl::StrAppend(&out, "<td class=\"n\">", FormatDuration(seconds[s]), "</td>");
    }
    absl::StrAppend(&out, "</tr>");
  }
  return absl::StrCat(out, "</tbody></table></div></details>\n");
}

}  // namespace llmc
