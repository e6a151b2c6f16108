// Smallest and largest value of every input channel: SmoothQuant's activation range,
// and the extrema of an input that a smoothing scales.
#ifndef LLMC_CALIBRATION_CHANNEL_EXTREMA_H_
#define LLMC_CALIBRATION_CHANNEL_EXTREMA_H_

#include <cstdint>
#include <span>
#include <vector>

#include "calibration/extrema.h"
#include "collective/collective.h"
#include "llmc/status.h"

namespace llmc {

// Minimum and maximum do not care about order, so the result does not depend on
// ranks. Memory: 8 bytes a channel, times the samples when they are kept apart.
class ChannelExtremaStatistic {
 public:
  // `num_samples` is the job's; `by_sample` keeps every sample's extrema, which
  // OfAllChannels() then folds in sample order.
  ChannelExtremaStatistic(int64_t channels, int64_t num_samples, bool by_sample);

  // `min`, `max`: [channels] of one sample.
  void Add(int64_t sample, std::span<const float> min, std::span<const float> max);

  // Collective call: afterwards every rank holds the extrema over all ranks.
  absl::Status Reduce(Collective& collective);

  // The input is divided by `factors`, [channels], > 0.
  void DivideBy(std::span<const float> factors);

  // Over all samples, [channels]; +infinity and -infinity where none was seen.
  std::vector<float> Min() const;
  std::vector<float> Max() const;

  // Over all channels: by sample when samples are kept apart, else as one sample.
  ExtremaStatistic OfAllChannels() const;

 private:
  int64_t channels_;
  bool by_sample_;
  std::vector<float> min_;  // [rows, channels], a row a sample or one for all.
  std::vector<float> max_;
};

}  // namespace llmc

#endif  // LLMC_CALIBRATION_CHANNEL_EXTREMA_H_
