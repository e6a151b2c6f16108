// How far a dequantised weight is from the dense one, and how far is too far.
#ifndef LLMC_VERIFY_WEIGHT_DISTANCE_H_
#define LLMC_VERIFY_WEIGHT_DISTANCE_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/grid_layout.h"
#include "llmc/scheme.h"

namespace llmc {

// Sums over the row ranges of one weight, in their order.
//
// For the elements g of every scale the best multiplier of the dequantised
// weight W' is a_g = <W, W'>_g / <W', W'>_g. Rounding errors hardly correlate with
// W', so a_g is near 1 for a scale that fits, also after error compensation; a
// scale of other elements gives a_g far from 1 where |W - W'| alone would pass.
class WeightDistance {
 public:
  explicit WeightDistance(const kernels::GridLayout& layout);

  // Rows [first_row, ...) of the weight, [rows, columns] row-major, both float32.
  // Ranges begin at a multiple of the layout's row_span.
  void Add(int64_t first_row, std::span<const float> dense, std::span<const float> dequantized);

  // Call after the last range.
  double relative_error() const;        // |W - W'|_F / |W|_F; 0 for a zero weight.
  double mean_multiplier() const;       // Of a_g, weighted by |W'|^2_g.
  double multiplier_deviation() const;  // Standard deviation of a_g, likewise.
  bool dense_is_constant() const { return dense_min_ == dense_max_; }

  // "" when the distance is one that rounding to `args` can have; else what is
  // wrong. The limits are about three times what round-to-nearest and GPTQ show
  // and half of what scales in another order show (docs/decisions/0011).
  std::string Verdict(const QuantizationArgs& args) const;

 private:
  std::string WorstScale(double low, double high) const;

  kernels::GridLayout layout_;
  std::vector<double> cross_;   // <W, W'> of every scale.
  std::vector<double> square_;  // <W', W'> of every scale.
  double error_ = 0, dense_square_ = 0;
  float dense_min_ = 0, dense_max_ = 0;
};

}  // namespace llmc

#endif  // LLMC_VERIFY_WEIGHT_DISTANCE_H_
