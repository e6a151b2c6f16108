// Rounds a linear layer's weight to a quantization grid, column by column, and
// lets the columns to the right absorb each column's rounding error.
//
// Paper: E. Frantar, S. Ashkboos, T. Hoefler, D. Alistarh, "GPTQ: Accurate
// Post-Training Quantization for Generative Pre-trained Transformers",
// arXiv:2210.17323, Algorithm 1.
//
// Paper -> here: W -> weight, Q -> weight after the call, B -> block_size, and
// the upper Cholesky factor of the inverse Hessian -> inverse_factor.
#ifndef LLMC_KERNELS_GPTQ_SOLVE_H_
#define LLMC_KERNELS_GPTQ_SOLVE_H_

#include <cstdint>

#include "kernels/device_queue.h"
#include "llmc/dtype.h"
#include "llmc/scheme.h"
#include "llmc/status.h"

namespace llmc::kernels {

// The grid of one weight matrix: value(code) = (code - zero_point) * scale.
// Scales form a matrix [scale_rows, num_groups]; weight row r uses scale row
// r / rows_per_scale, weight column c uses column group_index[c].
struct SolveGrid {
  NumberType type = NumberType::kInt;
  int num_bits = 4;  // kInt: 1..8; kFloat: 8 (E4M3) or 4 (E2M1).

  // In, f32 [scale_rows, num_groups], finite and not 0: the value of the stored
  // scale; NVFP4: the group scale over the global scale.
  const float* scale = nullptr;
  // In, f32 [scale_rows, num_groups], in the units of codes; null: all 0.
  const float* zero_point = nullptr;
  int64_t num_groups = 1;
  // 1 for channel and group, the block height for block, and out_features or more
  // for tensor scales.
  int64_t rows_per_scale = 1;

  // In, i32 [in_features], by original column, in [0, num_groups). Null:
  // column / group_size.
  const int32_t* group_index = nullptr;
  int64_t group_size = 0;  // Used when group_index is null, > 0.

  // F32, BF16 or F16: the dtype in which (code - zero_point) * scale is rounded,
  // which is the stored scale's (F32 for NVFP4).
  DType scale_dtype = DType::kF32;
};

// A slice of rows of one weight matrix. Arrays are dense and row-major; none may
// overlap another.
struct GptqProblem {
  int64_t rows = 0;         // Rows of W in this slice, > 0.
  int64_t first_row = 0;    // Row of W that row 0 of the slice is; for scales.
  int64_t in_features = 0;  // Columns of W, > 0.

  // In/out, f32 [rows, in_features], original column order. In: the dense
  // weight. Out: the dequantized weight as the next layer sees it; rounding it
  // to the grid again gives the same codes.
  float* weight = nullptr;

  // In, f32 [in_features, in_features], upper triangular U of
  // FactorInverseHessian, its rows and columns in visiting order. Below the
  // diagonal is never read; the diagonal is > 0. Aligned to 64 bytes.
  const float* inverse_factor = nullptr;

  // In, i32 [in_features]: the original column of each position; null: natural.
  const int32_t* order = nullptr;

  SolveGrid grid;  // Its arrays hold all scale rows of W, not only the slice's.

  // Out, f64 [rows], each may be null: GptqResult's numbers row by row.
  double* row_loss = nullptr;
  double* row_change = nullptr;
};

struct GptqSolveOptions {
  // Most columns rounded between two updates of the columns to their right,
  // 1..1024. Changes speed only: every weight takes its updates in column order,
  // each rounded once, whatever the block. The paper uses 128; the solver takes
  // fewer where that is faster.
  int64_t block_size = 128;

  // Weights that come in as 0 leave as 0, and their updates are absorbed by the
  // columns to their right like any rounding error: a pruned weight keeps its mask.
  // 0 is on every grid whose zero points are whole codes within the range.
  bool keep_zeros = false;
};

// With E = W - Q, and H and lambda those that U was made of. The mean squared
// error of the layer's output, tr(E H E^T), is 2 * loss - lambda * change.
struct GptqResult {
  double loss = 0;    // 1/2 tr(E (H + lambda I) E^T), as the reference logs it.
  double change = 0;  // tr(E E^T).
};

// Solves `problem` in place; returns the sums over rows, in row order.
//
// Rows do not interact: any split of W into slices of rows gives equal bits, and
// so does any number of threads. Runs rows * in_features^2 / 2 multiply-adds (all
// fused) and allocates in_features^2 / 2 floats, and 64 x in_features floats for
// each thread.
//
// Errors, with `weight` left unspecified:
//   kInvalidArgument     a size, pointer, order, group or width breaks a rule.
//   kFailedPrecondition  a diagonal entry of U is not finite and positive, or a
//                        scale is 0 or not finite.
absl::StatusOr<GptqResult> GptqSolve(const GptqProblem& problem,
                                     const GptqSolveOptions& options = {});

// The same on a device, to the same bits as on the CPU: every update of a weight is one
// fused multiply-add, in column order, so that neither the blocks nor the number of rows
// of a call enter. All arrays of `problem` are device memory, row_loss and row_change
// among them; they are f64 [rows] and not null. Checks sizes only; U and the scales are
// the caller's to check. Enqueues; the sums over rows are the caller's to take.
absl::Status GptqSolve(const GptqProblem& problem, const GptqSolveOptions& options,
                       DeviceQueue& queue);

// The squares e_r^T H e_r of OutputError row by row into `row_error`, device, f64 [rows].
// `quantized` may be null. Double sums of float32 products in column order. Enqueues.
struct OutputErrorCall {
  const float* dense = nullptr;      // Device, f32 [rows, in_features].
  const float* quantized = nullptr;  // Device; null: 0.
  int64_t rows = 0;
  int64_t in_features = 0;
  const float* hessian = nullptr;  // Device, f32 [in_features, in_features], symmetric.
  double* row_error = nullptr;     // Device, f64 [rows].
};
absl::Status OutputErrors(const OutputErrorCall& call, DeviceQueue& queue);

// sum_r e_r^T H e_r with e_r = dense[r] - quantized[r] (`quantized` null: 0): the
// mean squared error of the layer's output, in the units of H, by definition and
// at the cost of two solves. f32 [rows, in_features] each; `hessian` f32
// [in_features, in_features] symmetric. Bits do not depend on threads.
double OutputError(const float* dense, const float* quantized, int64_t rows, int64_t in_features,
                   const float* hessian);

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_GPTQ_SOLVE_H_
