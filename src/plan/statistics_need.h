// What must be known about a layer's activations before its modifiers run.
#ifndef LLMC_PLAN_STATISTICS_NEED_H_
#define LLMC_PLAN_STATISTICS_NEED_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "llmc/scheme.h"

namespace llmc {

// Of one activation of a layer. One capture serves all modifiers that ask.
struct StatisticsNeed {
  bool hessian = false;  // X^T X; inputs only.
  bool extrema = false;  // Smallest and largest value, for static scales.
  // The same of the range that the search observer of these numbers finds.
  std::optional<QuantizationArgs> searched;
  int64_t num_channels = 1;      // 1, or heads: extrema of each apart.
  bool mean_magnitude = false;   // Inputs only: mean of |x| of every channel.
  bool channel_extrema = false;  // Inputs only: smallest and largest value of every channel.
  // The same for every sample: `extrema` of an input that a smoothing scales.
  bool channel_extrema_by_sample = false;
  bool squares = false;       // Inputs only: sum of x^2 of every channel.
  bool sample_norms = false;  // Inputs only: sum over samples of the norm of every channel.

  // Whether anything but the Hessian is wanted.
  bool HasRanges() const {
    return extrema || searched || mean_magnitude || channel_extrema || squares || sample_norms;
  }

  void Add(const StatisticsNeed& other);
};

// By tap: the name of an input group (its first linear), OutputTap or AttentionTap.
using Needs = std::map<std::string, StatisticsNeed>;
std::string OutputTap(const std::string& linear);
// `state`: "q", "k" or "v".
std::string AttentionTap(const std::string& attention, const std::string& state);

}  // namespace llmc

#endif  // LLMC_PLAN_STATISTICS_NEED_H_
