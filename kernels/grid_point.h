// From the extrema of the elements that share a scale to that scale and zero
// point (formulas of compressed-tensors, evaluated in the weight's dtype).
#ifndef LLMC_KERNELS_GRID_POINT_H_
#define LLMC_KERNELS_GRID_POINT_H_

#include <cstdint>

#include "kernels/round_to_grid.h"
#include "kernels/weight_grid.h"
#include "llmc/scheme.h"

namespace llmc::kernels {

// What of a scheme decides its scales.
struct GridRule {
  DType dtype = DType::kF32;  // Of the weight; all results are rounded to it.
  Element element = Element::kInt;
  bool symmetric = true;
  bool mx = false;
  float q_min = 0;
  float q_max = 0;
  float range = 1;         // q_max - q_min.
  float global_scale = 0;  // NVFP4: scales become E4M3 values times it; 0: none.
};

struct GridPoint {
  float scale = 1;
  float zero = 0;
};

// Rule without a global scale. `args` have passed CheckArgs.
GridRule RuleOf(const QuantizationArgs& args, DType dtype);

// Scale and zero point of elements with these extrema, which are finite.
GridPoint PointOf(const GridRule& rule, Extrema extrema);

// 2688 / absmax as a float that holds a value of `dtype`; 1 where that is not
// finite. `exact` computes in float32.
float GlobalScaleOf(float absmax, DType dtype, bool exact);

// E8M0 byte of a power of two.
uint8_t E8m0Byte(float scale);

// 2^(byte - 127), infinity for 255.
float FromE8m0Byte(uint8_t byte);

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_GRID_POINT_H_
