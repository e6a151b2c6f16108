// Zeroes the weights that matter least by |w_rj| * norm_j, row by row, and leaves the
// others as they are.
//
// With the norm of feature j over the calibration tokens this is Wanda (M. Sun, Z. Liu,
// A. Bair, J. Z. Kolter, "A Simple and Effective Pruning Approach for Large Language
// Models", arXiv:2306.11695, equation 1); with norms of 1 it is magnitude pruning.
// Also OWL's outlier counts (L. Yin et al., "Outlier Weighed Layerwise Sparsity",
// arXiv:2310.05175, section 3), which look at the same scores.
#ifndef LLMC_KERNELS_PRUNE_BY_SCORE_H_
#define LLMC_KERNELS_PRUNE_BY_SCORE_H_

#include <cstdint>
#include <span>

#include "kernels/sparsegpt_solve.h"
#include "llmc/status.h"

namespace llmc::kernels {

// Rows of a weight, f32 [rows, in_features], dense and row-major.
struct ScoredRows {
  float* weight = nullptr;
  int64_t rows = 0;
  int64_t in_features = 0;
  std::span<const float> norms;  // [in_features], >= 0; empty: all 1.
};

// Unstructured: the floor(in_features * sparsity) lowest scores of every row become
// 0; n:m: the n lowest of every m. Scores are rounded once; of equal ones those to the
// left go first. Rows do not interact; bits do not depend on threads.
// kInvalidArgument: a size or pointer breaks a rule, sparsity outside [0, 1), m does
// not divide in_features, n >= m.
absl::Status PruneByScore(const ScoredRows& rows, double sparsity, const MaskStructure& structure);

// The same on a device, to the same bits. Enqueues.
struct DeviceScoredRows {
  float* weight = nullptr;  // Device, f32 [rows, in_features].
  int64_t rows = 0;
  int64_t in_features = 0;
  const float* norms = nullptr;  // Device, f32 [in_features], >= 0; null: all 1.
};
absl::Status PruneByScore(const DeviceScoredRows& rows, double sparsity,
                          const MaskStructure& structure, DeviceQueue& queue);

// Sum of the scores in float64, rows in order.
double SumOfScores(const ScoredRows& rows);

// How many scores are above `threshold`.
int64_t CountScoresAbove(const ScoredRows& rows, double threshold);

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_PRUNE_BY_SCORE_H_
