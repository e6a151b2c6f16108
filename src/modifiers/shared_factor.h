// The factor of one input's Hessian: made by the rank that owns it, shared with all.
#ifndef LLMC_MODIFIERS_SHARED_FACTOR_H_
#define LLMC_MODIFIERS_SHARED_FACTOR_H_

#include <cstdint>
#include <string>
#include <vector>

#include "collective/collective.h"
#include "llmc/status.h"
#include "llmc/tensor.h"
#include "modifiers/modifier.h"

namespace llmc {

// After ShareFactor every rank holds the same. Memory: 4 in_features^2 bytes.
struct SharedFactor : HessianFactor {
  InputStatistics* statistics = nullptr;
  std::vector<double> energies;  // tr(W H W^T) of each module that it is for.
  std::string failure;           // Why there is no factor; empty: there is one.
};

// On the owner, local: factors the Hessian of `factor.statistics`, visiting columns by
// falling diagonal when `ordered`, or takes the factor kept there when it is the same. A
// Hessian that cannot be factored sets `failure`; an error is returned for what should
// stop the job.
absl::Status FactorOwned(bool ordered, double dampening_frac, SharedFactor& factor);

// On the owner: leaves the factor with its statistics, for the modifier that takes it.
void KeepFactor(SharedFactor factor);

// tr(W H W^T) of one weight, [out_features, in_features], estimated from up to 512
// evenly spaced rows: what a relative output error is a fraction of.
double OutputEnergy(const HostTensor& weight, const HostTensor& hessian);

// Collective: copies the owner's factor to every rank. `energies` has its final
// size on every rank.
absl::Status ShareFactor(Collective& collective, int owner, SharedFactor& factor);

}  // namespace llmc

#endif  // LLMC_MODIFIERS_SHARED_FACTOR_H_
