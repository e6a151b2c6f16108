#include "recipe/resolve.h"

#include <algorithm>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "formats/names.h"
#include "formats/target.h"
#include "recipe/resolution_checks.h"

namespace llmc {
namespace {

bool IsQuantizableClass(absl::string_view class_name) {
  return ClassMatches(class_name, "Linear") || class_name == "Embedding";
}

bool IsAttentionClass(absl::string_view class_name) {
  return absl::AsciiStrToLower(class_name).find("attention") != std::string::npos;
}

bool HasParts(const Scheme& scheme) {
  return scheme.weights || scheme.input_activations || scheme.output_activations;
}

// Matches one modifier's groups and ignore list against all modules.
class ModifierMatcher {
 public:
  ModifierMatcher(const QuantizationFields& fields, const std::vector<ModuleRef>& modules)
      : fields_(fields), modules_(modules) {}

  absl::StatusOr<std::vector<ModuleScheme>> Match() {
    for (size_t g = 0; g < fields_.groups.size(); ++g) {
      for (const std::string& target : fields_.groups[g].targets) {
        LLMC_RETURN_IF_ERROR(targets_.Add(target, static_cast<int>(g)));
      }
    }
    for (const std::string& target : fields_.ignore) {
      LLMC_RETURN_IF_ERROR(ignore_.Add(target, 0));
    }
    std::vector<ModuleScheme> schemes;
    for (const ModuleRef& module : modules_) {
      LLMC_ASSIGN_OR_RETURN(ModuleScheme scheme, MatchModule(module));
      schemes.push_back(std::move(scheme));
    }
    return schemes;
  }

 private:
  absl::StatusOr<ModuleScheme> MatchModule(const ModuleRef& module) {
    LLMC_ASSIGN_OR_RETURN(const auto hit, targets_.Find(module.name, module.class_name));
    if (!hit) return ModuleScheme{};
    LLMC_ASSIGN_OR_RETURN(const auto ignored, ignore_.Find(module.name, module.class_name));
    if (ignored) return ModuleScheme{-1, ignored->text, NoScheme::kIgnored};
    const Scheme& scheme = fields_.groups[hit->owner].scheme;
    LLMC_ASSIGN_OR_RETURN(const std::optional<NoScheme> refusal,
                          Refusal(module, scheme, hit->text));
    if (refusal) return ModuleScheme{-1, hit->text, *refusal};
    return ModuleScheme{hit->owner, hit->text, NoScheme::kNotTargeted};
  }

  // Why a module that a target reaches gets no scheme all the same.
  absl::StatusOr<std::optional<NoScheme>> Refusal(const ModuleRef& module, const Scheme& scheme,
                                                  const std::string& target) const {
    if (IsRouterClass(module.class_name)) return NoScheme::kRouter;
    if (!HasParts(scheme)) return NoScheme::kUnquantized;
    if (IsQuantizableClass(module.class_name)) return std::nullopt;
    if (!IsAttentionClass(module.class_name) || scheme.weights) return NoScheme::kNotQuantizable;
    LLMC_ASSIGN_OR_RETURN(const bool is_narrow, MatchesNarrowly(module, target));
    if (!is_narrow) return NoScheme::kNotQuantizable;
    return std::nullopt;
  }

  // Whether a target means this attention module itself, not its parent or its
  // projections along with it.
  absl::StatusOr<bool> MatchesNarrowly(const ModuleRef& module, const std::string& text) const {
    LLMC_ASSIGN_OR_RETURN(const Target target, Target::Compile(text));
    const std::string parent =
        module.name.substr(0, std::min(module.name.rfind('.'), module.name.size()));
    const std::string prefix = module.name + ".";
    for (const ModuleRef& other : modules_) {
      if (other.name != parent && !absl::StartsWith(other.name, prefix)) continue;
      LLMC_ASSIGN_OR_RETURN(const TargetMatch match, target.Match(other.name, other.class_name));
      if (match != TargetMatch::kNone) return false;
    }
    return true;
  }

  const QuantizationFields& fields_;
  const std::vector<ModuleRef>& modules_;
  TargetSet targets_, ignore_;
};

std::vector<ModuleRef> WithClasses(std::vector<ModuleRef> modules, bool model_free) {
  if (!model_free) return modules;
  for (ModuleRef& module : modules) {
    module.class_name = GuessClassName(module.name, module.weight_shape);
  }
  return modules;
}

ModuleDecision Decide(const QuantizationFields& fields, int modifier, const ModuleScheme& scheme) {
  const SchemeGroup& group = fields.groups[scheme.group];
  ModuleDecision decision;
  decision.modifier = modifier;
  decision.scheme = group.scheme;
  decision.group_name = group.name;
  decision.group_targets = group.targets;
  decision.decided_by = scheme.decided_by;
  return decision;
}

std::vector<std::string> IgnoredByTransform(const Modifier& modifier) {
  if (const PruningFields* pruning = PruningFieldsOf(modifier)) return pruning->ignore;
  const auto* smooth = std::get_if<SmoothQuantModifier>(&modifier);
  return smooth != nullptr ? smooth->ignore : std::vector<std::string>();
}

// Joins what the modifiers say; a module belongs to one of them.
absl::Status Merge(const Recipe& recipe, const std::vector<ModuleRef>& modules,
                   Resolution& resolution) {
  std::vector<std::string> contested;
  std::string claimants;  // Of the first of them.
  resolution.modules.resize(modules.size());
  for (size_t m = 0; m < recipe.modifiers().size(); ++m) {
    if (QuantizationFieldsOf(recipe.modifiers()[m]) == nullptr) continue;
    const QuantizationFields& fields = FieldsOf(recipe.modifiers()[m]);
    for (size_t i = 0; i < modules.size(); ++i) {
      const ModuleScheme& scheme = resolution.by_modifier[m][i];
      ModuleDecision& decision = resolution.modules[i];
      if (scheme.group < 0) {
        if (decision.modifier >= 0 || scheme.reason == NoScheme::kNotTargeted) continue;
        decision.reason = scheme.reason;
        decision.decided_by = scheme.decided_by;
      } else if (decision.modifier >= 0) {
        contested.push_back(modules[i].name);
        if (!claimants.empty()) continue;
        claimants = absl::StrCat(ModifierClassName(recipe.modifiers()[decision.modifier]), " and ",
                                 ModifierClassName(recipe.modifiers()[m]));
      } else {
        decision = Decide(fields, static_cast<int>(m), scheme);
      }
    }
  }
  if (contested.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      recipe.origin(), ": ", contested.size(), " modules are quantised by two modifiers (",
      claimants, "), expected disjoint targets: ", ListOf(contested)));
}

absl::Status MergeKvCache(const Recipe& recipe, Resolution& resolution) {
  for (size_t m = 0; m < recipe.modifiers().size(); ++m) {
    const QuantizationFields* fields = QuantizationFieldsOf(recipe.modifiers()[m]);
    if (fields == nullptr || !fields->kv_cache_scheme) continue;
    const std::optional<QuantizationArgs>& args = fields->kv_cache_scheme;
    if (resolution.kv_cache_scheme && *resolution.kv_cache_scheme != *args) {
      return absl::InvalidArgumentError(
          absl::StrCat(recipe.origin(), ": two different kv_cache_scheme, expected one"));
    }
    resolution.kv_cache_scheme = args;
    resolution.kv_cache_modifier = static_cast<int>(m);
  }
  if (resolution.kv_cache_scheme && !resolution.kv_cache_scheme->symmetric) {
    resolution.warnings.push_back("kv_cache_scheme: asymmetric; serving engines refuse it");
  }
  return absl::OkStatus();
}

}  // namespace

absl::string_view NoSchemeName(NoScheme reason) {
  switch (reason) {
    case NoScheme::kNotTargeted:
      return "not targeted";
    case NoScheme::kIgnored:
      return "ignored";
    case NoScheme::kNotQuantizable:
      return "neither Linear nor Embedding";
    case NoScheme::kRouter:
      return "router, never quantised";
    case NoScheme::kUnquantized:
      return "in a group that quantises nothing";
  }
  return "unknown";
}

absl::StatusOr<Resolution> ResolveTargets(const Recipe& recipe, const std::vector<ModuleRef>& given,
                                          const ResolveOptions& options) {
  const std::vector<ModuleRef> modules = WithClasses(given, options.model_free);
  Resolution resolution;
  for (const Modifier& modifier : recipe.modifiers()) {
    if (QuantizationFieldsOf(modifier) == nullptr) {
      LLMC_RETURN_IF_ERROR(At(ModifierClassName(modifier),
                              CheckIgnoresMatch(recipe, IgnoredByTransform(modifier), modules,
                                                options, resolution.warnings)));
      resolution.by_modifier.emplace_back(modules.size());
      continue;
    }
    const QuantizationFields& fields = FieldsOf(modifier);
    LLMC_RETURN_IF_ERROR(CheckAllMatch(recipe, fields, modules, options, resolution.warnings));
    absl::StatusOr<std::vector<ModuleScheme>> schemes = ModifierMatcher(fields, modules).Match();
    if (!schemes.ok()) return At(recipe.origin(), schemes.status());
    resolution.by_modifier.push_back(*std::move(schemes));
  }
  LLMC_RETURN_IF_ERROR(Merge(recipe, modules, resolution));
  LLMC_RETURN_IF_ERROR(MergeKvCache(recipe, resolution));
  LLMC_RETURN_IF_ERROR(CheckSomethingHappens(recipe, resolution));
  LLMC_RETURN_IF_ERROR(CheckGroupSizes(recipe, modules, resolution));
  LLMC_RETURN_IF_ERROR(CheckFusedSets(recipe, modules, resolution));
  return resolution;
}

}  // namespace llmc
