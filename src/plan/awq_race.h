// How AWQ spares forwards of candidates (docs/decisions/0025-awq-race.md).
#ifndef LLMC_PLAN_AWQ_RACE_H_
#define LLMC_PLAN_AWQ_RACE_H_

#include <algorithm>
#include <cstdint>

namespace llmc {

// With fewer tokens all candidates run on all samples.
inline constexpr int64_t kAwqRaceTokens = 16'384;

// One heat: the best of the candidates so far run on a part of the samples.
struct AwqHeat {
  // Samples s with first <= s % kAwqSampleCycle < end.
  int64_t first;
  int64_t end;
  int64_t candidates_per_runner;

  bool Takes(int64_t sample) const;
  int64_t NumRunners(int64_t num_candidates) const {
    return std::min(num_candidates, std::max<int64_t>(2, num_candidates / candidates_per_runner));
  }
};
inline constexpr int64_t kAwqSampleCycle = 8;
inline constexpr AwqHeat kAwqRace[] = {{0, 1, 1}, {1, 2, 4}, {2, 8, 10}};
inline constexpr AwqHeat kAwqWithoutRace[] = {{0, 8, 1}};

inline bool AwqHeat::Takes(int64_t sample) const {
  const int64_t turn = sample % kAwqSampleCycle;
  return first <= turn && turn < end;
}

// Forwards of the calibration set that the candidates take together.
inline double NumAwqForwards(int64_t num_candidates, int64_t num_tokens) {
  if (num_tokens < kAwqRaceTokens) return static_cast<double>(num_candidates);
  int64_t parts = 0;
  for (const AwqHeat& heat : kAwqRace) {
    parts += (heat.end - heat.first) * heat.NumRunners(num_candidates);
  }
  return static_cast<double>(parts) / static_cast<double>(kAwqSampleCycle);
}

}  // namespace llmc

#endif  // LLMC_PLAN_AWQ_RACE_H_
