// Weights with their zeros left out: the layouts sparse-24-bitmask and sparse-bitmask
// of compressed-tensors before 0.15, bit for bit.
//
// A weight [R, C] of any dtype of 1, 2 or 4 bytes becomes
//   bitmask      U8 [R, ceil(C / 8)]: bit c % 8 of byte c / 8 is set where (r, c) is kept
//   compressed   the kept elements, row by row, in the weight's dtype:
//                sparse-24: [R, C / 2], two of every four columns; sparse: [count]
//   row_offsets  sparse only, I64 [R]: elements before each row
//   shape        I64 [R, C]; of shape [2, 1] for sparse-24, [2] for sparse
// Where fewer than two of four elements are not zero, zeros fill up: the pair is
// completed by the third or, beside the second or third, by the fourth.
//
// Unlike the original, which takes the two largest magnitudes and computes that of the
// integer -128 as -128, every element that is not zero is kept, or the weight refused.
#ifndef LLMC_KERNELS_SPARSE_PACKING_H_
#define LLMC_KERNELS_SPARSE_PACKING_H_

#include <cstdint>
#include <vector>

#include "kernels/compress.h"
#include "llmc/scheme.h"
#include "llmc/status.h"
#include "llmc/tensor.h"

namespace llmc::kernels {

// Elements of `weight` that are neither +0 nor -0.
int64_t CountNonZero(const TensorView& weight);

// `weight` ([R, C]: F32, BF16, F16, F8_E4M3 or I8) in a layout other than kDense.
// kInvalidArgument: another dtype or rank, C no multiple of 4 (sparse-24).
// kFailedPrecondition: more than two of four columns are not zero (names the first).
absl::StatusOr<std::vector<StoredTensor>> PackSparse(const TensorView& weight, SparseFormat format);

// The reverse, of whole tensors. kDataLoss: a tensor is missing or has another dtype,
// shape or count than the others imply.
absl::StatusOr<HostTensor> UnpackSparse(const TensorLookup& lookup, SparseFormat format);

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_SPARSE_PACKING_H_
