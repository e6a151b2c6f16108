// Observers that search for the range with the smallest rounding error.
#ifndef LLMC_KERNELS_RANGE_SEARCH_H_
#define LLMC_KERNELS_RANGE_SEARCH_H_

#include <span>
#include <vector>

#include "kernels/grid_layout.h"
#include "kernels/grid_point.h"
#include "kernels/weight_grid.h"
#include "llmc/status.h"
#include "llmc/tensor.h"

namespace llmc::kernels {

// Constants of a search over p * extrema, p = 1 - i / grid, i = 0, 1, ...
struct SearchRule {
  int num_candidates = 0;
  double grid = 100;
  double norm = 2.4;     // Exponent of the error.
  double expand = 1;     // The extrema are multiplied by it first.
  int patience = 5;      // Stop after so many candidates that improve no group; 0: never.
  bool imatrix = false;  // Error in float32, weighted by importance.
};

// From args.observer and args.observer_kwargs. kInvalidArgument: not a search,
// or constants out of range.
absl::StatusOr<SearchRule> SearchRuleOf(const QuantizationArgs& args);

// The best extrema for every scale, row-major in the layout of the scales.
// `rule` has no global scale. kInvalidArgument for NaN and infinity.
absl::StatusOr<std::vector<Extrema>> SearchRanges(const TensorView& weight,
                                                  const GridLayout& layout, const GridRule& rule,
                                                  const SearchRule& search,
                                                  std::span<const float> importance);

// The parts of a search that the device's twin shares.

inline constexpr int kMaxCandidates = 1024;

// p of a candidate.
inline float ShrinkOf(const SearchRule& search, int candidate) {
  return static_cast<float>(1 - candidate / search.grid);
}

// Candidate >= 0 of a scale; -1: the observed extrema.
Extrema CandidateRange(const GridRule& rule, const SearchRule& search, Extrema observed,
                       int candidate);

// Differences, powers and errors are rounded to the weight's dtype.
bool ErrorIsInDType(const GridRule& rule, const SearchRule& search);

// The error that the first candidate has to undercut.
float LargestError(const GridRule& rule, const SearchRule& search);

// magnitude^norm of the 32,768 magnitudes of a 16-bit dtype, in the order of their bits:
// pow is slow. The reference rounds the exponent and the power to that dtype.
std::vector<float> PowersOf(DType dtype, double norm);

// kInvalidArgument: not one for each column, negative or not finite. Empty is fine.
absl::Status CheckImportance(std::span<const float> importance, int64_t columns);

// Every importance over their mean.
std::vector<float> OverItsMean(std::span<const float> importance);

// Candidates that the reference looks at: it stops when `patience` in a row improved no
// scale of the whole weight.
int StopAfter(const SearchRule& search, std::span<const bool> improved);

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_RANGE_SEARCH_H_
