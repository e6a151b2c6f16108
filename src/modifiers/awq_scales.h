// The candidates of AWQ's grid search: what a channel's factor is made of.
#ifndef LLMC_MODIFIERS_AWQ_SCALES_H_
#define LLMC_MODIFIERS_AWQ_SCALES_H_

#include <cstdint>
#include <span>
#include <vector>

#include "llmc/scheme.h"
#include "llmc/status.h"
#include "llmc/tensor.h"
#include "recipe/recipe.h"

namespace llmc {

// One point of the grid: the exponent of the activations, and whether the weights
// count too.
struct AwqGridPoint {
  double ratio = 0;
  bool duo = false;
};

// In the reference's order; the first of equal losses wins.
std::vector<AwqGridPoint> AwqGrid(const AwqModifier& fields);

// Sum over the rows of |w| of every column, each divided by the largest |w| that is
// quantised with it (its tensor, row, group or block) + 1e-6; added to `sums`,
// [columns]. Bits do not depend on threads.
absl::Status AddNormalizedMagnitudes(const HostTensor& weight, const QuantizationArgs& args,
                                     std::span<double> sums);

// Factors of a grid point from the mean magnitudes of activations and weights, both
// [channels]: clamp(x^r / (w^(1-r) + 1e-4), 1e-4), or clamp(x^r, 1e-4), then divided by
// sqrt(max min); 1 where that is not finite.
std::vector<float> AwqFactors(const AwqGridPoint& point, std::span<const double> activations,
                              std::span<const double> weights);

}  // namespace llmc

#endif  // LLMC_MODIFIERS_AWQ_SCALES_H_
