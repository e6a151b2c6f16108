// GPTQ: E. Frantar, S. Ashkboos, T. Hoefler, D. Alistarh, "GPTQ: Accurate
// Post-Training Quantization for Generative Pre-trained Transformers",
// arXiv:2210.17323.
#ifndef LLMC_MODIFIERS_GPTQ_H_
#define LLMC_MODIFIERS_GPTQ_H_

#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "modifiers/modifier.h"
#include "modifiers/shared_factor.h"
#include "recipe/recipe.h"

namespace llmc {

// Linears with one input share its Hessian: it is summed once and factored once,
// by the rank that owns it; every rank then solves its share of the rows of every
// linear. A module whose Hessian cannot be factored, or whose input saw no token,
// is rounded to nearest or fails the job, as `on_singular` says.
class GptqLayerModifier : public LayerModifier {
 public:
  explicit GptqLayerModifier(GptqModifier fields) : fields_(std::move(fields)) {}

  absl::Status Solve(LayerSolve& layer) const override;

 private:
  // Modules that are solved with one factor: same input, same column order.
  struct SolveSet {
    std::vector<const PlannedModule*> modules;
    SharedFactor factor;
  };
  // Modules that share an input, and so a Hessian.
  struct InputGroup {
    std::string name;
    InputStatistics* statistics = nullptr;
    std::map<bool, SolveSet> sets;  // By whether columns are ordered.
  };

  std::vector<InputGroup> GroupsOf(const LayerSolve& layer) const;
  absl::Status FactorGroups(std::span<InputGroup> groups, LayerSolve& layer) const;
  absl::Status SolveGroup(InputGroup& group, LayerSolve& layer,
                          std::map<std::string, SolvedModule>& solved) const;
  absl::StatusOr<SolvedModule> SolveModule(const PlannedModule& module, const SharedFactor& factor,
                                           double energy, LayerSolve& layer) const;
  absl::StatusOr<SolvedModule> FallBack(const PlannedModule& module, const std::string& reason,
                                        LayerSolve& layer) const;
  absl::StatusOr<SolvedModule> RoundModule(const PlannedModule& module, LayerSolve& layer) const;

  GptqModifier fields_;
};

}  // namespace llmc

#endif  // LLMC_MODIFIERS_GPTQ_H_
