// Which attention modules store scales, and which.
#ifndef LLMC_PLAN_ATTENTION_H_
#define LLMC_PLAN_ATTENTION_H_

#include <vector>

#include "architecture/model_spec.h"
#include "architecture/module_spec.h"
#include "llmc/dtype.h"
#include "llmc/status.h"
#include "plan/plan.h"
#include "recipe/resolve.h"

namespace llmc {

// Every attention module of `model` that `resolution` reaches: all of them by a
// kv_cache_scheme, single ones by a group that targets them. `modules` and
// `resolution.modules` have one order. Scales have dtype `model_dtype`.
// kInvalidArgument when the two ways ask for different numbers, or a group for
// anything but static inputs.
absl::StatusOr<std::vector<PlannedAttention>> PlanAttentions(const ModelSpec& model,
                                                             const std::vector<ModuleSpec>& modules,
                                                             const Resolution& resolution,
                                                             DType model_dtype);

}  // namespace llmc

#endif  // LLMC_PLAN_ATTENTION_H_
