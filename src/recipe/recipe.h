// What the user asks for: an ordered list of modifiers with targets, ignore lists
// and schemes, read from YAML, JSON, a Markdown front matter or a preset name.
#ifndef LLMC_RECIPE_RECIPE_H_
#define LLMC_RECIPE_RECIPE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "llmc/scheme.h"
#include "llmc/status.h"

namespace llmc {

// A scheme and the modules it is for. Observers are filled in, `scheme.format` is
// the user's or InferFormat's, GPTQ's column order is applied.
struct SchemeGroup {
  std::string name;  // As in the recipe; group_0, ... for presets.
  std::vector<std::string> targets;
  Scheme scheme;              // No parts: the modules stay dense (preset UNQUANTIZED).
  bool format_given = false;  // The user named the format.
  int line = 0;               // In the recipe's text, from 1.
};

// Fields shared by the modifiers that quantise.
struct QuantizationFields {
  // As written, kept for recipe.yaml; `groups` below is what they mean.
  std::vector<std::string> targets = {"Linear"};
  std::optional<std::string> scheme;                                         // A preset name, or
  std::vector<std::pair<std::string, std::vector<std::string>>> scheme_map;  // presets -> targets.
  bool has_config_groups = false;
  std::optional<std::string> weight_observer, input_observer, output_observer;
  std::map<std::string, std::string> observer;  // weights, input, output.
  bool bypass_divisibility_checks = false;      // Read, but odd shapes are refused anyway.
  bool requires_calibration_data = false;       // As written; see NeedsCalibration.

  std::vector<SchemeGroup>
      groups;  // Resolved: at least one, unless only the KV cache is quantised.
  std::vector<std::string> ignore;
  std::optional<QuantizationArgs> kv_cache_scheme;
};

// Round to nearest.
struct QuantizationModifier : QuantizationFields {};

// What GPTQ does with a module whose Hessian cannot be factored.
enum class OnSingular : uint8_t { kRoundToNearest, kFail };

// GPTQ (Frantar et al. 2022, arXiv:2210.17323).
struct GptqModifier : QuantizationFields {
  int64_t block_size = 128;      // Columns per lazy update, >= 1.
  double dampening_frac = 0.01;  // Of the mean diagonal of the Hessian, in (0, 1].
  // Modifier-wide column order, already applied to the groups. Absent and not
  // given: static.
  std::optional<ActOrder> actorder = ActOrder::kStatic;
  bool actorder_given = false;
  // How many equal-shaped modules the reference factors at once. Accepted so that
  // its recipes read; -1 "auto", 0 none, else the number. No effect on results.
  int64_t batched_quantization = -1;
  OnSingular on_singular = OnSingular::kRoundToNearest;  // llmc's own field.
};

// A smoothing as the user wrote it. Entries are targets as elsewhere: a module's
// name, "re:" and a pattern, or a class.
struct SmoothMappingEntry {
  std::string smooth_layer;
  std::vector<std::string> balance_layers;
  int line = 0;  // In the recipe's text, from 1.

  bool operator==(const SmoothMappingEntry& other) const {
    return smooth_layer == other.smooth_layer && balance_layers == other.balance_layers;
  }
};

// How a channel's factor follows from its activations and weights.
enum class SmoothAlgorithm : uint8_t { kSmoothQuant, kLogEqualization };

// SmoothQuant (Xiao et al. 2022, arXiv:2211.10438). LogarithmicEqualizationModifier
// is this with kLogEqualization.
struct SmoothQuantModifier {
  SmoothAlgorithm algorithm = SmoothAlgorithm::kSmoothQuant;
  double smoothing_strength = 0.5;  // In [0, 1].
  // Absent: the family's own norms and their consumers.
  std::optional<std::vector<SmoothMappingEntry>> mappings;
  // A mapping whose layers are all ignored is left out.
  std::vector<std::string> ignore;
};

// Whether AWQ's factors look at the weights too.
enum class DuoScaling : uint8_t { kFalse, kTrue, kBoth };

// AWQ (Lin et al. 2023, arXiv:2306.00978): factors by grid search. A later modifier
// quantises; its schemes drive the search.
struct AwqModifier {
  std::optional<std::vector<SmoothMappingEntry>> mappings;  // Absent: the family's own.
  DuoScaling duo_scaling = DuoScaling::kTrue;
  int64_t n_grid = 20;         // Candidates, >= 2.
  std::string offload_device;  // As written; inputs are never kept on a device. No effect.
};

// Fields shared by the modifiers that prune.
struct PruningFields {
  // Fractions in [0, 1): one for all targets, or with `sparsity_is_list` one for every
  // module that a target matches, in module order.
  std::vector<double> sparsity;
  bool sparsity_is_list = false;
  MaskStructure mask_structure;
  // OWL (arXiv:2310.05175): a sparsity of its own for every layer, `sparsity` on
  // average. All three or none.
  bool has_owl_profile = false;
  std::optional<double> owl_m;
  std::optional<double> owl_lmbda;
  // Linears, classes, or modules whose linears are meant.
  std::vector<std::string> targets = {"Linear"};
  std::vector<std::string> ignore;
};

// SparseGPT (Frantar and Alistarh 2023, arXiv:2301.00774).
struct SparseGptModifier : PruningFields {
  int64_t block_size = 128;             // Columns whose mask is chosen at once.
  double dampening_frac = 0.01;         // Of the mean diagonal of the Hessian, in (0, 1].
  bool preserve_sparsity_mask = false;  // What is 0 stays 0.
  bool offload_hessians = false;        // As written. No effect.
};

// Wanda (Sun et al. 2023, arXiv:2306.11695).
struct WandaPruningModifier : PruningFields {};

// Magnitude pruning in one shot, to the last sparsity of the schedule.
struct MagnitudePruningModifier : PruningFields {
  double init_sparsity = 0;  // As written. No effect.
};

// Zeros of the targets stay zeros, whatever the modifiers after it do.
struct ConstantPruningModifier : PruningFields {};

// Transforms rewrite dense weights, quantisers store them in another format.
using Modifier = std::variant<QuantizationModifier, GptqModifier, SmoothQuantModifier, AwqModifier,
                              SparseGptModifier, WandaPruningModifier, MagnitudePruningModifier,
                              ConstantPruningModifier>;

// "QuantizationModifier", "GPTQModifier", "SmoothQuantModifier", ...
absl::string_view ModifierClassName(const Modifier& modifier);

// The fields of a modifier that quantises; null for a transform.
const QuantizationFields* QuantizationFieldsOf(const Modifier& modifier);

// The fields of a modifier that prunes; null for others.
const PruningFields* PruningFieldsOf(const Modifier& modifier);

// The quantisation fields of a modifier that is known to quantise.
const QuantizationFields& FieldsOf(const Modifier& modifier);

// Whether a modifier needs calibration data, and why ("GPTQModifier solves with
// Hessians", "static input_activations in group_0", "kv_cache_scheme", ...); ""
// when it runs data-free.
std::string CalibrationReason(const Modifier& modifier);

// Presets and files are at most this big; the tree has at most kMaxRecipeNodes
// nodes after aliases are expanded and kMaxRecipeDepth levels.
inline constexpr int64_t kMaxRecipeBytes = 1 << 20;
inline constexpr int64_t kMaxRecipeNodes = 100'000;
inline constexpr int kMaxRecipeDepth = 64;

// Valid by construction: what Parse and Load return can be resolved against a
// model without looking at the text again.
class Recipe {
 public:
  // YAML, JSON, or Markdown whose front matter is YAML. `origin` names the source
  // in messages ("recipe.yaml:12: ..."). `args` are values for {{name}}
  // placeholders; they win over the recipe's own `args:`.
  // kInvalidArgument: what is wrong, where, and what was expected. kUnimplemented:
  // a modifier of LLM Compressor that this version does not have.
  static absl::StatusOr<Recipe> Parse(absl::string_view text, absl::string_view origin,
                                      const std::map<std::string, std::string>& args = {});

  // A file, or a preset name when there is no such file: GPTQ for presets with int
  // weights, round-to-nearest for the others, on every Linear but lm_head.
  // kNotFound: neither.
  static absl::StatusOr<Recipe> Load(const std::string& path_or_preset,
                                     const std::map<std::string, std::string>& args = {});

  // The recipe that a bare preset name stands for.
  static absl::StatusOr<Recipe> FromPreset(absl::string_view name);

  // Several recipes one after the other, as one.
  static Recipe Concatenate(std::vector<Recipe> recipes);

  const std::vector<Modifier>& modifiers() const { return modifiers_; }
  const std::vector<std::string>& warnings() const { return warnings_; }
  const std::string& origin() const { return origin_; }

  // How the output stores the zeros of pruned weights; absent: the recipe does not say.
  std::optional<SparseFormat> sparse_format() const { return sparse_format_; }
  // Where it says so, for messages: "recipe.yaml:2: sparse_format"; "" when it does not.
  const std::string& sparse_format_place() const { return sparse_format_place_; }
  // What a flag says instead.
  void OverrideSparseFormat(SparseFormat format) { sparse_format_ = format; }

 private:
  std::vector<Modifier> modifiers_;
  std::optional<SparseFormat> sparse_format_;
  std::string sparse_format_place_;
  std::vector<std::string> warnings_;  // Unused args and the like, for the user.
  std::string origin_;
  friend class RecipeReader;
};

// recipe.yaml of the output: default_stage / default_modifiers with every default
// filled, in the reference's layout (and byte for byte its text where the recipe
// is one that the reference can express). Parses back to an equal recipe.
std::string ResolvedRecipeYaml(const Recipe& recipe);

// One line of JSON that is equal exactly for recipes that mean the same; what the
// job's hash is taken over. Field order, names of groups and spelling of presets do
// not matter, order of modifiers does. Without sparse_format: only the packing of a
// finished output depends on it.
std::string CanonicalText(const Recipe& recipe);

}  // namespace llmc

#endif  // LLMC_RECIPE_RECIPE_H_
