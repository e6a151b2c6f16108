// AWQ: J. Lin, J. Tang, H. Tang, S. Yang, X. Dang, C. Gan, S. Han, "AWQ: Activation-aware
// Weight Quantization for LLM Compression and Acceleration", arXiv:2306.00978,
// equations 4 and 5: the factors s that minimise |Q(W s)(x / s) - W x|^2.
#ifndef LLMC_MODIFIERS_AWQ_H_
#define LLMC_MODIFIERS_AWQ_H_

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "modifiers/awq_scales.h"
#include "modifiers/transform.h"

namespace llmc {

struct AwqBlock;

// Searches the factors of every mapping of a layer by grid and smooths with the best.
//
// The loss of a mapping whose consumers are one linear (v_proj to o_proj, up_proj to
// down_proj) is tr(E H E^T), E the error of the weight: exact, without a forward, with
// the candidates split over ranks. That of q/k/v and gate/up is the squared error of
// the attention block's, the MLP's output; all candidates of all such mappings are tried in
// one sweep over the samples (in waves of candidates where they are large), and only these
// blocks are run. With many tokens candidates race (docs/decisions/0025-awq-race.md): all
// run on some of the samples, the best of them on the others.
// Losses of samples are added in fixed point, so the choice does not depend on ranks.
//
// Every linear is rounded by its own scheme, by minimum and maximum whatever its
// observer, as in the reference; activations are not quantised.
class AwqTransform : public LayerTransform {
 public:
  explicit AwqTransform(AwqModifier fields) : fields_(std::move(fields)) {}

  absl::Status Apply(LayerChange& change) const override;

 private:
  // One mapping on its way through the search.
  struct Search {
    const PlannedTransform* transform = nullptr;
    std::string input_group;
    // [candidates][source channels] and [candidates][consumer channels].
    std::vector<std::vector<float>> source_factors;
    std::vector<std::vector<float>> factors;
    std::vector<double> losses;  // [candidates]
  };

  // What runs on which samples.
  struct Heat {
    std::vector<Search*> searches;
    std::vector<std::vector<size_t>> candidates;  // [searches], of equal lengths.
    LayerSamples::Choice samples;
  };

  absl::StatusOr<Search> Prepare(const PlannedTransform& transform, LayerChange& change) const;
  absl::Status SearchBySecondMoment(Search& search, LayerChange& change) const;
  absl::Status SearchByForward(std::vector<Search*> searches, LayerChange& change) const;
  // Adds to the losses of the heat's candidates. Collective.
  absl::Status RunHeat(const Heat& heat, LayerChange& change) const;
  absl::StatusOr<std::vector<AwqBlock>> MakeBlocks(const Heat& heat, size_t first, size_t last,
                                                   LayerChange& change) const;
  static absl::Status Smooth(const Search& search, LayerChange& change);

  AwqModifier fields_;
};

}  // namespace llmc

#endif  // LLMC_MODIFIERS_AWQ_H_
