#include "report/badness.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace llmc {
namespace {

bool IsNumber(absl::string_view part) {
  return !part.empty() && part.find_first_not_of("0123456789") == absl::string_view::npos;
}

// Larger is worse.
double Rank(const LinearRow& row) {
  if (!row.output_error) return row.is_fallback ? -1 : -2;
  return std::isfinite(*row.output_error) ? *row.output_error
                                          : std::numeric_limits<double>::infinity();
}

}  // namespace

std::vector<const LinearRow*> WorstFirst(const std::vector<LinearRow>& linears, size_t limit) {
  std::vector<const LinearRow*> rows;
  for (const LinearRow& row : linears) rows.push_back(&row);
  std::stable_sort(rows.begin(), rows.end(),
                   [](const auto* a, const auto* b) { return Rank(*a) > Rank(*b); });
  rows.resize(std::min(rows.size(), limit));
  return rows;
}

std::string KindOf(const LinearRow& row) {
  if (row.layer < 0) return row.module;
  std::vector<absl::string_view> parts = absl::StrSplit(row.module, '.');
  const auto layer = std::find(parts.begin(), parts.end(), absl::StrCat(row.layer));
  if (layer != parts.end() && layer + 1 != parts.end()) parts.erase(parts.begin(), layer + 1);
  for (absl::string_view& part : parts) {
    if (IsNumber(part)) part = "*";
  }
  return absl::StrJoin(parts, ".");
}

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::map<std::string, double> MedianByKind(const std::vector<LinearRow>& linears) {
  std::map<std::string, std::vector<double>> errors;
  for (const LinearRow& row : linears) {
    if (row.output_error && std::isfinite(*row.output_error)) {
      errors[KindOf(row)].push_back(*row.output_error);
    }
  }
  std::map<std::string, double> medians;
  for (auto& [kind, values] : errors) medians[kind] = Median(std::move(values));
  return medians;
}

std::vector<double> FiniteErrors(const std::vector<LinearRow>& linears) {
  std::vector<double> errors;
  for (const LinearRow& row : linears) {
    if (row.output_error && std::isfinite(*row.output_error)) errors.push_back(*row.output_error);
  }
  return errors;
}

}  // namespace llmc
