// SparseGPT: E. Frantar, D. Alistarh, "SparseGPT: Massive Language Models Can Be
// Accurately Pruned in One-Shot", arXiv:2301.00774.
#ifndef LLMC_MODIFIERS_SPARSE_GPT_H_
#define LLMC_MODIFIERS_SPARSE_GPT_H_

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "modifiers/shared_factor.h"
#include "modifiers/transform.h"
#include "recipe/recipe.h"

namespace llmc {

// Linears with one input share its Hessian and its factor, made by the rank that owns it;
// with GPTQ too, where the recipe has both (the factor where GPTQ visits columns in their
// natural order with equal damping). Every rank solves its share of the
// rows; the threshold of an unstructured block is over the rows of all ranks. Where a
// Hessian cannot be factored, weights are pruned by magnitude, without updates.
class SparseGptTransform : public LayerTransform {
 public:
  explicit SparseGptTransform(SparseGptModifier fields) : fields_(std::move(fields)) {}

  absl::Status Apply(LayerChange& change) const override;

 private:
  // Linears with one input.
  struct InputGroup {
    std::string name;
    std::vector<const PlannedTransform*> transforms;
    SharedFactor factor;
  };

  std::vector<InputGroup> GroupsOf(const LayerChange& change) const;
  absl::Status FactorGroups(std::span<InputGroup> groups, LayerChange& change) const;
  absl::Status PruneGroup(InputGroup& group, LayerChange& change) const;
  absl::Status PruneModule(const PlannedTransform& transform, const SharedFactor& factor,
                           double energy, LayerChange& change) const;
  absl::Status CheckPreserved(const PlannedTransform& transform, const HostTensor& weight,
                              double sparsity) const;

  SparseGptModifier fields_;
};

}  // namespace llmc

#endif  // LLMC_MODIFIERS_SPARSE_GPT_H_
