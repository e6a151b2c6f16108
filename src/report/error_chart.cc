#include "report/error_chart.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "report/badness.h"
#include "report/html_text.h"
#include "report/numbers.h"
#include "report/plot.h"

namespace llmc {
namespace {

constexpr int kClasses = 9;
constexpr double kCell = 10;         // SVG units of one heat map cell.
constexpr size_t kMaxLayers = 512;   // Columns; layers above it are merged.
constexpr size_t kMaxKinds = 40;     // Rows; hybrid models have most.
constexpr size_t kMaxTitled = 3000;  // Cells with a tooltip.

// All linears of one kind in one column: one linear, or all its experts.
struct Cell {
  const LinearRow* worst = nullptr;
  std::vector<double> errors;
  int count = 0;
  int fallbacks = 0;
};

// The linears of the decoder layers as a table.
struct ErrorGrid {
  std::vector<int64_t> layers;                      // First layer of each column.
  std::vector<std::string> kinds;                   // In the order they appear.
  std::map<std::pair<size_t, size_t>, Cell> cells;  // column, row
  int64_t layers_per_column = 1;
  size_t kinds_left_out = 0;
};

bool IsWorse(const LinearRow& row, const LinearRow* worst) {
  if (worst == nullptr || !worst->output_error) return true;
  if (!row.output_error) return false;
  if (std::isnan(*worst->output_error)) return false;
  return std::isnan(*row.output_error) || *row.output_error > *worst->output_error;
}

void AddTo(Cell& cell, const LinearRow& row) {
  ++cell.count;
  cell.fallbacks += row.is_fallback ? 1 : 0;
  if (IsWorse(row, cell.worst)) cell.worst = &row;
  if (row.output_error && std::isfinite(*row.output_error)) {
    cell.errors.push_back(*row.output_error);
  }
}

std::vector<int64_t> DistinctLayers(const std::vector<LinearRow>& linears) {
  std::vector<int64_t> layers;
  for (const LinearRow& row : linears) {
    if (row.layer >= 0) layers.push_back(row.layer);
  }
  std::sort(layers.begin(), layers.end());
  layers.erase(std::unique(layers.begin(), layers.end()), layers.end());
  return layers;
}

ErrorGrid MakeGrid(const std::vector<LinearRow>& linears) {
  ErrorGrid grid;
  const std::vector<int64_t> layers = DistinctLayers(linears);
  const size_t merge = (layers.size() + kMaxLayers - 1) / kMaxLayers;
  grid.layers_per_column = static_cast<int64_t>(std::max<size_t>(merge, 1));
  std::map<int64_t, size_t> column_of;
  for (size_t i = 0; i < layers.size(); ++i) {
    column_of[layers[i]] = i / merge;
    if (i % merge == 0) grid.layers.push_back(layers[i]);
  }
  std::map<std::string, size_t> row_of;
  for (const LinearRow& row : linears) {
    if (row.layer < 0) continue;
    const std::string kind = KindOf(row);
    if (!row_of.contains(kind) && grid.kinds.size() < kMaxKinds) {
      row_of[kind] = grid.kinds.size();
      grid.kinds.push_back(kind);
    } else if (!row_of.contains(kind)) {
      ++grid.kinds_left_out;
      continue;
    }
    AddTo(grid.cells[{column_of[row.layer], row_of[kind]}], row);
  }
  return grid;
}

std::string CellTitle(const Cell& cell) {
  std::string text = absl::StrCat(cell.worst->module, "\n");
  if (!cell.worst->output_error) {
    absl::StrAppend(&text, "not measured");
  } else {
    absl::StrAppend(&text, cell.count > 1 ? "worst " : "", "output error ",
                    FormatFraction(*cell.worst->output_error));
  }
  if (cell.count > 1) {
    absl::StrAppend(&text, ", median ", FormatFraction(Median(cell.errors)), " of ", cell.count);
  }
  if (!cell.worst->method.empty()) absl::StrAppend(&text, "\n", cell.worst->method);
  if (cell.fallbacks > 0) absl::StrAppend(&text, ", fallback");
  return text;
}

// The tooltip keeps its line feeds; everything else in it is escaped.
std::string TitledRect(const Box& box, const std::string& css_class, const std::string& title) {
  std::string rect = SvgRect(box, css_class);
  rect.resize(rect.size() - 2);
  return absl::StrCat(rect, "><title>", EscapeHtmlBlock(title), "</title></rect>");
}

std::string HeatShapes(const ErrorGrid& grid, const ErrorScale& scale) {
  const bool titled = grid.cells.size() <= kMaxTitled;
  std::string out;
  std::map<std::string, std::string> paths;
  for (const auto& [place, cell] : grid.cells) {
    const double x = static_cast<double>(place.first) * kCell;
    const double y = static_cast<double>(place.second) * kCell;
    const Box box = {x, y, kCell, kCell};
    const std::string css_class = scale.CssClass(cell.worst->output_error);
    if (titled) {
      absl::StrAppend(&out, TitledRect(box, css_class, CellTitle(cell)));
    } else {
      absl::StrAppend(&paths[css_class], PathBox(box));
    }
    if (cell.fallbacks > 0) {
      absl::StrAppend(&paths["fb"], PathBox({x + 0.4, y + 6.6, kCell - 0.8, 2.8}));
    }
  }
  for (const auto& [css_class, path] : paths) {
    absl::StrAppend(&out, "<path class=\"", css_class, "\" pointer-events=\"none\" d=\"", path,
                    "\"/>");
  }
  return out;
}

std::vector<Tick> KindTicks(const ErrorGrid& grid) {
  std::map<std::string, int> uses;  // Last parts that name one kind only may stand alone.
  for (const std::string& kind : grid.kinds) ++uses[kind.substr(kind.rfind('.') + 1)];
  std::vector<Tick> ticks;
  for (size_t i = 0; i < grid.kinds.size(); ++i) {
    const std::string& kind = grid.kinds[i];
    const size_t cut = kind.rfind('.') + 1;
    const bool alone = uses[kind.substr(cut)] == 1;
    const std::string prefix = ShortenMiddle(kind.substr(0, cut), 15, true);
    const std::string last = ShortenMiddle(kind.substr(cut), alone ? 22 : 16, true);
    ticks.push_back({(static_cast<double>(i) + 0.5) / static_cast<double>(grid.kinds.size()),
                     absl::StrCat("<span class=\"pre\" title=\"", EscapeHtml(kind), "\">",
                                  EscapeHtml(prefix), "</span>", EscapeHtml(last))});
  }
  return ticks;
}

std::string HeatMap(const ErrorGrid& grid, const ErrorScale& scale) {
  Plot plot;
  plot.css_class = "heat";
  plot.title = "Output error of every linear, layers from left to right";
  plot.width = kCell * static_cast<double>(grid.layers.size());
  plot.height = kCell * static_cast<double>(grid.kinds.size());
  plot.height_px = static_cast<int>(grid.kinds.size()) * 19;
  plot.svg = HeatShapes(grid, scale);
  plot.y_ticks = KindTicks(grid);
  plot.x_ticks = IndexTicks(grid.layers);
  plot.x_title = "layer";
  return ToHtml(plot);
}

// Ticks of whole decades, top is high.
std::vector<Tick> DecadeTicks(const ErrorScale& scale) {
  std::vector<Tick> ticks;
  const int first = static_cast<int>(std::ceil(std::log10(scale.low()) - 0.01));
  const int last = static_cast<int>(std::floor(std::log10(scale.high()) + 0.01));
  const int step = std::max(1, (last - first + 5) / 6);
  for (int power = first; power <= last; power += step) {
    ticks.push_back({1 - scale.At(std::pow(10.0, power)), absl::StrFormat("1e%+03d", power)});
  }
  return ticks;
}

struct LayerRange {
  std::vector<double> errors;
  bool fallback = false;
};

std::vector<LayerRange> Ranges(const ErrorGrid& grid) {
  std::vector<LayerRange> ranges(grid.layers.size());
  for (const auto& [place, cell] : grid.cells) {
    LayerRange& range = ranges[place.first];
    range.errors.insert(range.errors.end(), cell.errors.begin(), cell.errors.end());
    range.fallback = range.fallback || cell.fallbacks > 0;
  }
  return ranges;
}

std::string RangeShapes(const ErrorGrid& grid, const ErrorScale& scale, double height) {
  std::string out;
  for (const Tick& tick : DecadeTicks(scale)) {
    absl::StrAppend(&out, "<path class=\"grid\" d=\"M0 ", Coord(tick.at * height), "H",
                    Coord(kCell * static_cast<double>(grid.layers.size())), "\"/>");
  }
  const std::vector<LayerRange> ranges = Ranges(grid);
  for (size_t i = 0; i < ranges.size(); ++i) {
    if (ranges[i].errors.empty()) continue;
    const auto [low, high] = std::minmax_element(ranges[i].errors.begin(), ranges[i].errors.end());
    const double median = Median(ranges[i].errors);
    const double x = static_cast<double>(i) * kCell;
    const double top = (1 - scale.At(*high)) * height;
    const double bottom = (1 - scale.At(*low)) * height;
    const std::string title =
        absl::StrCat("layer ", grid.layers[i], "\nworst ", FormatFraction(*high), "\nmedian ",
                     FormatFraction(median), "\nbest ", FormatFraction(*low));
    absl::StrAppend(&out,
                    TitledRect({x + 2, top, kCell - 4, std::max(bottom - top, 1.5)},
                               ranges[i].fallback ? "rngfb" : "rng", title),
                    SvgRect({x + 2, (1 - scale.At(median)) * height - 0.9, kCell - 4, 1.8}, "med"));
  }
  return out;
}

std::string RangeChart(const ErrorGrid& grid, const ErrorScale& scale) {
  Plot plot;
  plot.title = "Range of the output error in each layer, logarithmic";
  plot.width = kCell * static_cast<double>(grid.layers.size());
  plot.height = 150;
  plot.height_px = 150;
  plot.svg = RangeShapes(grid, scale, plot.height);
  plot.y_ticks = DecadeTicks(scale);
  return ToHtml(plot);
}

std::string Swatch(absl::string_view css_class) {
  return absl::StrCat("<svg viewBox=\"0 0 10 10\" aria-hidden=\"true\">",
                      SvgRect({0, 0, 10, 10}, css_class), "</svg>");
}

std::string Legend(const RunReport& report, const ErrorScale& scale) {
  std::string bar;
  for (int i = 0; i < kClasses; ++i) {
    absl::StrAppend(&bar, SvgRect({i * 10.0, 0, 10, 10}, absl::StrCat("e", i)));
  }
  const double middle = std::sqrt(scale.low() * scale.high());
  std::string out = absl::StrCat(
      "<ul class=\"key\"><li><span class=\"scale\"><svg viewBox=\"0 0 90 10\" "
      "preserveAspectRatio=\"none\" aria-hidden=\"true\">",
      bar, "</svg><span><span>", FormatFraction(scale.low()), "</span><span>",
      FormatFraction(middle), "</span><span>", FormatFraction(scale.high()),
      "</span></span></span></li>");
  bool fallback = false, not_finite = false, unmeasured = false;
  for (const LinearRow& row : report.linears) {
    fallback = fallback || row.is_fallback;
    not_finite = not_finite || (row.output_error && !std::isfinite(*row.output_error));
    unmeasured = unmeasured || !row.output_error;
  }
  absl::StrAppend(&out, "<li>", Swatch("rng"), "bar: best to worst of a layer, line: median</li>");
  if (fallback) absl::StrAppend(&out, "<li>", Swatch("fb"), "fell back to another method</li>");
  if (not_finite) absl::StrAppend(&out, "<li>", Swatch("nf"), "not finite</li>");
  if (unmeasured) absl::StrAppend(&out, "<li>", Swatch("en"), "not measured</li>");
  return absl::StrCat(out, "</ul>\n");
}

}  // namespace

ErrorScale::ErrorScale(const std::vector<double>& errors) : low_(1e-4), high_(1e-1) {
  double smallest = INFINITY, largest = 0;
  for (double error : errors) {
    if (!(error > 0)) continue;
    smallest = std::min(smallest, error);
    largest = std::max(largest, error);
  }
  if (largest == 0) return;
  // Below a millionth of the worst nothing needs telling apart.
  smallest = std::max({smallest, largest * 1e-6, 1e-12});
  const double low = std::floor(std::log10(smallest) * 2) / 2;
  const double high = std::max(std::ceil(std::log10(largest) * 2) / 2, low + 1);
  low_ = std::pow(10, low);
  high_ = std::pow(10, high);
}

double ErrorScale::At(double error) const {
  if (!(error > low_)) return 0;
  return std::min(1.0, std::log(error / low_) / std::log(high_ / low_));
}

std::string ErrorScale::CssClass(const std::optional<double>& error) const {
  if (!error) return "en";
  if (!std::isfinite(*error)) return "nf";
  return absl::StrCat("e", std::min(kClasses - 1, static_cast<int>(At(*error) * kClasses)));
}

std::string ErrorCharts(const RunReport& report) {
  const ErrorGrid grid = MakeGrid(report.linears);
  bool measured = false;
  for (const auto& [place, cell] : grid.cells) measured = measured || cell.worst->output_error;
  if (!measured) return "";
  const ErrorScale scale(FiniteErrors(report.linears));
  std::string out =
      absl::StrCat(RangeChart(grid, scale), HeatMap(grid, scale), Legend(report, scale));
  if (grid.layers_per_column > 1) {
    absl::StrAppend(&out, "<p class=\"note\">One column stands for ", grid.layers_per_column,
                    " layers and shows the worst.</p>\n");
  }
  if (grid.kinds_left_out > 0) {
    absl::StrAppend(&out, "<p class=\"note\">", grid.kinds_left_out,
                    " linears of further kinds are in the tables only.</p>\n");
  }
  return out;
}

}  // namespace llmc
