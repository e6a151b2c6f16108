// From the extrema of activations to the parameters that a module stores for them.
#ifndef LLMC_MODIFIERS_ACTIVATION_PARAMETERS_H_
#define LLMC_MODIFIERS_ACTIVATION_PARAMETERS_H_

#include <map>
#include <string>
#include <vector>

#include "kernels/compress.h"
#include "llmc/status.h"
#include "modifiers/modifier.h"
#include "plan/plan.h"

namespace llmc {

// input_scale, input_zero_point, input_global_scale, output_scale,
// output_zero_point: those that the scheme stores. `statistics` after Reduce.
// kInvalidArgument naming the module when there are none, or for NaN and infinity.
absl::StatusOr<std::vector<kernels::StoredTensor>> ActivationParameters(
    const PlannedModule& module, const Statistics& statistics);

// k_scale, v_scale, q_scale and zero points, as in `attention.stored`.
absl::StatusOr<std::vector<kernels::StoredTensor>> AttentionParameters(
    const PlannedAttention& attention, const Statistics& statistics);

}  // namespace llmc

#endif  // LLMC_MODIFIERS_ACTIVATION_PARAMETERS_H_
