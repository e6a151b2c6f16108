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
struct SharedFactor {
  InputStatistics* statistics = nullptr;
  at::Tensor upper;              // F32 [in_features, in_features]; undefined when it failed.
  std::vector<int32_t> order;    // Original column of each position; empty: natural.
  double dampening_frac = 0;     // As used.
  double lambda = 0;             // What was added to the diagonal of H.
  std::vector<double> energies;  // tr(W H W^T) of each module that it is for.
  std::vector<int32_t> dead;     // Original columns whose diagonal was 0.
  std::string failure;           // Why there is no factor; empty: there is one.
};

// On the owner, local: factors `hessian`, F32 on `device`, visiting columns by falling
// diagonal when `ordered`. A Hessian that cannot be factored sets `failure`; an error is
// returned for what should stop the job.
struct FactorRequest {
  const ComputeDevice& device;
  const at::Tensor& hessian;
  bool ordered = false;
  double dampening_frac = 0.01;
};
absl::Status FactorOwned(const FactorRequest& request, SharedFactor& factor);

// Collective: copies the owner's factor to every rank. `energies` has its final
// size on every rank.
absl::Status ShareFactor(Collective& collective, const RankPlace& place, int owner,
                         SharedFactor& factor);

}  // namespace llmc

#endif  // LLMC_MODIFIERS_SHARED_FACTOR_H_
