#include "calibration/channel_extrema.h"

#include <algorithm>
#include <limits>

namespace llmc {

ChannelExtremaStatistic::ChannelExtremaStatistic(int64_t channels, int64_t num_samples,
                                                 bool by_sample)
    : channels_(channels),
      by_sample_(by_sample),
      min_(channels * (by_sample ? num_samples : 1), std::numeric_limits<float>::infinity()),
      max_(min_.size(), -std::numeric_limits<float>::infinity()) {}

void ChannelExtremaStatistic::Add(int64_t sample, std::span<const float> min,
                                  std::span<const float> max) {
  const int64_t first = by_sample_ ? sample * channels_ : 0;
  for (int64_t i = 0; i < channels_; ++i) {
    min_[first + i] = std::min(min_[first + i], min[i]);
    max_[first + i] = std::max(max_[first + i], max[i]);
  }
}

absl::Status ChannelExtremaStatistic::Reduce(Collective& collective) {
  LLMC_RETURN_IF_ERROR(collective.AllReduceMin(std::span<float>(min_)));
  return collective.AllReduceMax(std::span<float>(max_));
}

void ChannelExtremaStatistic::DivideBy(std::span<const float> factors) {
  for (size_t i = 0; i < min_.size(); ++i) {
    min_[i] /= factors[i % channels_];
    max_[i] /= factors[i % channels_];
  }
}

std::vector<float> ChannelExtremaStatistic::Min() const {
  std::vector<float> all(min_.begin(), min_.begin() + channels_);
  for (size_t i = channels_; i < min_.size(); ++i) {
    all[i % channels_] = std::min(all[i % channels_], min_[i]);
  }
  return all;
}

std::vector<float> ChannelExtremaStatistic::Max() const {
  std::vector<float> all(max_.begin(), max_.begin() + channels_);
  for (size_t i = channels_; i < max_.size(); ++i) {
    all[i % channels_] = std::max(all[i % channels_], max_[i]);
  }
  return all;
}

ExtremaStatistic ChannelExtremaStatistic::OfAllChannels() const {
  const int64_t rows = static_cast<int64_t>(min_.size()) / channels_;
  ExtremaStatistic extrema(rows);
  for (int64_t row = 0; row < rows; ++row) {
    const auto low = min_.begin() + row * channels_;
    const auto high = max_.begin() + row * channels_;
    const Extrema all{*std::min_element(low, low + channels_),
                      *std::max_element(high, high + channels_)};
    if (all.min <= all.max) extrema.Add(row, {&all, 1});
  }
  return extrema;
}

}  // namespace llmc
