#include "report/report_builder.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "report/step_stream.h"

namespace llmc {
namespace {

double BitsPerWeight(const std::vector<LinearRow>& linears) {
  double bits = 0, weights = 0;
  for (const LinearRow& row : linears) {
    if (row.bytes_after <= 0 || row.shape.empty()) continue;
    double elements = 1;
    for (int64_t size : row.shape) elements *= static_cast<double>(size);
    bits += 8.0 * static_cast<double>(row.bytes_after);
    weights += elements;
  }
  return weights > 0 ? bits / weights : 0;
}

// NaN counts as the largest error.
double Worse(double a, double b) { return std::isnan(a) || a > b ? a : b; }

}  // namespace

LinearRow& ReportBuilder::RowOf(const std::string& module, int64_t layer) {
  const auto [found, is_new] = row_of_module_.try_emplace(module, report_.linears.size());
  if (is_new) {
    report_.linears.emplace_back();
    report_.linears.back().module = module;
    report_.linears.back().layer = layer;
  }
  return report_.linears[found->second];
}

void ReportBuilder::AddLinear(LinearRow row) {
  LinearRow& place = RowOf(row.module, row.layer);
  place = std::move(row);
}

void ReportBuilder::Add(const StepEvent& event) {
  last_time_s_ = std::max(last_time_s_, event.time_s);
  report_.num_layers = std::max({report_.num_layers, event.num_layers, event.layer + 1});
  report_.environment.num_ranks = std::max(report_.environment.num_ranks, event.rank + 1);
  const StepKey key = {event.rank, event.layer, event.step};
  switch (event.kind) {
    case StepEvent::Kind::kBegin:
      open_[key] = event.time_s;
      break;
    case StepEvent::Kind::kEnd:
      if (const auto began = open_.find(key); began != open_.end()) {
        report_.steps.push_back(
            {event.step, event.rank, event.layer, began->second, event.time_s, true});
        open_.erase(began);
      }
      AddMemory(event);
      break;
    case StepEvent::Kind::kProgress:
      AddMemory(event);
      break;
    case StepEvent::Kind::kLinear:
      AddLinearEvent(event);
      break;
    case StepEvent::Kind::kWarning:
      AddWarning(event);
      break;
  }
}

void ReportBuilder::AddMemory(const StepEvent& event) {
  if (event.rss_bytes <= 0) return;
  report_.memory.push_back({event.rank, event.time_s, event.rss_bytes});
}

void ReportBuilder::AddLinearEvent(const StepEvent& event) {
  LinearRow& row = RowOf(event.module, event.layer);
  SolveNote note = ParseSolveNote(event.message);
  if (!(event.output_error < 0)) {
    row.output_error =
        row.output_error ? Worse(event.output_error, *row.output_error) : event.output_error;
  }
  if (!note.method.empty()) row.method = note.method;
  row.is_fallback = row.is_fallback || note.is_fallback;
  if (note.damping_frac) {
    row.damping_frac = std::max(*note.damping_frac, row.damping_frac.value_or(0));
  }
  if (note.num_tokens) row.num_tokens = std::max(*note.num_tokens, row.num_tokens.value_or(0));
  if (note.sparsity) row.sparsity = note.sparsity;
  if (!note.reason.empty()) row.reason = note.reason;
}

void ReportBuilder::AddWarning(const StepEvent& event) {
  if (report_.warnings.size() >= kMaxWarnings) {
    ++report_.warnings_dropped;
    return;
  }
  report_.warnings.push_back(
      {event.time_s, event.step, event.rank, event.layer, event.module, event.message});
}

absl::Status ReportBuilder::AddJsonLines(absl::string_view lines) {
  int64_t number = 0;
  while (!lines.empty()) {
    const size_t end = std::min(lines.find('\n'), lines.size());
    const absl::string_view line = lines.substr(0, end);
    lines.remove_prefix(std::min(end + 1, lines.size()));
    ++number;
    if (line.empty()) continue;
    const absl::StatusOr<StepEvent> event = StepEventFromJsonLine(line);
    if (!event.ok()) return At(absl::StrCat("line ", number), event.status());
    Add(*event);
  }
  return absl::OkStatus();
}

StepSink ReportBuilder::Sink() {
  return [this](const StepEvent& event) { Add(event); };
}

RunReport ReportBuilder::Build() && {
  for (const auto& [key, begin_s] : open_) {
    const auto& [rank, layer, step] = key;
    report_.steps.push_back({step, rank, layer, begin_s, last_time_s_, false});
  }
  std::stable_sort(report_.steps.begin(), report_.steps.end(), [](const auto& a, const auto& b) {
    return std::tie(a.rank, a.begin_s) < std::tie(b.rank, b.begin_s);
  });
  std::stable_sort(report_.memory.begin(), report_.memory.end(), [](const auto& a, const auto& b) {
    return std::tie(a.rank, a.time_s) < std::tie(b.rank, b.time_s);
  });
  std::stable_sort(report_.linears.begin(), report_.linears.end(),
                   [](const auto& a, const auto& b) { return a.layer < b.layer; });
  if (report_.wall_time_s == 0) report_.wall_time_s = last_time_s_;
  if (report_.bits_per_weight == 0) report_.bits_per_weight = BitsPerWeight(report_.linears);
  return std::move(report_);
}

}  // namespace llmc
