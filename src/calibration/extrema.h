// Smallest and largest input values of linears, for static activation scales.
#ifndef LLMC_CALIBRATION_EXTREMA_H_
#define LLMC_CALIBRATION_EXTREMA_H_

#include <cstdint>
#include <vector>

#include "collective/collective.h"
#include "llmc/status.h"

namespace llmc {

struct Extrema {
  float min = 0;
  float max = 0;
};

// The extrema of one input, one pair for every sample of the job. Samples are
// kept apart so that a moving average can be folded in sample order afterwards
// and does not depend on how samples were shared out.
class ExtremaStatistic {
 public:
  explicit ExtremaStatistic(int64_t num_samples) : per_sample_(num_samples), seen_(num_samples) {}

  // Thread-safe for different samples.
  void Add(int64_t sample, Extrema extrema) {
    per_sample_[sample] = extrema;
    seen_[sample] = 1;
  }

  // Collective call: afterwards every rank holds the extrema of all samples.
  absl::Status Reduce(Collective& collective);

  // Running minimum and maximum (observer static_minmax).
  Extrema Static() const;

  // Observer minmax: the first sample sets both, then v += c (new - v), every
  // operation in float32. The reference folds in the activation dtype, in which
  // an increment below half a unit in the last place is lost.
  Extrema MovingAverage(float averaging_constant) const;

 private:
  std::vector<Extrema> per_sample_;  // [num_samples]
  std::vector<uint8_t> seen_;        // [num_samples]
};

}  // namespace llmc

#endif  // LLMC_CALIBRATION_EXTREMA_H_
