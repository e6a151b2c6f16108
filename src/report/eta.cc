#include "report/eta.h"

#include <algorithm>

namespace llmc {
namespace {

// The newest half of the run, at least this many finishes: follows a run that
// changes speed without being moved by single layers.
constexpr size_t kNewest = 16;
constexpr size_t kMaxRates = 256;

}  // namespace

void EtaEstimator::Start(double time_s) {
  if (finished_s_.empty()) finished_s_.push_back(time_s);
}

void EtaEstimator::Finish(double time_s) {
  Start(time_s);
  finished_s_.push_back(std::max(time_s, finished_s_.back()));
}

std::optional<double> EtaEstimator::SecondsPerLayer() const {
  const size_t count = finished_s_.size();
  if (count < 2) return std::nullopt;
  const size_t layers = std::min(count - 1, std::max(kNewest, count / 2));
  const size_t span = std::max<size_t>(1, layers / 4);
  std::vector<double> rates;
  for (size_t end = count - 1; end >= count - 1 - layers + span; --end) {
    rates.push_back((finished_s_[end] - finished_s_[end - span]) / static_cast<double>(span));
    if (rates.size() == kMaxRates) break;
  }
  const auto middle = rates.begin() + static_cast<ptrdiff_t>(rates.size() / 2);
  std::nth_element(rates.begin(), middle, rates.end());
  return *middle;
}

std::optional<double> EtaEstimator::Remaining(int64_t remaining, double now_s) const {
  const std::optional<double> per_layer = SecondsPerLayer();
  if (!per_layer) return std::nullopt;
  if (remaining <= 0) return 0.0;
  const double spent = std::clamp(now_s - finished_s_.back(), 0.0, *per_layer);
  return static_cast<double>(remaining) * *per_layer - spent;
}

}  // namespace llmc
