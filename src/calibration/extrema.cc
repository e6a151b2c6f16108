#include "calibration/extrema.h"

#include <algorithm>
#include <limits>

namespace llmc {

absl::Status ExtremaStatistic::Reduce(Collective& collective) {
  // A sample belongs to one rank; the others hold the neutral values.
  std::vector<float> lows(per_sample_.size(), std::numeric_limits<float>::infinity());
  std::vector<float> highs(per_sample_.size(), -std::numeric_limits<float>::infinity());
  for (size_t i = 0; i < per_sample_.size(); ++i) {
    if (!seen_[i]) continue;
    lows[i] = per_sample_[i].min;
    highs[i] = per_sample_[i].max;
  }
  LLMC_RETURN_IF_ERROR(collective.AllReduceMin(std::span<float>(lows)));
  LLMC_RETURN_IF_ERROR(collective.AllReduceMax(std::span<float>(highs)));
  for (size_t i = 0; i < per_sample_.size(); ++i) {
    per_sample_[i] = {lows[i], highs[i]};
    seen_[i] = lows[i] <= highs[i];
  }
  return absl::OkStatus();
}

Extrema ExtremaStatistic::Static() const {
  Extrema all;
  for (size_t i = 0; i < per_sample_.size(); ++i) {
    if (!seen_[i]) continue;
    all.min = std::min(all.min, per_sample_[i].min);
    all.max = std::max(all.max, per_sample_[i].max);
  }
  return all;
}

Extrema ExtremaStatistic::MovingAverage(float averaging_constant) const {
  Extrema average;
  bool first = true;
  for (size_t i = 0; i < per_sample_.size(); ++i) {
    if (!seen_[i]) continue;
    const Extrema sample = per_sample_[i];
    average.min += (first ? 1.0f : averaging_constant) * (sample.min - average.min);
    average.max += (first ? 1.0f : averaging_constant) * (sample.max - average.max);
    first = false;
  }
  return average;
}

}  // namespace llmc
