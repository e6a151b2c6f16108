#include <algorithm>
#include <bit>
#include <cmath>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/prune_blocks.h"
#include "kernels/prune_rows.h"
#include "kernels/row_lanes.h"
#include "kernels/sparsegpt_solve.h"
#include "llmc/parallel.h"

namespace llmc::kernels {
namespace {

using PruneFunction = void (*)(const PruneRows&);

PruneFunction BestPrune() {
  if (HasColumnWalkAvx512()) return PruneRowsAvx512;
  return HasColumnWalkAvx2() ? PruneRowsAvx2 : PruneRowsGeneric;
}

absl::Status CheckProblem(const SparseGptProblem& p) {
  if (p.rows < 0 || p.total_rows < std::max<int64_t>(1, p.rows) || p.in_features <= 0 ||
      (p.rows > 0 && !p.weight) || !p.inverse_factor) {
    return absl::InvalidArgumentError(
        "SparseGptSolve: a size is out of range or an array is missing");
  }
  for (int64_t c = 0; c < p.in_features; ++c) {
    const float diagonal = p.inverse_factor[c * (p.in_features + 1)];
    if (!(diagonal > 0) || !std::isfinite(diagonal)) {
      return absl::FailedPreconditionError(absl::StrCat("SparseGptSolve: diagonal entry ", c,
                                                        " of U is ", diagonal,
                                                        ", expected > 0 and finite"));
    }
  }
  return absl::OkStatus();
}

// What all units share.
struct SharedParts {
  SharedParts(const SparseGptProblem& problem, const SparseGptOptions& options)
      : options(options),
        factor_block(LossColumns(options)),
        factor(problem.inverse_factor, problem.in_features, factor_block),
        diagonal(problem.in_features) {
    for (int64_t c = 0; c < problem.in_features; ++c) {
      diagonal[c] = problem.inverse_factor[c * (problem.in_features + 1)];
    }
  }

  const SparseGptOptions& options;
  const int64_t factor_block;
  const PackedFactor factor;
  std::vector<float> diagonal;
};

// Columns [begin, end) of a block.
struct BlockColumns {
  int64_t begin = 0;
  int64_t end = 0;
};

// Which scores a round counts: those that agree with `prefix` above its bits.
struct Prefix {
  uint32_t bits = 0;
  int shift = 31;
  bool Holds(uint32_t score) const { return score >> shift == bits >> shift; }
};

// Some rows, from the first block to the last.
class Unit {
 public:
  Unit(const SparseGptProblem& problem, const SharedParts& shared, int64_t first_row, int64_t lanes)
      : shared_(shared),
        lanes_({problem.weight, problem.rows, problem.in_features, nullptr}, first_row, lanes),
        drop_(DType::kF32, {std::min(shared.options.block_size, problem.in_features), lanes}),
        error_(DType::kF32, {shared.factor_block, lanes}) {}

  void Load() {
    lanes_.Load();
    if (shared_.options.preserve_sparsity_mask) zeros_ = lanes_.Zeros();
  }

  // Leaves the block's scores in drop_; returns how many weights stay 0 in any case.
  int64_t Score(const BlockColumns& block) {
    int64_t num_zeros = 0;
    for (int64_t c = block.begin; c < block.end; ++c) {
      const float* const weight = lanes_.weight() + c * lanes_.lanes();
      float* const score = drop_.as<float>() + (c - block.begin) * lanes_.lanes();
      const float diagonal = shared_.diagonal[c];
      for (int64_t l = 0; l < lanes_.lanes(); ++l) {
        score[l] = weight[l] * weight[l] / (diagonal * diagonal);
      }
      if (zeros_.empty()) continue;
      for (int64_t l = 0; l < lanes_.count(); ++l) {
        if ((zeros_[c] >> l & 1) == 0) continue;
        score[l] = 0;
        ++num_zeros;
      }
    }
    return num_zeros;
  }

  void Count(const BlockColumns& block, const Prefix& prefix, const ScoreRound& round,
             int64_t* bins) const {
    const uint32_t mask = (1u << round.bits) - 1;
    for (int64_t c = 0; c < block.end - block.begin; ++c) {
      const float* const score = drop_.as<float>() + c * lanes_.lanes();
      for (int64_t l = 0; l < lanes_.count(); ++l) {
        const uint32_t bits = std::bit_cast<uint32_t>(score[l]) & 0x7fffffffu;
        if (prefix.Holds(bits)) ++bins[bits >> round.shift & mask];
      }
    }
  }

  // From scores to marks.
  void Decide(const BlockColumns& block, float threshold) {
    float* const drop = drop_.as<float>();
    for (int64_t i = 0; i < (block.end - block.begin) * lanes_.lanes(); ++i) {
      drop[i] = drop[i] <= threshold ? 1.0f : 0.0f;
    }
  }

  void Prune(const BlockColumns& block) {
    PruneRows rows;
    rows.walk = {lanes_.lanes(), &shared_.factor, lanes_.weight(), error_.as<float>(), loss_};
    rows.first_block = block.begin / shared_.factor_block;
    rows.end_block = (block.end + shared_.factor_block - 1) / shared_.factor_block;
    rows.diagonal = shared_.diagonal.data();
    rows.prune_count = shared_.options.structure.prune_count;
    rows.group_size = shared_.options.structure.group_size;
    rows.zeros = zeros_.empty() ? nullptr : zeros_.data();
    rows.drop = drop_.as<float>();
    static const PruneFunction prune = BestPrune();
    prune(rows);
  }

  void Store() { lanes_.Store(change_); }

  void AddTo(SparseGptResult& result) const {
    for (int64_t l = 0; l < lanes_.count(); ++l) {
      result.loss += loss_[l];
      result.change += change_[l];
    }
  }

 private:
  const SharedParts& shared_;
  RowLanes lanes_;
  HostTensor drop_;   // F32 [block_size, lanes].
  HostTensor error_;  // F32 [factor_block, lanes].
  std::vector<uint64_t> zeros_;
  double loss_[kMaxLanes] = {};
  double change_[kMaxLanes] = {};
};

// A slice, block by block.
class Solver {
 public:
  Solver(const SparseGptProblem& problem, const SparseGptOptions& options)
      : problem_(problem), options_(options), shared_(problem, options) {
    const int64_t lanes = LanesFor(problem.rows);
    for (int64_t row = 0; row < problem.rows; row += lanes) {
      units_.push_back(std::make_unique<Unit>(problem, shared_, row, lanes));
    }
  }

  // n:m: each unit runs through all columns while its rows are in the cache.
  absl::StatusOr<SparseGptResult> Run() {
    if (options_.structure.is_grouped()) {
      ForEachUnit([this](Unit& unit) {
        unit.Load();
        for (int64_t b = 0; b < num_blocks(); ++b) unit.Prune(Columns(b));
        unit.Store();
      });
    } else {
      ForEachUnit([](Unit& unit) { unit.Load(); });
      for (int64_t b = 0; b < num_blocks(); ++b) LLMC_RETURN_IF_ERROR(PruneBlock(Columns(b)));
      ForEachUnit([](Unit& unit) { unit.Store(); });
    }
    SparseGptResult result;
    for (const auto& unit : units_) unit->AddTo(result);
    return result;
  }

 private:
  int64_t num_blocks() const {
    return (problem_.in_features + options_.block_size - 1) / options_.block_size;
  }
  BlockColumns Columns(int64_t block) const {
    const int64_t begin = block * options_.block_size;
    return {begin, std::min(begin + options_.block_size, problem_.in_features)};
  }

  template <typename Visit>
  void ForEachUnit(const Visit& visit) {
    ParallelFor(static_cast<int64_t>(units_.size()), [&](int64_t u) { visit(*units_[u]); });
  }

  absl::Status PruneBlock(const BlockColumns& block) {
    std::vector<int64_t> zeros(units_.size());
    ParallelFor(static_cast<int64_t>(units_.size()),
                [&](int64_t u) { zeros[u] = units_[u]->Score(block); });
    int64_t num_zeros = 0;
    for (int64_t count : zeros) num_zeros += count;
    LLMC_ASSIGN_OR_RETURN(const float threshold, Threshold(block, num_zeros));
    ForEachUnit([&](Unit& unit) {
      unit.Decide(block, threshold);
      unit.Prune(block);
    });
    return absl::OkStatus();
  }

  // The score at index floor(sparsity * count); below every score when sparsity is 0.
  absl::StatusOr<float> Threshold(const BlockColumns& block, int64_t num_zeros) {
    if (options_.sparsity == 0) return options_.preserve_sparsity_mask ? 0.0f : -1.0f;
    const int64_t count = problem_.total_rows * (block.end - block.begin);
    int64_t index = static_cast<int64_t>(static_cast<double>(count) * options_.sparsity);
    Prefix prefix;
    for (const ScoreRound& round : kScoreRounds) {
      std::vector<int64_t> bins = Histogram(block, prefix, round);
      bins.push_back(num_zeros);
      if (options_.sum_over_slices) LLMC_RETURN_IF_ERROR(options_.sum_over_slices(bins));
      // Only in the first round may zeros be enough: scores of 0 come first.
      if (prefix.shift == 31 && options_.preserve_sparsity_mask && index <= bins.back())
        return 0.0f;
      int64_t bin = 0;
      while (bin + 1 < std::ssize(bins) - 1 && index >= bins[bin]) index -= bins[bin++];
      prefix.bits |= static_cast<uint32_t>(bin) << round.shift;
      prefix.shift = round.shift;
    }
    return std::bit_cast<float>(prefix.bits);
  }

  std::vector<int64_t> Histogram(const BlockColumns& block, const Prefix& prefix,
                                 const ScoreRound& round) {
    const int64_t num_bins = int64_t{1} << round.bits;
    // Units share an array where there are many of them; counts do not mind.
    const int64_t num_parts = std::min<int64_t>(std::ssize(units_), kHistogramParts);
    std::vector<int64_t> parts(num_parts * kMostBins, 0);
    ParallelFor(num_parts, [&](int64_t p) {
      for (int64_t u = p; u < std::ssize(units_); u += num_parts) {
        units_[u]->Count(block, prefix, round, parts.data() + p * kMostBins);
      }
    });
    std::vector<int64_t> bins(num_bins, 0);
    for (int64_t p = 0; p < num_parts; ++p) {
      for (int64_t b = 0; b < num_bins; ++b) bins[b] += parts[p * kMostBins + b];
    }
    return bins;
  }

  static constexpr int64_t kHistogramParts = 64;

  const SparseGptProblem& problem_;
  const SparseGptOptions& options_;
  const SharedParts shared_;
  std::vector<std::unique_ptr<Unit>> units_;
};

}  // namespace

absl::StatusOr<SparseGptResult> SparseGptSolve(const SparseGptProblem& problem,
                                               const SparseGptOptions& options) {
  LLMC_RETURN_IF_ERROR(CheckProblem(problem));
  LLMC_RETURN_IF_ERROR(CheckPruning(problem, options));
  return Solver(problem, options).Run();
}

}  // namespace llmc::kernels
