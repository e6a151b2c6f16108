// What was captured of one input of a layer, and what a smoothing makes of it.
#ifndef LLMC_CALIBRATION_INPUT_STATISTICS_H_
#define LLMC_CALIBRATION_INPUT_STATISTICS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "calibration/channel_extrema.h"
#include "calibration/exact_sums.h"
#include "calibration/extrema.h"
#include "calibration/hessian.h"
#include "llmc/status.h"

namespace llmc {

// The factor of a Hessian, and what it was asked with.
struct HessianFactor {
  bool ordered = false;             // Columns by falling diagonal.
  double asked_dampening_frac = 0;  // Of the mean diagonal; see dampening_frac.

  at::Tensor upper;            // F32 [in_features, in_features]; undefined when it failed.
  std::vector<int32_t> order;  // Original column of each position; empty: natural.
  double dampening_frac = 0;   // As used.
  double lambda = 0;           // What was added to the diagonal of H.
  std::vector<int32_t> dead;   // Original columns whose diagonal was 0.
};

// The statistics of one activation, shared by all modifiers of a layer; what none of
// them asked for is null. One capture, of the layer as it was loaded, serves them
// all. A modifier that scales the input's channels calls DivideBy, after which
// every statistic is that of the scaled input:
//
//   Hessian            D H D, D = diag(1 / factors)
//   channel extrema    divided
//   extrema            those of the divided channels (which are then kept by sample)
//   mean magnitude     divided
//   sums of squares    divided twice
//
// Exact up to rounding, because a smoothing keeps what the layer computes. A
// modifier that changes the function (pruning) leaves the inputs of the linears
// behind it as they were captured, as the reference's sequential pipeline does.
struct InputStatistics {
  std::unique_ptr<HessianAccumulator> hessian;
  HessianSum hessian_sum;  // After Reduce.
  int owner = 0;           // The rank that holds the reduced Hessian.
  std::unique_ptr<ExtremaStatistic> extrema;
  std::unique_ptr<ExtremaStatistic> searched;
  std::unique_ptr<ChannelExtremaStatistic> channels;
  std::unique_ptr<ExactSums> magnitudes;  // [in_features]: sums over tokens of |x|.
  int64_t tokens = 0;                     // Of `magnitudes`; over all ranks after Reduce.

  std::unique_ptr<ExactSums> squares;       // [in_features]: sums over tokens of x^2.
  std::unique_ptr<ExactSums> sample_norms;  // [in_features]: sums over samples of |x|_2.

  // On the owner, after Reduce: H of the input as it is now, F32 [in_features,
  // in_features], where the accumulator has it. The first call finishes the accumulator.
  absl::StatusOr<at::Tensor> Hessian();

  // On the owner: a factor of Hessian() as it is now, kept for a modifier that will ask
  // for the same. DivideBy drops it.
  std::optional<HessianFactor> kept_factor;

  // Frees it; nobody asks again.
  void ForgetHessian() { finished_ = at::Tensor(); }

  // Mean over tokens of |x|, [in_features], of the input as it is now. Zeros
  // without tokens.
  std::vector<double> MeanMagnitudes() const;

  // Sum over tokens of x^2, [in_features], of the input as it is now.
  std::vector<double> SquareSums() const;

  // The input is divided by `factors`, [in_features], > 0; equal on all ranks.
  absl::Status DivideBy(std::span<const float> factors);

 private:
  at::Tensor finished_;           // Undefined before Hessian().
  std::vector<double> divisors_;  // Product of all factors; empty: 1.
};

using Statistics = std::map<std::string, InputStatistics>;  // By tap (plan/statistics_need.h).

}  // namespace llmc

#endif  // LLMC_CALIBRATION_INPUT_STATISTICS_H_
