// Round to nearest: every weight goes to the nearest code of its grid.
#ifndef LLMC_MODIFIERS_ROUND_TO_NEAREST_H_
#define LLMC_MODIFIERS_ROUND_TO_NEAREST_H_

#include "modifiers/modifier.h"

namespace llmc {

// The layer keeps its dense weights: what the next layer sees is unchanged, as in
// the reference, which only attaches scales while it calibrates.
class RoundToNearestLayerModifier : public LayerModifier {
 public:
  absl::Status Solve(LayerSolve& layer) const override;
};

// One module; `weight` is its dense weight, which a module of method kActivations
// keeps. With `staging` its grid is found on the device.
absl::StatusOr<SolvedModule> RoundToNearest(const PlannedModule& module, HostTensor weight,
                                            std::optional<float> fused_absmax,
                                            const Statistics& statistics,
                                            WeightStaging* staging = nullptr);

}  // namespace llmc

#endif  // LLMC_MODIFIERS_ROUND_TO_NEAREST_H_
