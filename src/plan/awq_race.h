// How AWQ spares forwards of candidates (docs/decisions/0025-awq-race.md).
#ifndef LLMC_PLAN_AWQ_RACE_H_
#define LLMC_PLAN_AWQ_RACE_H_

#include <algorithm>
#include <cstdint>

namespace llmc {

// With this many tokens or more all candidates run on the samples whose number
// kAwqHeatEvery divides, and the best of them on the others.
inline constexpr int64_t kAwqRaceTokens = 16'384;
inline constexpr int64_t kAwqHeatEvery = 8;

// How many candidates run on the other samples; all: there is no race.
inline int64_t NumAwqFinalists(int64_t num_candidates, int64_t tokens) {
  if (tokens < kAwqRaceTokens) return num_candidates;
  return std::min(num_candidates, std::max<int64_t>(3, num_candidates / 5));
}

}  // namespace llmc

#endif  // LLMC_PLAN_AWQ_RACE_H_
