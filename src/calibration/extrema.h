// Smallest and largest values of activations, for static scales.
#ifndef LLMC_CALIBRATION_EXTREMA_H_
#define LLMC_CALIBRATION_EXTREMA_H_

#include <cstdint>
#include <span>
#include <vector>

#include "collective/collective.h"
#include "llmc/status.h"

namespace llmc {

struct Extrema {
  float min = 0;
  float max = 0;
};

// The extrema of one activation, a pair for every sample of the job and every
// channel (1 for a whole tensor, the number of heads for scales per head).
// Samples are kept apart so that a moving average can be folded in sample order
// afterwards and does not depend on how samples were shared out.
class ExtremaStatistic {
 public:
  explicit ExtremaStatistic(int64_t num_samples, int64_t num_channels = 1)
      : num_channels_(num_channels), pairs_(num_samples * num_channels), seen_(num_samples) {}

  int64_t num_channels() const { return num_channels_; }

  // `extrema`: [num_channels]. Thread-safe for different samples.
  void Add(int64_t sample, std::span<const Extrema> extrema);

  // Collective call: afterwards every rank holds the extrema of all samples.
  absl::Status Reduce(Collective& collective);

  // Each [num_channels]; zeros where no sample was seen.
  // Running minimum and maximum (observer static_minmax).
  std::vector<Extrema> Static() const;
  // Observer minmax: the first sample sets both, then v += c (new - v), every
  // operation in float32. The reference folds in the activation dtype, in which
  // an increment below half a unit in the last place is lost.
  std::vector<Extrema> MovingAverage(float averaging_constant) const;
  // Those of the last sample (memoryless observers).
  std::vector<Extrema> Last() const;

 private:
  // Samples in order: `step(is_first, folded, sample)` for every pair.
  template <typename Step>
  std::vector<Extrema> Fold(const Step& step) const;

  int64_t num_channels_;
  std::vector<Extrema> pairs_;  // [num_samples, num_channels]
  std::vector<uint8_t> seen_;   // [num_samples]
};

}  // namespace llmc

#endif  // LLMC_CALIBRATION_EXTREMA_H_
