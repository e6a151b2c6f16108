#include "report/linear_table.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "llmc/byte_size.h"
#include "report/badness.h"
#include "report/error_chart.h"
#include "report/html_text.h"
#include "report/numbers.h"

namespace llmc {
namespace {

std::string Cell(absl::string_view label, absl::string_view html, absl::string_view css = "n") {
  const absl::string_view empty = html.empty() ? " void" : "";
  return absl::StrCat("<td class=\"", css, empty, "\" data-l=\"", label, "\">", html, "</td>");
}

// The module's name with everything before its last two parts in grey.
std::string ModuleHtml(const std::string& module) {
  const size_t last = module.rfind('.');
  const size_t cut = last == std::string::npos || last == 0 ? last : module.rfind('.', last - 1);
  if (cut == std::string::npos) return EscapeHtml(module);
  return absl::StrCat("<span class=\"pre\">", EscapeHtml(module.substr(0, cut + 1)), "</span><wbr>",
                      EscapeHtml(module.substr(cut + 1)));
}

std::string ErrorHtml(const LinearRow& row, const ErrorScale& scale) {
  if (!row.output_error) return "";
  if (!std::isfinite(*row.output_error)) return "<span class=\"chip bad\">not finite</span>";
  const double at = std::max(0.02, scale.At(*row.output_error)) * 100;
  return absl::StrCat(FormatFraction(*row.output_error),
                      "<span class=\"ebar\"><i style=\"width:", Coord(at), "%\"></i></span>");
}

std::string MethodHtml(const LinearRow& row) {
  std::string out = EscapeHtml(row.method);
  if (row.sparsity) {
    absl::StrAppend(&out, ", ", FormatFixed(100 * *row.sparsity, 1), "&#8239;% zeros");
  }
  if (row.is_fallback) absl::StrAppend(&out, " <span class=\"chip\">fallback</span>");
  return out;
}

std::string ShapeHtml(const std::vector<int64_t>& shape) {
  return absl::StrJoin(shape, "&#8239;×&#8239;");
}

std::string SizeHtml(const LinearRow& row) {
  if (row.bytes_before <= 0 && row.bytes_after <= 0) return "";
  return absl::StrCat(FormatByteSize(row.bytes_before), " → ", FormatByteSize(row.bytes_after));
}

std::string RatioHtml(const LinearRow& row, const std::map<std::string, double>& medians) {
  const auto median = medians.find(KindOf(row));
  if (!row.output_error || median == medians.end() || median->second <= 0) return "";
  const double ratio = *row.output_error / median->second;
  return std::isfinite(ratio) ? absl::StrCat(FormatFixed(ratio, 1), "×") : "";
}

std::string OptionalNumber(const std::optional<double>& value) {
  return value ? absl::StrCat(*value) : "";
}

std::string OptionalCount(const std::optional<int64_t>& value) {
  return value ? FormatCount(*value) : "";
}

// Short texts stay on one line; long ones may break anywhere.
absl::string_view TextClass(absl::string_view text) { return text.size() <= 28 ? "t" : "long"; }

std::string CommonCells(const LinearRow& row) {
  return absl::StrCat(Cell("Method", MethodHtml(row), TextClass(row.method)),
                      Cell("Damping", OptionalNumber(row.damping_frac)),
                      Cell("Tokens", OptionalCount(row.num_tokens)),
                      Cell("Scheme", EscapeHtml(row.scheme), TextClass(row.scheme)),
                      Cell("Shape", ShapeHtml(row.shape)));
}

constexpr absl::string_view kCommonHeads =
    "<th>Method</th><th class=\"n\">Damping</th><th class=\"n\">Tokens</th><th>Scheme</th>"
    "<th class=\"n\">Shape</th>";

// Facts of a group of linears.
struct Group {
  int64_t linears = 0, bytes_before = 0, bytes_after = 0;
  std::vector<double> errors;
};

struct ExpertGroup {
  int64_t linears = 0, unseen = 0;
  const LinearRow* fewest = nullptr;
  std::vector<double> tokens;
};

std::string ExpertRow(const std::string& kind, const ExpertGroup& group) {
  return absl::StrCat(
      "<tr>", Cell("", EscapeHtml(kind), "m"), Cell("Linears", FormatCount(group.linears)),
      Cell("Median tokens", FormatCount(static_cast<int64_t>(Median(group.tokens)))),
      Cell("Fewest", FormatCount(group.fewest->num_tokens.value_or(0))),
      Cell("Saw none", FormatCount(group.unseen)), "<td class=\"m\">",
      ModuleHtml(group.fewest->module), "</td></tr>");
}

}  // namespace

std::string WorstTable(const RunReport& report, size_t limit) {
  const std::vector<const LinearRow*> rows = WorstFirst(report.linears, limit);
  if (rows.empty()) return "";
  const ErrorScale scale(FiniteErrors(report.linears));
  const std::map<std::string, double> medians = MedianByKind(report.linears);
  std::string out = absl::StrCat(
      "<div class=\"scroll\"><table id=\"worst\" class=\"cards\"><thead><tr><th class=\"n\">#</th>"
      "<th>Linear</th><th class=\"n\">Output error</th><th class=\"n\">vs. its kind</th>",
      kCommonHeads, "</tr></thead><tbody>");
  size_t number = 0;
  for (const LinearRow* row : rows) {
    std::string name = ModuleHtml(row->module);
    if (!row->reason.empty()) {
      absl::StrAppend(&name, "<span class=\"why\">", EscapeHtml(row->reason), "</span>");
    }
    absl::StrAppend(&out, "<tr>", Cell("", absl::StrCat(++number), "n idx"), Cell("", name, "m"),
                    Cell("Error", ErrorHtml(*row, scale)),
                    Cell("vs. kind", RatioHtml(*row, medians)), CommonCells(*row), "</tr>");
  }
  return absl::StrCat(out, "</tbody></table></div>\n");
}

std::string AllLinearsTable(const RunReport& report, size_t limit) {
  const size_t total = report.linears.size();
  if (total == 0) return "";
  const ErrorScale scale(FiniteErrors(report.linears));
  std::vector<const LinearRow*> rows;
  if (total > limit) {
    rows = WorstFirst(report.linears, limit);
  } else {
    for (const LinearRow& row : report.linears) rows.push_back(&row);
  }
  std::string out = absl::StrCat(
      "<details><summary>",
      total > limit ? absl::StrCat("The worst ", limit, " of ",
                                   FormatCount(static_cast<int64_t>(total)), " linears")
                    : absl::StrCat("All ", total, " linears"),
      "</summary><div class=\"scroll tall\"><table id=\"linears\"><thead><tr><th>Linear</th>"
      "<th class=\"n\">Output error</th>",
      kCommonHeads, "<th class=\"n\">Size</th></tr></thead><tbody>");
  for (const LinearRow* row : rows) {
    absl::StrAppend(&out, "<tr><td class=\"m\">", EscapeHtml(row->module), "</td>",
                    "<td class=\"n\">", row->output_error ? FormatFraction(*row->output_error) : "",
                    "</td><td>", MethodHtml(*row), "</td><td class=\"n\">",
                    OptionalNumber(row->damping_frac), "</td><td class=\"n\">",
                    OptionalCount(row->num_tokens), "</td><td>", EscapeHtml(row->scheme),
                    "</td><td class=\"n\">", ShapeHtml(row->shape), "</td><td class=\"n\">",
                    SizeHtml(*row), "</td></tr>");
  }
  return absl::StrCat(out, "</tbody></table></div></details>\n");
}

std::string ExpertTable(const RunReport& report) {
  std::map<std::string, ExpertGroup> groups;
  for (const LinearRow& row : report.linears) {
    const std::string kind = KindOf(row);
    if (!row.num_tokens || !absl::StrContains(kind, "experts.*")) continue;
    ExpertGroup& group = groups[kind];
    ++group.linears;
    group.unseen += *row.num_tokens == 0 ? 1 : 0;
    group.tokens.push_back(static_cast<double>(*row.num_tokens));
    if (group.fewest == nullptr || *row.num_tokens < *group.fewest->num_tokens) group.fewest = &row;
  }
  if (groups.empty()) return "";
  std::string out =
      "<h3>Calibration tokens of the experts</h3><div class=\"scroll\"><table id=\"experts\" "
      "class=\"cards\"><thead><tr><th>Kind</th><th class=\"n\">Linears</th>"
      "<th class=\"n\">Median tokens</th><th class=\"n\">Fewest</th><th class=\"n\">Saw none</th>"
      "<th>With the fewest</th></tr></thead><tbody>";
  for (const auto& [kind, group] : groups) absl::StrAppend(&out, ExpertRow(kind, group));
  return absl::StrCat(out, "</tbody></table></div>\n");
}

std::string MethodTable(const RunReport& report) {
  constexpr size_t kMaxGroups = 40;
  std::map<std::pair<std::string, std::string>, Group> groups;
  for (const LinearRow& row : report.linears) {
    const std::string method = absl::StrCat(row.method, row.is_fallback ? " (fallback)" : "");
    if (groups.size() >= kMaxGroups && !groups.contains({row.scheme, method})) continue;
    Group& group = groups[{row.scheme, method}];
    ++group.linears;
    group.bytes_before += row.bytes_before;
    group.bytes_after += row.bytes_after;
    if (row.output_error && std::isfinite(*row.output_error)) {
      group.errors.push_back(*row.output_error);
    }
  }
  if (groups.empty()) return "";
  std::string out =
      "<div class=\"scroll\"><table id=\"methods\" class=\"cards\"><thead><tr><th>Scheme</th>"
      "<th>Method</th><th class=\"n\">Linears</th><th class=\"n\">Median error</th>"
      "<th class=\"n\">Before</th><th class=\"n\">After</th><th class=\"n\">Ratio</th></tr></thead>"
      "<tbody>";
  for (const auto& [key, group] : groups) {
    const double ratio = group.bytes_after > 0 ? static_cast<double>(group.bytes_before) /
                                                     static_cast<double>(group.bytes_after)
                                               : 0;
    absl::StrAppend(
        &out, "<tr>", Cell("", EscapeHtml(key.first), "m"),
        Cell("Method", EscapeHtml(key.second), TextClass(key.second)),
        Cell("Linears", FormatCount(group.linears)),
        Cell("Median error", group.errors.empty() ? "" : FormatFraction(Median(group.errors))),
        Cell("Before", FormatByteSize(group.bytes_before)),
        Cell("After", FormatByteSize(group.bytes_after)),
        Cell("Ratio", ratio > 0 ? absl::StrCat(FormatFixed(ratio, 2), "×") : ""), "</tr>");
  }
  return absl::StrCat(out, "</tbody></table></div>\n");
}

}  // namespace llmc
