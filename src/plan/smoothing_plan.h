// Which norms and linears the smoothing modifiers of a recipe rewrite.
#ifndef LLMC_PLAN_SMOOTHING_PLAN_H_
#define LLMC_PLAN_SMOOTHING_PLAN_H_

#include <vector>

#include "llmc/status.h"
#include "plan/plan.h"

namespace llmc {

// The smoothings of modifier number `modifier` (SmoothQuant or AWQ), layer by layer in the
// order of execution. `plan` has its recipe, model and modules with their schemes.
// kInvalidArgument: a mapping that names absent modules, a smooth layer that feeds
// other linears than the mapping's or cannot be scaled at all, a scheme that AWQ
// cannot search.
absl::StatusOr<std::vector<PlannedTransform>> PlanSmoothing(const Plan& plan, int modifier);

}  // namespace llmc

#endif  // LLMC_PLAN_SMOOTHING_PLAN_H_
