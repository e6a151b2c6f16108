#include <algorithm>
#include <bit>

#include "kernels/cuda_queue.cuh"
#include "kernels/prune_blocks.h"
#include "kernels/prune_by_score.h"

namespace llmc::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kWarp = 32;

// Scores are not negative, so their bits rise with them.
__device__ uint32_t ScoreBits(const DeviceScoredRows& rows, int64_t row, int64_t column) {
  const float weight = fabsf(rows.weight[row * rows.in_features + column]);
  return std::bit_cast<uint32_t>(rows.norms != nullptr ? weight * rows.norms[column] : weight);
}

// A thread for each group: the `count` lowest of `size`, of equal ones those to the left.
__global__ void PruneGroupsKernel(DeviceScoredRows rows, int count, int size) {
  const int64_t group = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t groups_per_row = rows.in_features / size;
  if (group >= groups_per_row * rows.rows) return;
  const int64_t row = group / groups_per_row;
  const int64_t first = group % groups_per_row * size;
  // The count-th in the order of (score, column): each is the least beyond the one before.
  uint32_t last_score = 0;
  int last = -1;
  for (int n = 0; n < count; ++n) {
    uint32_t best_score = 0;
    int best = -1;
    for (int i = 0; i < size; ++i) {
      const uint32_t score = ScoreBits(rows, row, first + i);
      const bool is_beyond = last < 0 || score > last_score || (score == last_score && i > last);
      if (is_beyond && (best < 0 || score < best_score)) {
        best = i;
        best_score = score;
      }
    }
    last = best;
    last_score = best_score;
  }
  for (int i = 0; i < size; ++i) {
    const uint32_t score = ScoreBits(rows, row, first + i);
    if (score < last_score || (score == last_score && i <= last)) {
      rows.weight[row * rows.in_features + first + i] = 0;
    }
  }
}

// The score with `index` scores before it in rising order, by histograms of its bits, and
// how many of the scores equal to it are among the first index + 1.
struct Rounds {
  ScoreRound at[kScoreRounds.size()];
};

struct Selection {
  uint32_t score;
  int64_t ties;
};

__device__ Selection Select(const DeviceScoredRows& rows, const Rounds& rounds, int64_t row,
                            int64_t index) {
  __shared__ unsigned bins[kMostBins];
  __shared__ uint32_t prefix;
  __shared__ int64_t left;
  if (threadIdx.x == 0) {
    prefix = 0;
    left = index;
  }
  int prefix_shift = 31;
#pragma unroll
  for (int r = 0; r < static_cast<int>(kScoreRounds.size()); ++r) {
    const ScoreRound round = rounds.at[r];
    for (int i = threadIdx.x; i < kMostBins; i += kThreads) bins[i] = 0;
    __syncthreads();
    const uint32_t mask = (1u << round.bits) - 1;
    for (int64_t c = threadIdx.x; c < rows.in_features; c += kThreads) {
      const uint32_t score = ScoreBits(rows, row, c);
      if (score >> prefix_shift == prefix >> prefix_shift) {
        atomicAdd(&bins[score >> round.shift & mask], 1u);
      }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      uint32_t bin = 0;
      while (bin < mask && left >= bins[bin]) left -= bins[bin++];
      prefix |= bin << round.shift;
    }
    prefix_shift = round.shift;
    __syncthreads();
  }
  return {prefix, left + 1};
}

// A block for each row: the `count` lowest scores.
__global__ void PruneRowsKernel(DeviceScoredRows rows, Rounds rounds, int64_t count) {
  __shared__ int ties_of_warp[kThreads / kWarp];
  const int64_t row = blockIdx.x;
  const Selection selected = Select(rows, rounds, row, count - 1);
  const int lane = threadIdx.x % kWarp;
  const int warp = threadIdx.x / kWarp;
  int64_t seen = 0;  // Ties in the columns before.
  for (int64_t first = 0; first < rows.in_features; first += kThreads) {
    const int64_t c = first + threadIdx.x;
    const uint32_t score = c < rows.in_features ? ScoreBits(rows, row, c) : 0xffffffffu;
    const bool is_tie = score == selected.score;
    const unsigned ties = __ballot_sync(~0u, is_tie);
    if (lane == 0) ties_of_warp[warp] = __popc(ties);
    __syncthreads();
    int64_t before = seen + __popc(ties & ((1u << lane) - 1));
    int64_t all = 0;
    for (int w = 0; w < kThreads / kWarp; ++w) {
      if (w < warp) before += ties_of_warp[w];
      all += ties_of_warp[w];
    }
    seen += all;
    if (score < selected.score || (is_tie && before < selected.ties)) {
      rows.weight[row * rows.in_features + c] = 0;
    }
    __syncthreads();
  }
}

}  // namespace

absl::Status PruneByScore(const DeviceScoredRows& rows, double sparsity,
                          const MaskStructure& structure, DeviceQueue& queue) {
  LLMC_RETURN_IF_ERROR(CheckScoring(rows, sparsity, structure));
  if (structure.is_grouped()) {
    const int64_t groups = rows.rows * (rows.in_features / structure.group_size);
    return Launch(queue, {NumBlocks(groups, kThreads), kThreads}, PruneGroupsKernel, rows,
                  static_cast<int>(structure.prune_count), static_cast<int>(structure.group_size));
  }
  const auto count = static_cast<int64_t>(static_cast<double>(rows.in_features) * sparsity);
  if (count == 0) return absl::OkStatus();
  Rounds rounds;
  std::copy(kScoreRounds.begin(), kScoreRounds.end(), rounds.at);
  return Launch(queue, {static_cast<unsigned>(rows.rows), kThreads}, PruneRowsKernel, rows, rounds,
                count);
}

}  // namespace llmc::kernels
