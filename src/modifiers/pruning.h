// Pruning by score: Wanda and magnitude, and the parts that every pruning shares.
#ifndef LLMC_MODIFIERS_PRUNING_H_
#define LLMC_MODIFIERS_PRUNING_H_

#include <optional>
#include <utility>
#include <vector>

#include "llmc/status.h"
#include "llmc/tensor.h"
#include "modifiers/transform.h"
#include "recipe/recipe.h"

namespace llmc {

// The fraction of `transform`'s weights to prune: the recipe's, or OWL's for its layer.
double SparsityOf(const PruningFields& fields, const PlannedTransform& transform,
                  const LayerChange& change);

// The weight that `transform` prunes. kInvalidArgument naming it for NaN or infinity.
absl::StatusOr<HostTensor*> WeightToPrune(const PlannedTransform& transform, LayerChange& change);

// Fraction of `weight` that is 0.
double FractionOfZeros(const HostTensor& weight);

// Wanda (M. Sun et al., arXiv:2306.11695), magnitude pruning, and what only says that
// zeros stay. Ranks share the rows.
class ScorePruningTransform : public LayerTransform {
 public:
  // `modifier` is WandaPruningModifier, MagnitudePruningModifier or
  // ConstantPruningModifier.
  explicit ScorePruningTransform(Modifier modifier) : modifier_(std::move(modifier)) {}

  absl::Status Apply(LayerChange& change) const override;

 private:
  absl::Status Prune(const PlannedTransform& transform, LayerChange& change) const;
  std::vector<float> Norms(const PlannedTransform& transform, const LayerChange& change) const;

  Modifier modifier_;
};

// Zeroes rows of one weight, in its dtype, as MagnitudePruningModifier says; for jobs
// without data, which read a weight in ranges of rows.
absl::Status PruneRowsByMagnitude(const PruningFields& fields, double sparsity, HostTensor& rows);

}  // namespace llmc

#endif  // LLMC_MODIFIERS_PRUNING_H_
