// Jobs that need no data: every tensor on its own, in slices, spread over ranks.
#ifndef LLMC_PIPELINE_DATA_FREE_RUN_H_
#define LLMC_PIPELINE_DATA_FREE_RUN_H_

#include <functional>
#include <optional>
#include <string>

#include "kernels/weight_grid.h"
#include "pipeline/run_state.h"

namespace llmc {

// Collective: Load, Solve and Write of every unit that is not done yet. Memory: a
// few slices for each thread, whatever the size of the model.
absl::Status RunDataFree(RunState& run);

// Rounds one unit's modules and copies its other tensors, this rank's share of
// both; collective through FinishUnit.
absl::Status RoundUnit(RunState& run, const WorkUnit& unit);

// The largest |w| over the serving family (q/k/v, gate/up, ...) of an NVFP4
// module, whose dense weights `read` gives by tensor name; nullopt for other schemes.
// `importance`: of the family's one input, for imatrix observers. `search`: by default
// kernels::SearchedAbsMax on the host.
using DenseReader = std::function<absl::StatusOr<TensorView>(const std::string& tensor)>;
using AbsMaxSearch = std::function<absl::StatusOr<float>(
    const TensorView& weight, const QuantizationArgs& args, const kernels::WeightGridOptions&)>;
absl::StatusOr<std::optional<float>> FusedAbsMax(const Plan& plan, const PlannedModule& module,
                                                 const DenseReader& read,
                                                 std::span<const float> importance = {},
                                                 const AbsMaxSearch& search = nullptr);

}  // namespace llmc

#endif  // LLMC_PIPELINE_DATA_FREE_RUN_H_
