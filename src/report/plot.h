// A chart: an SVG that stretches with the page, with its labels beside it as
// HTML so that they stay readable at any width.
#ifndef LLMC_SRC_REPORT_PLOT_H_
#define LLMC_SRC_REPORT_PLOT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace llmc {

// A label at `at` of the axis, in [0, 1] from the left or the top.
struct Tick {
  double at = 0;
  std::string html;
  bool minor = false;  // Left out on narrow screens.
};

struct Plot {
  std::string css_class;  // Added to "plot".
  std::string title;      // What a screen reader says; plain text.
  double width = 1000;    // Of the SVG's coordinates.
  double height = 100;
  int height_px = 100;  // On the page.
  std::string svg;      // The shapes.
  std::string overlay;  // HTML placed over the plot.
  std::vector<Tick> y_ticks;
  std::vector<Tick> x_ticks;
  std::string x_title;
};

std::string ToHtml(const Plot& plot);

// <rect> with a class and, when `title` is not empty, a tooltip (plain text).
struct Box {
  double x = 0, y = 0, width = 0, height = 0;
};
std::string SvgRect(const Box& box, absl::string_view css_class, absl::string_view title = "");

// A path of rectangles "MxyhwvHhw": far smaller than elements.
std::string PathBox(const Box& box);

// Ticks of a time axis [0, total_s], at most eight, at round times.
std::vector<Tick> TimeTicks(double total_s);

// Ticks at `count` + 1 or fewer of the numbers, each with every other one minor.
std::vector<Tick> IndexTicks(const std::vector<int64_t>& numbers);

}  // namespace llmc

#endif  // LLMC_SRC_REPORT_PLOT_H_
