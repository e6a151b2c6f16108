// Which scheme each module of a model gets from a recipe, and why.
#ifndef LLMC_RECIPE_RESOLVE_H_
#define LLMC_RECIPE_RESOLVE_H_

#include <string>
#include <vector>

#include "llmc/status.h"
#include "llmc/tensor.h"
#include "recipe/recipe.h"

namespace llmc {

// One module of the model. Containers (attention, MLP blocks) may be listed; they
// are never given weights' schemes.
struct ModuleRef {
  std::string name;        // "model.layers.0.self_attn.q_proj": checkpoint name, no ".weight".
  std::string class_name;  // "Linear", "Embedding", "LlamaAttention", ...; "" when unknown.
  Shape weight_shape;      // [out_features, in_features]; empty for containers.
};

struct ResolveOptions {
  // The class names are unknown (model-free): they are guessed from names and
  // shapes with GuessClassName, so that "Linear" reaches every 2-D weight but
  // embeddings, norms and routers.
  bool model_free = false;
  // A pattern in `ignore` that matches nothing is a warning instead of an error.
  bool allow_unmatched_ignore = false;
};

// Why a module has no scheme.
enum class NoScheme : uint8_t {
  kNotTargeted,     // No target matches.
  kIgnored,         // An ignore entry matches.
  kNotQuantizable,  // Matched, but neither Linear nor Embedding (a norm, a container).
  kRouter,          // Matched, but a mixture-of-experts router: never quantised.
  kUnquantized,     // Matched by a group without a scheme.
};

// "not targeted", "ignored by 're:.*lm_head'", ... are built with `decided_by`.
absl::string_view NoSchemeName(NoScheme reason);

// What one modifier does to one module.
struct ModuleScheme {
  int group = -1;          // Index into the modifier's groups; -1: none, see `reason`.
  std::string decided_by;  // The target or ignore entry that decided; "" when none.
  NoScheme reason = NoScheme::kNotTargeted;  // Only when `group` is -1.
};

// What the whole recipe does to one module.
struct ModuleDecision {
  int modifier = -1;  // Index into the recipe's modifiers; -1: no weights' scheme.
  std::optional<Scheme> scheme;
  std::string group_name;
  std::vector<std::string> group_targets;  // For quantization_config.
  std::string decided_by;
  NoScheme reason = NoScheme::kNotTargeted;  // Only without a scheme.
};

struct Resolution {
  std::vector<std::vector<ModuleScheme>> by_modifier;  // [modifier][module].
  std::vector<ModuleDecision> modules;                 // Same order as the input.
  std::optional<QuantizationArgs> kv_cache_scheme;
  int kv_cache_modifier = -1;
  // Attention modules with a scheme of their own (a group with input_activations
  // and no weights) are in `modules`; the KV scheme is for all attention modules.
  std::vector<std::string> warnings;
};

// Applies the reference's rules: exact name before pattern (alphabetical) before
// class; ignore wins. kInvalidArgument, each listing all offenders: a target or
// ignore entry that matches nothing (with near names), a module claimed by two
// modifiers, a group_size that does not divide in_features or exceeds it, an
// NVFP4 fused set (q/k/v, gate/up) that is split, a recipe that quantises nothing.
// Other split fused sets are warnings: serving engines refuse such checkpoints.
absl::StatusOr<Resolution> ResolveTargets(const Recipe& recipe,
                                          const std::vector<ModuleRef>& modules,
                                          const ResolveOptions& options = {});

// Sets of modules that serving engines fuse into one matrix, as indices into
// `modules`: q/k/v_proj, gate/up_proj, q_a_proj/kv_a_proj_with_mqa, w1/w3, siblings
// under one parent. Complete sets only, in order of first appearance.
std::vector<std::vector<int>> FusedSets(const std::vector<ModuleRef>& modules);

// The class a 2-D weight most likely has, from its name and shape: "Linear",
// "Embedding", "Router", "Norm"; "" for shapes that are not 2-D.
std::string GuessClassName(absl::string_view name, const Shape& weight_shape);

// True for class names of mixture-of-experts routers.
bool IsRouterClass(absl::string_view class_name);

}  // namespace llmc

#endif  // LLMC_RECIPE_RESOLVE_H_
