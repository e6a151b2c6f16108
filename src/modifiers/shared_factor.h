// The factor of one input's Hessian: made by the rank that owns it, shared with all.
#ifndef LLMC_MODIFIERS_SHARED_FACTOR_H_
#define LLMC_MODIFIERS_SHARED_FACTOR_H_

#include <cstdint>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "calibration/tensor_collective.h"
#include "collective/collective.h"
#include "llmc/status.h"
#include "modifiers/modifier.h"

namespace llmc {

// After ShareFactor every rank holds the same. Memory: 4 in_features^2 bytes, where the
// rank computes.
struct SharedFactor : HessianFactor {
  InputStatistics* statistics = nullptr;
  std::vector<double> energies;  // tr(W H W^T) of each module that it is for.
  std::string failure;           // Why there is no factor; empty: there is one.
};

// On the owner, local: factors the Hessian of `factor.statistics`, visiting columns by
// falling diagonal when `ordered`, or takes the factor kept there when it is the same. A
// Hessian that cannot be factored sets `failure`; an error is returned for what should
// stop the job.
struct FactorRequest {
  const ComputeDevice& device;
  bool ordered = false;
  double dampening_frac = 0.01;
};
absl::Status FactorOwned(const FactorRequest& request, SharedFactor& factor);

// On the owner: leaves the factor with its statistics, for the modifier that takes it.
void KeepFactor(SharedFactor factor);

// Collective: copies the owner's factor to every rank. `energies` has its final
// size on every rank.
absl::Status ShareFactor(Collective& collective, const RankPlace& place, int owner,
                         SharedFactor& factor);

}  // namespace llmc

#endif  // LLMC_MODIFIERS_SHARED_FACTOR_H_
