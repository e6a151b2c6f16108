#include "report/plot.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "report/html_text.h"
#include "report/numbers.h"

namespace llmc {
namespace {

std::string TickSpan(const Tick& tick, absl::string_view side) {
  std::string css_class = tick.minor ? "alt" : "";
  if (side == "left" && tick.at < 0.001) absl::StrAppend(&css_class, " first");
  if (side == "left" && tick.at > 0.985) absl::StrAppend(&css_class, " last");
  return absl::StrCat("<span class=\"", css_class, "\" style=\"", side, ":", Coord(tick.at * 100),
                      "%\">", tick.html, "</span>");
}

std::string Ticks(const std::vector<Tick>& ticks, absl::string_view side) {
  std::string out;
  for (const Tick& tick : ticks) absl::StrAppend(&out, TickSpan(tick, side));
  return out;
}

// "90 s" for short axes, "1:30:00" for long ones.
std::string TimeLabel(double seconds, double total_s) {
  if (seconds == 0) return "0";
  if (total_s < 1) return absl::StrCat(FormatFixed(seconds * 1000, 0), " ms");
  if (total_s < 8) return absl::StrCat(FormatFixed(seconds, 1), " s");
  if (total_s < 180) return absl::StrCat(FormatFixed(seconds, 0), " s");
  if (total_s < 7200) return absl::StrCat(FormatFixed(seconds / 60, 0), " min");
  return absl::StrCat(FormatFixed(seconds / 3600, seconds < 36000 ? 1 : 0), " h");
}

}  // namespace

std::string ToHtml(const Plot& plot) {
  return absl::StrCat(
      "<div class=\"plot ", plot.css_class, "\"><div class=\"ys\">", Ticks(plot.y_ticks, "top"),
      "</div><div class=\"pl\" style=\"--h:", plot.height_px, "px\"><svg viewBox=\"0 0 ",
      Coord(plot.width), " ", Coord(plot.height),
      "\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"", EscapeHtml(plot.title), "\">",
      plot.svg, "</svg>", plot.overlay, "</div><div class=\"xs\">", Ticks(plot.x_ticks, "left"),
      "</div>",
      plot.x_title.empty() ? "" : absl::StrCat("<div class=\"xt\">", plot.x_title, "</div>"),
      "</div>\n");
}

std::string SvgRect(const Box& box, absl::string_view css_class, absl::string_view title) {
  std::string rect =
      absl::StrCat("<rect class=\"", css_class, "\" x=\"", Coord(box.x), "\" y=\"", Coord(box.y),
                   "\" width=\"", Coord(box.width), "\" height=\"", Coord(box.height), "\"");
  if (title.empty()) return absl::StrCat(rect, "/>");
  return absl::StrCat(rect, "><title>", EscapeHtml(title), "</title></rect>");
}

std::string PathBox(const Box& box) {
  const std::string width = Coord(box.width);
  return absl::StrCat("M", Coord(box.x), " ", Coord(box.y), "h", width, "v", Coord(box.height),
                      "h-", width, "z");
}

std::vector<Tick> TimeTicks(double total_s) {
  if (!(total_s > 0) || !std::isfinite(total_s)) return {};
  constexpr double kSteps[] = {0.001, 0.002, 0.005, 0.01,   0.02,   0.05,   0.1,  0.2,
                               0.5,   1,     2,     5,      10,     15,     30,   60,
                               120,   300,   600,   900,    1800,   3600,   7200, 10800,
                               21600, 43200, 86400, 172800, 604800, 2592000};
  const double* step = std::find_if(std::begin(kSteps), std::end(kSteps) - 1,
                                    [&](double s) { return total_s / s <= 8; });
  std::vector<Tick> ticks;
  for (int i = 0; i * *step <= total_s && i <= 1000; ++i) {
    ticks.push_back({i * *step / total_s, TimeLabel(i * *step, total_s), i % 2 == 1});
  }
  return ticks;
}

std::vector<Tick> IndexTicks(const std::vector<int64_t>& numbers) {
  std::vector<Tick> ticks;
  const size_t count = numbers.size();
  constexpr size_t kSteps[] = {1, 2, 4, 5, 10, 20, 25, 50, 100, 250, 1000, 10000};
  const size_t step = *std::find_if(std::begin(kSteps), std::end(kSteps) - 1,
                                    [&](size_t s) { return count / s <= 20; });
  const bool dense = count / step > 8;
  for (size_t i = 0; i < count; i += step) {
    ticks.push_back({(static_cast<double>(i) + 0.5) / static_cast<double>(count),
                     absl::StrCat(numbers[i]), dense && i / step % 2 == 1});
  }
  return ticks;
}

}  // namespace llmc
