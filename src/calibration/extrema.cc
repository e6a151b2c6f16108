#include "calibration/extrema.h"

#include <algorithm>
#include <limits>

namespace llmc {

void ExtremaStatistic::Add(int64_t sample, std::span<const Extrema> extrema) {
  std::copy(extrema.begin(), extrema.end(), pairs_.begin() + sample * num_channels_);
  seen_[sample] = 1;
}

absl::Status ExtremaStatistic::Reduce(Collective& collective) {
  // A sample belongs to one rank; the others hold the neutral values.
  std::vector<float> lows(pairs_.size(), std::numeric_limits<float>::infinity());
  std::vector<float> highs(pairs_.size(), -std::numeric_limits<float>::infinity());
  for (size_t i = 0; i < pairs_.size(); ++i) {
    if (!seen_[i / num_channels_]) continue;
    lows[i] = pairs_[i].min;
    highs[i] = pairs_[i].max;
  }
  LLMC_RETURN_IF_ERROR(collective.AllReduceMin(std::span<float>(lows)));
  LLMC_RETURN_IF_ERROR(collective.AllReduceMax(std::span<float>(highs)));
  for (size_t i = 0; i < pairs_.size(); ++i) {
    pairs_[i] = {lows[i], highs[i]};
    seen_[i / num_channels_] = lows[i] <= highs[i];
  }
  return absl::OkStatus();
}

template <typename Step>
std::vector<Extrema> ExtremaStatistic::Fold(const Step& step) const {
  std::vector<Extrema> folded(num_channels_);
  bool first = true;
  for (size_t sample = 0; sample < seen_.size(); ++sample) {
    if (!seen_[sample]) continue;
    for (int64_t c = 0; c < num_channels_; ++c) {
      step(first, folded[c], pairs_[sample * num_channels_ + c]);
    }
    first = false;
  }
  return folded;
}

std::vector<Extrema> ExtremaStatistic::Static() const {
  return Fold([](bool, Extrema& all, const Extrema& sample) {
    all = {std::min(all.min, sample.min), std::max(all.max, sample.max)};
  });
}

std::vector<Extrema> ExtremaStatistic::MovingAverage(float averaging_constant) const {
  return Fold([&](bool first, Extrema& average, const Extrema& sample) {
    const float weight = first ? 1.0f : averaging_constant;
    average.min += weight * (sample.min - average.min);
    average.max += weight * (sample.max - average.max);
  });
}

std::vector<Extrema> ExtremaStatistic::Last() const {
  return Fold([](bool, Extrema& last, const Extrema& sample) { last = sample; });
}

}  // namespace llmc
