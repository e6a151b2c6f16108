// Prunes a linear layer's weight, and lets the columns to the right of a pruned
// weight absorb its loss.
//
// Paper: E. Frantar, D. Alistarh, "SparseGPT: Massive Language Models Can Be
// Accurately Pruned in One-Shot", arXiv:2301.00774, Algorithm 1.
//
// Paper -> here: W -> weight, B_s = B -> block_size, H^-1 after Cholesky ->
// inverse_factor (U), M -> the zeros after the call.
//
// Columns are visited in their natural order. What is pruned:
//   unstructured: at the first column of a block, from the weights as they are then,
//     over all rows of W: score_rj = w_rj^2 / U_jj^2; the scores are sorted, and
//     those not above the one at index floor(sparsity * count) are pruned (one more
//     than the fraction, and all that tie with the last; as the reference counts);
//   n:m: at the first column of every m, row by row: the n lowest scores, of equal
//     ones those to the left.
#ifndef LLMC_KERNELS_SPARSEGPT_SOLVE_H_
#define LLMC_KERNELS_SPARSEGPT_SOLVE_H_

#include <cstdint>
#include <functional>
#include <span>

#include "kernels/device_queue.h"
#include "llmc/scheme.h"
#include "llmc/status.h"

namespace llmc::kernels {

// Adds up counts element by element over all slices of W.
using SumOverSlices = std::function<absl::Status(std::span<int64_t> counts)>;

// A slice of rows of one weight matrix, dense and row-major.
struct SparseGptProblem {
  int64_t rows = 0;         // Rows of W in this slice, >= 0.
  int64_t total_rows = 0;   // Rows of W, >= rows and > 0.
  int64_t in_features = 0;  // Columns of W, > 0.

  // In/out, f32 [rows, in_features], finite. In: the dense weight. Out: the pruned
  // one.
  float* weight = nullptr;

  // In, f32 [in_features, in_features], upper triangular U of FactorInverseHessian,
  // natural order. Below the diagonal is never read; the diagonal is > 0.
  const float* inverse_factor = nullptr;
};

struct SparseGptOptions {
  double sparsity = 0.5;  // In [0, 1); 0 prunes nothing. Not read for n:m.
  MaskStructure structure = {};
  // Columns whose mask is chosen at once, 1..1024; a multiple of m. Part of the
  // meaning, unlike GPTQ's.
  int64_t block_size = 128;
  // What is 0 stays 0 and counts as pruned. An unstructured block that already has
  // more zeros keeps just those; n:m adds what is missing to n in every m.
  bool preserve_sparsity_mask = false;
  // For an unstructured slice that is not all of W: called some times for every
  // block, by every slice with arrays of equal length, so that the threshold is that
  // of the whole block for any way of cutting W. Null: the slice is all of W.
  SumOverSlices sum_over_slices = nullptr;
};

// With E = W - Q, and H and lambda those that U was made of: the mean squared error
// of the layer's output, tr(E H E^T), is 2 * loss - lambda * change, as for GPTQ.
struct SparseGptResult {
  double loss = 0;
  double change = 0;
};

// Prunes `problem` in place; returns the sums over the slice's rows, in row order.
//
// Rows do not interact but through the threshold, which is exact: the score at an
// index is found by counting its bit patterns in three rounds of histograms (11, 11
// and 9 bits), and counts add up alike however the rows are cut. So any split of W
// into slices of rows, and any number of threads, gives equal bits. A slice costs
// rows * in_features^2 / 2 multiply-adds, and memory for one copy of its rows.
//
// Errors, with `weight` left unspecified:
//   kInvalidArgument     a size, pointer or option breaks a rule.
//   kFailedPrecondition  a diagonal entry of U is not finite and positive.
//   and what sum_over_slices returns.
absl::StatusOr<SparseGptResult> SparseGptSolve(const SparseGptProblem& problem,
                                               const SparseGptOptions& options);

// The same on a device, to the same bits as on the CPU. Arrays of `problem` and
// `row_loss`, `row_change`, f64 [rows], are device memory. `sum_over_slices` is called on
// the host, with host arrays, which waits; without it (n:m, or one slice) all is enqueued.
absl::Status SparseGptSolve(const SparseGptProblem& problem, const SparseGptOptions& options,
                            double* row_loss, double* row_change, DeviceQueue& queue);

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_SPARSEGPT_SOLVE_H_
