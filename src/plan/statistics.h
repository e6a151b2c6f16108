// Which statistics of a layer's activations its modifiers share, and what a layer
// propagates.
#ifndef LLMC_PLAN_STATISTICS_H_
#define LLMC_PLAN_STATISTICS_H_

#include <map>
#include <string>
#include <vector>

#include "plan/plan.h"

namespace llmc {

// One activation that is stored with static scales.
struct StaticActivation {
  std::string tap;
  std::string prefix;  // Of the stored tensors: "input", "output", "k", ...
  const QuantizationArgs* args = nullptr;
  int64_t num_channels = 1;

  bool is_searched() const;  // By an observer that looks for the best range.
};
std::vector<StaticActivation> StaticActivationsOf(const PlannedModule& module);
std::vector<StaticActivation> StaticActivationsOf(const PlannedAttention& attention);

// Whether the observer of a linear's weight weighs errors by the squares of its input
// (imatrix_mse, nvfp4_expanded_imatrix; not with one scale for several rows).
bool WeighsErrors(const PlannedModule& module);

// What the quantiser of `module` and its static activations need, by tap.
Needs NeedsOfModule(const PlannedModule& module);

// What all modifiers of a unit need, from one capture. A statistic that an earlier
// smoothing changes is rescaled (calibration/input_statistics.h), not captured again.
Needs NeedsOfUnit(const Plan& plan, const WorkUnit& unit);

// The exceptions, captured again after the transforms: ranges that search observers
// find in scaled inputs, and static scales of what v_proj or up_proj give where
// their rows are scaled.
Needs NeedsAfterTransforms(const Plan& plan, const WorkUnit& unit);

// Which modifiers read which statistic of `tap`, for people:
// {"Hessian": ["AWQModifier", "GPTQModifier"], ...}; "its factor" where two take the same.
std::map<std::string, std::vector<std::string>> StatisticsReaders(const Plan& plan,
                                                                  const WorkUnit& unit,
                                                                  const std::string& tap);

// Whether the next layer is to see other values than the source's layer gives. When
// all that a unit does is rounding to nearest and smoothing, it is propagated as the
// source has it: rounding stays out of propagation, as in the reference, and
// smoothing keeps the function (docs/decisions/0020-transforms.md).
bool ChangesOutput(const Plan& plan, const WorkUnit& unit);

// In a unit that changes the output: whether propagation takes what is stored in
// place of source tensor `name` (solved by GPTQ, or rewritten by a transform).
bool PropagatesStored(const Plan& plan, const WorkUnit& unit, const std::string& name);

}  // namespace llmc

#endif  // LLMC_PLAN_STATISTICS_H_
