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
constexpr double kBand = 10;       // Above the lanes, the band of layers.
constexpr double kComputing = 11;  // Of it, the steps that compute.
constexpr double kBeside = 4;      // And those beside them.
constexpr size_t kMaxLanes = 16;
constexpr size_t kMaxTitled = 1500;  // Intervals drawn with a tooltip each.
constexpr double kThinnest = 0.12;   // SVG units; thinner intervals are widened to it.
constexpr int kMaxBins = 200;

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

// A stretch of job time, seconds.
struct Span {
  double begin_s = INFINITY, end_s = 0;

  double length() const { return end_s - begin_s; }
  bool Meets(const StepInterval& interval) const {
    return interval.end_s >= begin_s && interval.begin_s <= end_s;
  }
  // Where `time_s` lies in the plot.
  double XOf(double time_s) const {
    return kWidth * std::clamp((time_s - begin_s) / length(), 0.0, 1.0);
  }
};

Box IntervalBox(const StepInterval& interval, double lane_top, const Span& shown) {
  const double x = shown.XOf(interval.begin_s);
  const double end = shown.XOf(interval.end_s);
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

// From the first begin to the last end of each layer's computing on any rank.
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

std::string LayerBand(const RunReport& report, const Span& shown) {
  const std::map<int64_t, Span> spans = LayerSpans(report.steps);
  if (spans.size() > kMaxTitled) return "";
  std::string out;
  for (const auto& [layer, span] : spans) {
    const double x = shown.XOf(span.begin_s);
    const double width = shown.XOf(span.end_s) - x;
    if (width <= 0) continue;
    absl::StrAppend(&out,
                    SvgRect({x, 0, width, 6}, layer % 2 == 0 ? "even" : "sPlan",
                            absl::StrCat("layer ", layer, ": ", FormatDuration(span.length()))));
  }
  return out;
}

std::string LaneShapes(const RunReport& report, const std::map<int, size_t>& lane_of,
                       const Span& shown) {
  size_t count = 0;
  const auto is_shown = [&](const StepInterval& interval) {
    return lane_of.contains(interval.rank) && shown.Meets(interval);
  };
  for (const StepInterval& interval : report.steps) count += is_shown(interval) ? 1 : 0;
  std::string out;
  std::map<std::string, std::string> paths;
  for (const StepInterval& interval : report.steps) {
    if (!is_shown(interval)) continue;
    const double top = kBand + kLane * static_cast<double>(lane_of.at(interval.rank));
    const Box box = IntervalBox(interval, top, shown);
    if (count <= kMaxTitled) {
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

std::string Lanes(const RunReport& report, const std::vector<int>& lanes, const Span& shown) {
  std::map<int, size_t> lane_of;
  for (size_t i = 0; i < lanes.size(); ++i) lane_of[lanes[i]] = i;
  Plot plot;
  plot.css_class = "slim";
  plot.title = "Steps of each rank over time";
  plot.width = kWidth;
  plot.height = kBand + kLane * static_cast<double>(lanes.size());
  plot.height_px = static_cast<int>(plot.height);
  plot.svg = LayerBand(report, shown) + LaneShapes(report, lane_of, shown);
  plot.y_ticks.push_back({3 / plot.height, "layers"});
  for (size_t i = 0; i < lanes.size(); ++i) {
    plot.y_ticks.push_back({(kBand + kLane * (static_cast<double>(i) + 0.5)) / plot.height,
                            absl::StrCat("rank ", lanes[i])});
  }
  plot.x_ticks = TimeTicks(shown.length());
  return ToHtml(plot);
}

// The layer of median length in close-up, when there are too many to see one above.
std::string TypicalLayer(const RunReport& report, const std::vector<int>& lanes) {
  constexpr size_t kFewLayers = 6;
  std::vector<std::pair<double, int64_t>> lengths;
  const std::map<int64_t, Span> spans = LayerSpans(report.steps);
  if (spans.size() <= kFewLayers) return "";
  for (const auto& [layer, span] : spans) lengths.emplace_back(span.length(), layer);
  std::sort(lengths.begin(), lengths.end());
  const auto [length_s, layer] = lengths[lengths.size() / 2];
  if (!(length_s > 0)) return "";
  return absl::StrCat("<h3>A typical layer: ", layer, ", ", FormatDuration(length_s), "</h3>\n",
                      Lanes(report, lanes, spans.at(layer)));
}

// About one time bin per layer: finer ones would only show that layers repeat.
int NumBins(const RunReport& report) {
  const int64_t layers = static_cast<int64_t>(LayerSpans(report.steps).size());
  return static_cast<int>(std::clamp<int64_t>(layers, 20, kMaxBins));
}

// The share of ranks in each step, per time bin.
std::vector<StepSeconds> Shares(const RunReport& report, double total_s, size_t num_ranks) {
  std::vector<StepSeconds> bins(static_cast<size_t>(NumBins(report)));
  const double bin_s = total_s / static_cast<double>(bins.size());
  for (const StepInterval& interval : report.steps) {
    if (RunsBeside(interval.step)) continue;
    const double last_bin = static_cast<double>(bins.size()) - 1;
    const int first = static_cast<int>(std::clamp(interval.begin_s / bin_s, 0.0, last_bin));
    const int last = static_cast<int>(std::clamp(interval.end_s / bin_s, 0.0, last_bin));
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
  plot.css_class = "slim";
  plot.title = "Share of ranks in each step over time";
  plot.width = kWidth;
  plot.height = plot.height_px = 120;
  const int num_bins = static_cast<int>(bins.size());
  std::vector<double> floor(bins.size(), 0);
  for (int s = 0; s < kStepCount; ++s) {
    std::string path;
    for (int bin = 0; bin < num_bins; ++bin) {
      const double height = plot.height * std::min(bins[bin][s], 1 - floor[bin]);
      if (height < 0.05) continue;
      const double bottom = plot.height * (1 - floor[bin]);
      path += PathBox({kWidth * bin / num_bins, bottom - height, kWidth / num_bins, height});
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
  if (lanes.size() == by_rank.size()) {
    return absl::StrCat(Lanes(report, lanes, {0, TotalSeconds(report)}),
                        TypicalLayer(report, lanes), Legend(report));
  }
  const std::string close_up = TypicalLayer(report, lanes);
  return absl::StrCat(ShareChart(report, by_rank.size()),
                      close_up.empty() ? Lanes(report, lanes, {0, TotalSeconds(report)}) : close_up,
                      "<p class=\"note\">", lanes.size(), " of ", by_rank.size(),
                      " ranks have a lane: the first, the busiest and the least busy.</p>\n",
                      Legend(report));
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
