// Part of kernels/gptq_solve: the rounding of one unit of rows, on one thread.
#ifndef LLMC_KERNELS_GPTQ_ROWS_H_
#define LLMC_KERNELS_GPTQ_ROWS_H_

#include <cstdint>

#include "kernels/column_walk.h"
#include "kernels/round_to_grid.h"
#include "llmc/dtype.h"

namespace llmc::kernels {

struct GptqRows {
  ColumnWalk walk;  // Lanes beyond the weight's rows are 0 with scale 1.

  const float* scale = nullptr;       // f32 [num_groups, lanes].
  const float* zero_point = nullptr;  // f32 [num_groups, lanes].
  const int32_t* group = nullptr;     // i32 [n], in visiting order.
  // [n], in visiting order: bit l is set where lane l stays 0. Null: nowhere.
  const uint64_t* zeros = nullptr;
  Element element = Element::kInt;
  float q_min = 0;
  float q_max = 0;
  DType scale_dtype = DType::kF32;
};

// The same bits from each.
void SolveGptqRowsAvx512(const GptqRows& rows);
void SolveGptqRowsAvx2(const GptqRows& rows);
void SolveGptqRowsGeneric(const GptqRows& rows);

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_GPTQ_ROWS_H_
