#include "report/memory_chart.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "llmc/byte_size.h"
#include "report/badness.h"
#include "report/html_text.h"
#include "report/plot.h"

namespace llmc {
namespace {

constexpr int kBins = 240;
constexpr double kHeight = 180;
constexpr double kWidth = 1000;

// Per time bin, over the ranks: the largest and the median memory, bytes.
struct MemoryCurve {
  std::vector<double> largest, median;
  double total_s = 0;
};

// One rank's largest sample of each bin; between samples the last one holds.
std::vector<double> BinsOf(const std::vector<MemorySample>& samples, double total_s) {
  std::vector<double> bins(kBins, -1);
  for (const MemorySample& sample : samples) {
    const double at = std::clamp(sample.time_s / total_s, 0.0, 1.0);
    double& bin = bins[std::min(kBins - 1, static_cast<int>(at * kBins))];
    bin = std::max(bin, static_cast<double>(sample.rss_bytes));
  }
  double last = 0;
  for (double& bin : bins) {
    if (bin < 0) bin = last;
    last = bin;
  }
  return bins;
}

MemoryCurve CurveOf(const RunReport& report) {
  std::map<int, std::vector<MemorySample>> by_rank;
  MemoryCurve curve;
  curve.total_s = report.wall_time_s;
  for (const MemorySample& sample : report.memory) {
    by_rank[sample.rank].push_back(sample);
    curve.total_s = std::max(curve.total_s, sample.time_s);
  }
  if (!(curve.total_s > 0)) curve.total_s = 1;
  std::vector<std::vector<double>> ranks;
  for (const auto& [rank, samples] : by_rank) ranks.push_back(BinsOf(samples, curve.total_s));
  for (int bin = 0; bin < kBins; ++bin) {
    std::vector<double> values;
    for (const auto& bins : ranks) values.push_back(bins[bin]);
    curve.largest.push_back(*std::max_element(values.begin(), values.end()));
    curve.median.push_back(Median(std::move(values)));
  }
  return curve;
}

// "1,500 MB"-like steps of 1, 2, 2.5 or 5 times a power of ten.
double RoundStep(double top) {
  const double power = std::pow(10, std::floor(std::log10(top / 4)));
  for (double factor : {1.0, 2.0, 2.5, 5.0}) {
    if (factor * power * 4.6 >= top) return factor * power;
  }
  return 10 * power;
}

double YOf(double bytes, double top) { return kHeight * (1 - bytes / top); }

std::string StepLine(const std::vector<double>& values, double top) {
  std::string path = absl::StrCat("M0 ", Coord(YOf(values[0], top)));
  for (int bin = 0; bin < kBins; ++bin) {
    if (bin > 0 && values[bin] != values[bin - 1]) {
      absl::StrAppend(&path, "V", Coord(YOf(values[bin], top)));
    }
    absl::StrAppend(&path, "H", Coord(kWidth * (bin + 1) / kBins));
  }
  return path;
}

std::string Level(int64_t bytes, double top, absl::string_view css_class) {
  if (bytes <= 0 || static_cast<double>(bytes) > top) return "";
  return absl::StrCat("<path class=\"", css_class, "\" d=\"M0 ",
                      Coord(YOf(static_cast<double>(bytes), top)), "H", Coord(kWidth), "\"/>");
}

// `side`: "left" or "right", so that two levels close together stay readable.
std::string LevelTag(int64_t bytes, double top, absl::string_view name, absl::string_view side) {
  if (bytes <= 0 || static_cast<double>(bytes) > top) return "";
  const double at = 100 * (1 - static_cast<double>(bytes) / top);
  return absl::StrCat("<span class=\"tag\" style=\"", side, ":6px;top:", Coord(at), "%\">", name,
                      " ", FormatByteSize(bytes), "</span>");
}

// The axis reaches the budget only when that leaves the curve readable.
double TopOf(const RunReport& report, double peak) {
  double top = std::max(peak, static_cast<double>(report.planned_rank_peak_bytes));
  const double budget = static_cast<double>(report.rank_budget_bytes);
  if (budget <= 4 * top) top = std::max(top, budget);
  return std::max(top, 1.0) * 1.08;
}

std::string Shapes(const RunReport& report, const MemoryCurve& curve, double top) {
  const std::string line = StepLine(curve.largest, top);
  std::string out;
  for (double tick = RoundStep(top); tick < top; tick += RoundStep(top)) {
    absl::StrAppend(&out, "<path class=\"grid\" d=\"M0 ", Coord(YOf(tick, top)), "H1000\"/>");
  }
  absl::StrAppend(&out, "<path class=\"marea\" d=\"", line, "V", Coord(kHeight), "H0z\"/>");
  if (report.environment.num_ranks > 1) {
    absl::StrAppend(&out, "<path class=\"mmed\" d=\"", StepLine(curve.median, top), "\"/>");
  }
  absl::StrAppend(&out, "<path class=\"mline\" d=\"", line, "\"/>",
                  Level(report.planned_rank_peak_bytes, top, "plan"),
                  Level(report.rank_budget_bytes, top, "budget"));
  return out;
}

std::string LineKey(absl::string_view css_class, absl::string_view text) {
  return absl::StrCat(
      "<li class=\"wide\"><svg viewBox=\"0 0 22 12\" aria-hidden=\"true\"><path class=\"",
      css_class, "\" d=\"M0 6H22\"/></svg>", text, "</li>");
}

std::string Legend(const RunReport& report, double top) {
  const bool several = report.environment.num_ranks > 1;
  std::string out = absl::StrCat("<ul class=\"key\">",
                                 LineKey("mline", several ? "largest rank" : "resident memory"));
  if (several) absl::StrAppend(&out, LineKey("mmed", "median rank"));
  if (report.planned_rank_peak_bytes > 0) absl::StrAppend(&out, LineKey("plan", "planned peak"));
  if (report.rank_budget_bytes > 0) {
    const bool shown = static_cast<double>(report.rank_budget_bytes) <= top;
    absl::StrAppend(
        &out, LineKey("budget", absl::StrCat("budget ", FormatByteSize(report.rank_budget_bytes),
                                             shown ? "" : " (above the axis)")));
  }
  return absl::StrCat(out, "</ul>\n");
}

}  // namespace

int64_t PeakMemory(const RunReport& report, int* rank) {
  int64_t peak = 0;
  for (const MemorySample& sample : report.memory) {
    if (sample.rss_bytes <= peak) continue;
    peak = sample.rss_bytes;
    if (rank != nullptr) *rank = sample.rank;
  }
  return peak;
}

std::string MemoryChart(const RunReport& report) {
  const int64_t peak = PeakMemory(report, nullptr);
  if (peak == 0) return "";
  const MemoryCurve curve = CurveOf(report);
  const double top = TopOf(report, static_cast<double>(peak));
  Plot plot;
  plot.css_class = "slim";
  plot.title = absl::StrCat("Resident memory of a rank over time, peak ", FormatByteSize(peak));
  plot.width = kWidth;
  plot.height = kHeight;
  plot.height_px = 180;
  plot.svg = Shapes(report, curve, top);
  plot.overlay = LevelTag(report.planned_rank_peak_bytes, top, "plan", "left") +
                 LevelTag(report.rank_budget_bytes, top, "budget", "right");
  for (double tick = 0; tick < top; tick += RoundStep(top)) {
    plot.y_ticks.push_back(
        {1 - tick / top, tick == 0 ? "0" : FormatByteSize(static_cast<int64_t>(tick))});
  }
  plot.x_ticks = TimeTicks(curve.total_s);
  return absl::StrCat(ToHtml(plot), Legend(report, top));
}

}  // namespace llmc
