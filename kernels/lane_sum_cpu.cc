#include <algorithm>
#include <bit>

#include "kernels/cpu_clones.h"
#include "kernels/lane_sum.h"

namespace llmc::kernels {
namespace {

constexpr int kLanes = 16;
constexpr int kRows = 4;    // Vectors in flight.
constexpr int kLevels = 4;  // Of the cascade of partial sums.

struct Partial {
  float lane[kRows][kLanes] = {};

  LLMC_INLINE void Add(const Partial& other) {
    for (int r = 0; r < kRows; ++r) {
      for (int l = 0; l < kLanes; ++l) lane[r][l] += other.lane[r][l];
    }
  }
};

template <bool kPairs>
LLMC_INLINE void AddVector(const float* terms, float* lane) {
  for (int l = 0; l < kLanes; ++l) lane[l] += kPairs ? terms[l] + terms[l + kLanes] : terms[l];
}

int CeilLog2(int64_t n) { return n <= 2 ? 1 : std::bit_width(static_cast<uint64_t>(n - 1)); }

// Sums of `steps` groups of kRows vectors. Every 2^power steps a level's sums
// move up one level, which bounds the rounding error.
template <bool kPairs>
LLMC_INLINE Partial CascadeSum(const float* terms, int64_t steps, int power) {
  constexpr int kVector = kPairs ? 2 * kLanes : kLanes;
  Partial level[kLevels];
  for (int64_t i = 0; i < steps;) {
    for (int r = 0; r < kRows; ++r) {
      AddVector<kPairs>(terms + (i * kRows + r) * kVector, level[0].lane[r]);
    }
    ++i;
    for (int j = 1; j < kLevels; ++j) {
      if ((i & ((int64_t{1} << (j * power)) - 1)) != 0) break;
      level[j].Add(level[j - 1]);
      level[j - 1] = Partial{};
    }
  }
  for (int j = 1; j < kLevels; ++j) level[0].Add(level[j]);
  return level[0];
}

template <bool kPairs>
LLMC_INLINE float Sum(const float* terms, int64_t n) {
  constexpr int kVector = kPairs ? 2 * kLanes : kLanes;
  const int64_t vectors = n / kVector;
  const int64_t steps = vectors / kRows;
  const int power = std::max(4, CeilLog2(steps) / kLevels);
  Partial sums = CascadeSum<kPairs>(terms, steps, power);
  for (int64_t v = steps * kRows; v < vectors; ++v) {
    AddVector<kPairs>(terms + v * kVector, sums.lane[0]);
  }
  for (int r = 1; r < kRows; ++r) {
    for (int l = 0; l < kLanes; ++l) sums.lane[0][l] += sums.lane[r][l];
  }
  float sum = 0;
  for (int64_t i = vectors * kVector; i < n; ++i) sum += terms[i];
  for (int l = 0; l < kLanes; ++l) sum += sums.lane[0][l];
  return sum;
}

LLMC_CLONES float SumSingles(const float* terms, int64_t n) { return Sum<false>(terms, n); }
LLMC_CLONES float SumPairs(const float* terms, int64_t n) { return Sum<true>(terms, n); }

}  // namespace

float LaneSum(const float* terms, int64_t n) { return SumSingles(terms, n); }
float LaneSumOfPairs(const float* terms, int64_t n) { return SumPairs(terms, n); }

}  // namespace llmc::kernels
