// Which linears the pruning modifiers of a recipe rewrite, and how far.
#ifndef LLMC_PLAN_PRUNING_PLAN_H_
#define LLMC_PLAN_PRUNING_PLAN_H_

#include <vector>

#include "architecture/module_spec.h"
#include "llmc/status.h"
#include "plan/plan.h"

namespace llmc {

// The prunings of modifier number `modifier`, one for every linear, in module order.
// `modules` is the tree of `plan`'s model with its containers: a target may name a
// linear, a class, or a container, whose linears are then meant. ConstantPruningModifier
// prunes nothing; its entries, which rewrite no tensor, say whose zeros stay.
// kInvalidArgument: targets that match no linear, a list of sparsities of another
// length than the matches, in_features that the N:M group does not divide (all linears
// are listed), weights of another dtype than BF16, F16 and F32.
absl::StatusOr<std::vector<PlannedTransform>> PlanPruning(const Plan& plan, int modifier,
                                                          const std::vector<ModuleSpec>& modules);

// The pruned linears of `plan` whose weight a layout without zeros may take the place of.
std::vector<std::string> SparseModules(const Plan& plan);

// kInvalidArgument when the plan's sparse_format cannot store the pruned linears: none is, their
// quantised format is packed, or their masks are not 2:4.
absl::Status CheckSparseFormat(const Plan& plan);

}  // namespace llmc

#endif  // LLMC_PLAN_PRUNING_PLAN_H_
