#include <algorithm>
#include <bit>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/column_block.cuh"
#include "kernels/column_lanes.cuh"
#include "kernels/cuda_queue.cuh"
#include "kernels/prune_blocks.h"
#include "kernels/sparsegpt_solve.h"

namespace llmc::kernels {
namespace {

constexpr int kThreads = 256;

__device__ float ScoreOf(float weight, float diagonal) {
  return weight * weight / (diagonal * diagonal);
}

__device__ bool IsKeptZero(const uint32_t* zeros, int64_t words, int64_t column, int64_t row) {
  return zeros != nullptr && (zeros[column * words + row / kWarp] >> row % kWarp & 1u) != 0;
}

// Columns [begin, begin + width) of the lanes, whose mask is chosen at once.
struct MaskBlock {
  const float* upper = nullptr;
  int64_t n = 0;
  const float* lanes = nullptr;     // f32 [n, ld]
  const uint32_t* zeros = nullptr;  // [n, ld / 32]; null: none is kept.
  int64_t rows = 0;
  int64_t ld = 0;
  int64_t begin = 0;
  int64_t width = 0;
  float* scores = nullptr;  // Out, f32 [width, ld].
};

using Count = unsigned long long;  // What CUDA adds atomically.

// The state of the search for the score at an index.
struct Search {
  Count bins[kMostBins + 1];  // The last: weights that stay 0 in any case.
  int64_t index;
  uint32_t prefix;
  float threshold;
  int is_found;
};

__global__ void StartKernel(int64_t index, bool is_found, float threshold, Search* search) {
  search->index = index;
  search->is_found = is_found ? 1 : 0;
  search->threshold = threshold;
}

__global__ void ScoreKernel(MaskBlock b, Count* num_zeros) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t c = blockIdx.y;
  if (row >= b.ld) return;
  const int64_t column = b.begin + c;
  float score = ScoreOf(b.lanes[column * b.ld + row], b.upper[column * (b.n + 1)]);
  const bool is_zero = row < b.rows && IsKeptZero(b.zeros, b.ld / kWarp, column, row);
  if (is_zero) score = 0;
  // Rows end with a whole warp.
  const int zeros_of_warp = __popc(__ballot_sync(~0u, is_zero));
  if (row % kWarp == 0 && zeros_of_warp > 0) {
    atomicAdd(num_zeros, static_cast<Count>(zeros_of_warp));
  }
  b.scores[c * b.ld + row] = score;
}

// Counts the scores that agree with the prefix above the round's bits.
__global__ void CountKernel(MaskBlock b, ScoreRound round, int prefix_shift, Search* search) {
  __shared__ unsigned bins[kMostBins];
  for (int i = threadIdx.x; i < kMostBins; i += kThreads) bins[i] = 0;
  __syncthreads();
  const uint32_t prefix = search->prefix;
  const uint32_t mask = (1u << round.bits) - 1;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  for (int64_t c = blockIdx.y; row < b.rows && c < b.width; c += gridDim.y) {
    const uint32_t bits = std::bit_cast<uint32_t>(b.scores[c * b.ld + row]) & 0x7fffffffu;
    if (bits >> prefix_shift == prefix >> prefix_shift) {
      atomicAdd(&bins[bits >> round.shift & mask], 1u);
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i <= static_cast<int>(mask); i += kThreads) {
    if (bins[i] != 0) atomicAdd(&search->bins[i], Count{bins[i]});
  }
}

// Takes the bin that holds the index; after the last round that is the threshold.
__global__ void ChooseBinKernel(ScoreRound round, bool zeros_may_do, Search* search) {
  if (search->is_found != 0) return;
  if (zeros_may_do && static_cast<Count>(search->index) <= search->bins[kMostBins]) {
    search->threshold = 0;
    search->is_found = 1;
    return;
  }
  const int num_bins = 1 << round.bits;
  int bin = 0;
  while (bin + 1 < num_bins && static_cast<Count>(search->index) >= search->bins[bin]) {
    search->index -= static_cast<int64_t>(search->bins[bin++]);
  }
  search->prefix |= static_cast<uint32_t>(bin) << round.shift;
  search->threshold = std::bit_cast<float>(search->prefix);
}

__global__ void ClearBinsKernel(Search* search) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < kMostBins) search->bins[i] = 0;
}

// Prunes what scores at most the threshold.
struct ThresholdRule {
  static constexpr size_t kSharedBytes = 0;
  const float* scores = nullptr;  // [block columns, ld], from column `first`.
  const float* threshold = nullptr;
  int64_t first = 0;
  int64_t ld = 0;

  struct Lane {
    float threshold;
  };
  __device__ Lane MakeLane(int64_t) const { return {*threshold}; }
  __device__ int step() const { return 16; }
  __device__ void Begin(const ColumnContext&, Lane&) const {}
  __device__ float Fix(const ColumnContext& context, float w, const Lane& lane) const {
    const float score = scores[(context.column - first) * ld + context.row];
    return score <= lane.threshold ? 0.0f : w;
  }
};

// Prunes the `prune_count` lowest scores of every `group_size` columns.
struct GroupRule {
  static constexpr size_t kSharedBytes = sizeof(float) * kMaxGroupSize * kWarp;
  int prune_count = 0;
  int group_size = 0;
  const uint32_t* zeros = nullptr;
  int64_t words = 0;

  struct Lane {
    uint64_t drop;  // Bit j: column j of the group.
  };
  __device__ Lane MakeLane(int64_t) const { return {0}; }
  __device__ int step() const { return group_size * (group_size < 16 ? 16 / group_size : 1); }

  __device__ void Begin(const ColumnContext& context, Lane& lane) const {
    if (context.column % group_size != 0) return;
    // Behind U and the weights; each lane has its own column of it.
    float* const scores = DynamicShared<float>() + kColumnBlockBytes / sizeof(float) + context.lane;
    uint64_t kept_zeros = 0;
    for (int j = 0; j < group_size; ++j) {
      const int i = context.index + j;
      const bool is_zero = IsKeptZero(zeros, words, context.column + j, context.row);
      kept_zeros |= static_cast<uint64_t>(is_zero) << j;
      scores[j * kWarp] = is_zero ? 0.0f
                                  : ScoreOf(context.weights[i * kWarp + context.lane],
                                            context.upper[i * kBlockColumns + i]);
    }
    lane.drop = kept_zeros;
    for (int j = 0; j < group_size; ++j) {
      const float own = scores[j * kWarp];
      int rank = 0;
      for (int k = 0; k < j; ++k) rank += scores[k * kWarp] <= own ? 1 : 0;
      for (int k = j + 1; k < group_size; ++k) rank += scores[k * kWarp] < own ? 1 : 0;
      lane.drop |= static_cast<uint64_t>(rank < prune_count) << j;
    }
  }

  __device__ float Fix(const ColumnContext& context, float w, const Lane& lane) const {
    return (lane.drop >> context.column % group_size & 1u) != 0 ? 0.0f : w;
  }
};

// A slice, block by block.
class Solver {
 public:
  Solver(const SparseGptProblem& problem, const SparseGptOptions& options, DeviceQueue& queue)
      : problem_(problem), options_(options), queue_(queue), ld_(LanesOf(problem.rows)) {}

  absl::Status Run(double* row_loss, double* row_change) {
    LLMC_RETURN_IF_ERROR(Allocate());
    const DeviceRows rows{problem_.weight, nullptr, problem_.rows, problem_.in_features, nullptr};
    uint32_t* const zeros = zeros_.as<uint32_t>();
    LLMC_RETURN_IF_ERROR(LoadLanes(rows, {lanes_.as<float>(), zeros}, queue_));
    LLMC_RETURN_IF_ERROR(queue_.Zero(row_loss, problem_.rows * sizeof(double)));
    blocks_.loss = row_loss;
    if (options_.structure.is_grouped()) {
      const GroupRule rule{static_cast<int>(options_.structure.prune_count),
                           static_cast<int>(options_.structure.group_size), zeros, ld_ / kWarp};
      LLMC_RETURN_IF_ERROR(SolveColumns(0, problem_.in_features, rule));
    } else {
      for (int64_t begin = 0; begin < problem_.in_features; begin += options_.block_size) {
        LLMC_RETURN_IF_ERROR(
            PruneBlock(begin, std::min(options_.block_size, problem_.in_features - begin)));
      }
    }
    return StoreLanes(lanes_.as<float>(), rows, row_change, queue_);
  }

 private:
  absl::Status Allocate() {
    const int64_t n = problem_.in_features;
    LLMC_ASSIGN_OR_RETURN(lanes_, DeviceBuffer::Allocate(queue_, n * ld_ * 4));
    LLMC_ASSIGN_OR_RETURN(error_, DeviceBuffer::Allocate(queue_, kBlockColumns * ld_ * 4));
    if (options_.preserve_sparsity_mask) {
      LLMC_ASSIGN_OR_RETURN(zeros_, DeviceBuffer::Allocate(queue_, n * (ld_ / kWarp) * 4));
    }
    if (!options_.structure.is_grouped()) {
      LLMC_ASSIGN_OR_RETURN(search_, DeviceBuffer::Allocate(queue_, sizeof(Search)));
      LLMC_ASSIGN_OR_RETURN(
          scores_, DeviceBuffer::Allocate(queue_, std::min(options_.block_size, n) * ld_ * 4));
    }
    blocks_.upper = problem_.inverse_factor;
    blocks_.n = n;
    blocks_.loss_columns = static_cast<int>(LossColumns(options_));
    blocks_.lanes = lanes_.as<float>();
    blocks_.error = error_.as<float>();
    blocks_.rows = problem_.rows;
    blocks_.ld = ld_;
    return absl::OkStatus();
  }

  template <typename Rule>
  absl::Status SolveColumns(int64_t begin, int64_t width, const Rule& rule) {
    const int64_t most = BlockWidth(blocks_.loss_columns);
    ColumnBlock block = blocks_;
    for (int64_t first = begin; first < begin + width; first += most) {
      block.begin = first;
      block.width = static_cast<int>(std::min(most, begin + width - first));
      LLMC_RETURN_IF_ERROR(SolveBlock(block, rule, queue_));
    }
    return absl::OkStatus();
  }

  absl::Status PruneBlock(int64_t begin, int64_t width) {
    MaskBlock block;
    block.upper = problem_.inverse_factor;
    block.n = problem_.in_features;
    block.lanes = lanes_.as<float>();
    block.zeros = zeros_.as<uint32_t>();
    block.rows = problem_.rows;
    block.ld = ld_;
    block.begin = begin;
    block.width = width;
    block.scores = scores_.as<float>();
    LLMC_RETURN_IF_ERROR(FindThreshold(block));
    const ThresholdRule rule{block.scores, &search_.as<Search>()->threshold, begin, ld_};
    return SolveColumns(begin, width, rule);
  }

  // The score at index floor(sparsity * count); below every score when sparsity is 0.
  absl::Status FindThreshold(const MaskBlock& block) {
    Search* const search = search_.as<Search>();
    const int64_t count = problem_.total_rows * block.width;
    const auto index = static_cast<int64_t>(static_cast<double>(count) * options_.sparsity);
    LLMC_RETURN_IF_ERROR(queue_.Zero(search, sizeof(Search)));
    LLMC_RETURN_IF_ERROR(Launch(queue_, {1, 1}, StartKernel, index, options_.sparsity == 0,
                                options_.preserve_sparsity_mask ? 0.0f : -1.0f, search));
    const dim3 grid(NumBlocks(ld_, kThreads), static_cast<unsigned>(block.width));
    LLMC_RETURN_IF_ERROR(
        Launch(queue_, {grid, kThreads}, ScoreKernel, block, search->bins + kMostBins));
    if (options_.sparsity == 0) return absl::OkStatus();
    int prefix_shift = 31;
    for (const ScoreRound& round : kScoreRounds) {
      LLMC_RETURN_IF_ERROR(SearchRound(block, round, prefix_shift));
      prefix_shift = round.shift;
    }
    return absl::OkStatus();
  }

  absl::Status SearchRound(const MaskBlock& block, const ScoreRound& round, int prefix_shift) {
    // Columns that a thread block counts, so that its bins are filled and written rarely.
    constexpr int64_t kColumnsPerBlock = 32;
    Search* const search = search_.as<Search>();
    const bool is_first = prefix_shift == 31;
    if (!is_first) {
      LLMC_RETURN_IF_ERROR(
          Launch(queue_, {NumBlocks(kMostBins, kThreads), kThreads}, ClearBinsKernel, search));
    }
    const dim3 grid(NumBlocks(problem_.rows, kThreads), NumBlocks(block.width, kColumnsPerBlock));
    LLMC_RETURN_IF_ERROR(
        Launch(queue_, {grid, kThreads}, CountKernel, block, round, prefix_shift, search));
    if (options_.sum_over_slices) LLMC_RETURN_IF_ERROR(SumBins(round, search));
    // Only in the first round may zeros be enough: scores of 0 come first.
    return Launch(queue_, {1, 1}, ChooseBinKernel, round,
                  is_first && options_.preserve_sparsity_mask, search);
  }

  // Adds up the round's bins over all slices, in the first round the zeros too. Waits.
  absl::Status SumBins(const ScoreRound& round, Search* search) {
    static_assert(sizeof(Count) == sizeof(int64_t));
    const int64_t num_bins = int64_t{1} << round.bits;
    std::vector<int64_t> bins(num_bins + 1, 0);
    int64_t& zeros = bins[num_bins];
    const bool is_first = round.shift == kScoreRounds[0].shift;
    LLMC_RETURN_IF_ERROR(queue_.CopyToHost(search->bins, num_bins * sizeof(Count), bins.data()));
    if (is_first) {
      LLMC_RETURN_IF_ERROR(queue_.CopyToHost(search->bins + kMostBins, sizeof(Count), &zeros));
    }
    LLMC_RETURN_IF_ERROR(queue_.Synchronize());
    LLMC_RETURN_IF_ERROR(options_.sum_over_slices(bins));
    LLMC_RETURN_IF_ERROR(queue_.CopyToDevice(bins.data(), num_bins * sizeof(Count), search->bins));
    if (is_first) {
      LLMC_RETURN_IF_ERROR(queue_.CopyToDevice(&zeros, sizeof(Count), search->bins + kMostBins));
    }
    return queue_.Synchronize();
  }

  const SparseGptProblem& problem_;
  const SparseGptOptions& options_;
  DeviceQueue& queue_;
  const int64_t ld_;
  DeviceBuffer lanes_;   // F32 [n, ld]
  DeviceBuffer error_;   // F32 [kBlockColumns, ld]
  DeviceBuffer zeros_;   // U32 [n, ld / 32]
  DeviceBuffer scores_;  // F32 [block_size, ld]
  DeviceBuffer search_;  // Search
  ColumnBlock blocks_;
};

absl::Status CheckProblem(const SparseGptProblem& p, const double* row_loss,
                          const double* row_change) {
  if (p.rows >= 0 && p.total_rows >= std::max<int64_t>(1, p.rows) && p.in_features > 0 &&
      (p.rows == 0 || (p.weight && row_loss && row_change)) && p.inverse_factor) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("SparseGptSolve: ", p.rows, " of ", p.total_rows, " rows of ", p.in_features,
                   " columns: a size is out of range or an array is missing"));
}

}  // namespace

absl::Status SparseGptSolve(const SparseGptProblem& problem, const SparseGptOptions& options,
                            double* row_loss, double* row_change, DeviceQueue& queue) {
  LLMC_RETURN_IF_ERROR(CheckProblem(problem, row_loss, row_change));
  LLMC_RETURN_IF_ERROR(CheckPruning(problem, options));
  return Solver(problem, options, queue).Run(row_loss, row_change);
}

}  // namespace llmc::kernels
