// Sums of float32 numbers in a fixed order.
//
// The search observers compare sums of errors, so their last bit decides ties.
// The order is that of the reference library's reduction on a machine with
// 16-lane vectors: four vectors in flight, 16 partial sums each.
#ifndef LLMC_KERNELS_LANE_SUM_H_
#define LLMC_KERNELS_LANE_SUM_H_

#include <cstdint>

namespace llmc::kernels {

// The order for float32 numbers.
float LaneSum(const float* terms, int64_t n);

// The order for numbers that were 16-bit: 32 fill a vector, whose halves are
// added first.
float LaneSumOfPairs(const float* terms, int64_t n);

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_LANE_SUM_H_
