#include "recipe/resolution_checks.h"

#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "formats/names.h"
#include "formats/target.h"

namespace llmc {
namespace {

constexpr size_t kMaxListed = 50;
constexpr size_t kMaxHints = 3;

absl::StatusOr<bool> MatchesAny(const Target& target, const std::vector<ModuleRef>& modules) {
  for (const ModuleRef& module : modules) {
    LLMC_ASSIGN_OR_RETURN(const TargetMatch match, target.Match(module.name, module.class_name));
    if (match != TargetMatch::kNone) return true;
  }
  return false;
}

std::string LastPart(absl::string_view name) {
  const size_t dot = name.rfind('.');
  return std::string(dot == absl::string_view::npos ? name : name.substr(dot + 1));
}

// The longest word of a pattern, "down_proj" of "re:.*mlp.dwon_proj$".
std::string LongestWord(absl::string_view pattern) {
  std::string word, longest;
  for (const char c : pattern) {
    const bool is_word = absl::ascii_isalnum(c) || c == '_';
    word = is_word ? word + c : "";
    if (word.size() > longest.size()) longest = word;
  }
  return longest;
}

std::string NearModules(absl::string_view target, const std::vector<ModuleRef>& modules) {
  std::set<std::string> names;
  std::vector<std::string> containing;
  for (const ModuleRef& module : modules) {
    names.insert(LastPart(module.name));
    if (!module.class_name.empty()) names.insert(module.class_name);
    if (containing.size() < kMaxHints && absl::StrContains(module.name, target)) {
      containing.push_back(module.name);
    }
  }
  if (!containing.empty()) {
    return absl::StrCat("; names match whole, write 're:.*", target, "$' for ",
                        absl::StrJoin(containing, ", "));
  }
  const absl::string_view body = absl::StripPrefix(target, "re:");
  const std::string word = LongestWord(LastPart(body).size() > 2 ? LastPart(body) : body);
  const std::string nearest = NearestName(word, {names.begin(), names.end()});
  for (const ModuleRef& module : modules) {
    if (nearest.empty() || (LastPart(module.name) != nearest && module.class_name != nearest)) {
      continue;
    }
    return absl::StrCat("; near: ", module.name, " (", module.class_name, ")");
  }
  return "";
}

// Why a target may match nothing, and what would.
absl::StatusOr<std::string> Hint(const Target& target, const std::vector<ModuleRef>& modules) {
  if (target.is_pattern()) {
    const std::string loose = absl::StrCat("re:.*(?:", target.text().substr(3), ")");
    absl::StatusOr<Target> compiled = Target::Compile(loose);
    if (compiled.ok()) {
      LLMC_ASSIGN_OR_RETURN(const bool would, MatchesAny(*compiled, modules));
      if (would) {
        return absl::StrCat("; patterns start at the beginning of the name, write 're:.*",
                            target.text().substr(3), "'");
      }
    }
  }
  return NearModules(target.text(), modules);
}

absl::StatusOr<std::vector<std::string>> Unmatched(const std::vector<std::string>& texts,
                                                   const std::vector<ModuleRef>& modules) {
  std::set<std::string> known;
  for (const ModuleRef& module : modules) known.insert(module.name);
  std::vector<std::string> unmatched;
  for (const std::string& text : texts) {
    if (known.count(text) > 0) continue;
    LLMC_ASSIGN_OR_RETURN(const Target target, Target::Compile(text));
    LLMC_ASSIGN_OR_RETURN(const bool matches, MatchesAny(target, modules));
    if (matches) continue;
    std::string hint;
    if (unmatched.size() < kMaxHints) {
      LLMC_ASSIGN_OR_RETURN(hint, Hint(target, modules));
    }
    unmatched.push_back(absl::StrCat("'", text, "'", hint));
  }
  return unmatched;
}

// Every target of the modifier's groups, once.
std::vector<std::string> AllTargets(const QuantizationFields& fields) {
  std::vector<std::string> targets;
  for (const SchemeGroup& group : fields.groups) {
    targets.insert(targets.end(), group.targets.begin(), group.targets.end());
  }
  return targets;
}

bool IsSplit(const std::vector<int>& set, const Resolution& resolution) {
  return std::any_of(set.begin(), set.end(), [&](int i) {
    return resolution.modules[i].scheme != resolution.modules[set[0]].scheme;
  });
}

bool UsesTensorGroup(const std::vector<int>& set, const Resolution& resolution) {
  return std::any_of(set.begin(), set.end(), [&](int i) {
    const std::optional<Scheme>& scheme = resolution.modules[i].scheme;
    return scheme && scheme->weights && scheme->weights->strategy == Strategy::kTensorGroup;
  });
}

std::string DescribeSet(const std::vector<int>& set, const std::vector<ModuleRef>& modules) {
  std::vector<std::string> parts;
  for (const int i : set) {
    parts.push_back(parts.empty() ? modules[i].name : LastPart(modules[i].name));
  }
  return absl::StrJoin(parts, "/");
}

// The offence of one module, "" when its groups fit.
std::string GroupOffence(const ModuleRef& module, const QuantizationArgs& args) {
  const bool is_grouped =
      args.strategy == Strategy::kGroup || args.strategy == Strategy::kTensorGroup;
  if (!is_grouped || !args.group_size || module.weight_shape.size() != 2) return "";
  const int64_t columns = module.weight_shape[1];
  if (columns > 0 && columns % *args.group_size == 0) return "";
  return absl::StrCat(module.name, " (in_features ", columns, ", group_size ", *args.group_size,
                      ")");
}

}  // namespace

std::string ListOf(const std::vector<std::string>& names) {
  const size_t shown = std::min(names.size(), kMaxListed);
  std::string text = absl::StrJoin(names.begin(), names.begin() + shown, ", ");
  if (names.size() > shown) absl::StrAppend(&text, " and ", names.size() - shown, " more");
  return text;
}

absl::Status CheckAllMatch(const Recipe& recipe, const QuantizationFields& fields,
                           const std::vector<ModuleRef>& modules, const ResolveOptions& options,
                           std::vector<std::string>& warnings) {
  LLMC_ASSIGN_OR_RETURN(const std::vector<std::string> targets,
                        Unmatched(AllTargets(fields), modules));
  if (!targets.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(recipe.origin(), ": targets that match no module: ", ListOf(targets)));
  }
  return CheckIgnoresMatch(recipe, fields.ignore, modules, options, warnings);
}

absl::Status CheckIgnoresMatch(const Recipe& recipe, const std::vector<std::string>& ignore,
                               const std::vector<ModuleRef>& modules, const ResolveOptions& options,
                               std::vector<std::string>& warnings) {
  LLMC_ASSIGN_OR_RETURN(std::vector<std::string> ignored, Unmatched(ignore, modules));
  const auto head = std::remove_if(ignored.begin(), ignored.end(), [](const std::string& text) {
    return absl::StartsWith(text, "'lm_head'") || absl::StartsWith(text, "'re:.*lm_head");
  });
  const bool only_head = head == ignored.begin();
  if (ignored.empty()) return absl::OkStatus();
  const std::string message =
      absl::StrCat(recipe.origin(), ": ignore entries that match no module: ",
                   only_head ? "lm_head" : ListOf({ignored.begin(), head}));
  if (!only_head && !options.allow_unmatched_ignore) return absl::InvalidArgumentError(message);
  warnings.push_back(message);
  return absl::OkStatus();
}

absl::Status CheckSomethingHappens(const Recipe& recipe, const Resolution& resolution) {
  const bool any = std::any_of(resolution.modules.begin(), resolution.modules.end(),
                               [](const ModuleDecision& d) { return d.scheme.has_value(); });
  const bool quantises =
      std::any_of(recipe.modifiers().begin(), recipe.modifiers().end(),
                  [](const Modifier& m) { return QuantizationFieldsOf(m) != nullptr; });
  if (any || resolution.kv_cache_scheme || !quantises) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      recipe.origin(), ": quantises no module of this model; check targets against ignore"));
}

absl::Status CheckGroupSizes(const Recipe& recipe, const std::vector<ModuleRef>& modules,
                             Resolution& resolution) {
  std::vector<std::string> offenders, run_time;
  for (size_t i = 0; i < modules.size(); ++i) {
    const std::optional<Scheme>& scheme = resolution.modules[i].scheme;
    if (!scheme) continue;
    const std::string own = scheme->weights ? GroupOffence(modules[i], *scheme->weights) : "";
    if (!own.empty()) {
      offenders.push_back(own);
      continue;
    }
    if (!scheme->input_activations) continue;
    const std::string inputs = GroupOffence(modules[i], *scheme->input_activations);
    if (!inputs.empty()) run_time.push_back(inputs);
  }
  if (!run_time.empty()) {
    resolution.warnings.push_back(absl::StrCat(
        "input groups do not divide in_features, some clients refuse that: ", ListOf(run_time)));
  }
  if (offenders.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      recipe.origin(), ": group_size must divide in_features in ", offenders.size(),
      " modules; choose another group_size or put them in ignore: ", ListOf(offenders)));
}

absl::Status CheckFusedSets(const Recipe& recipe, const std::vector<ModuleRef>& modules,
                            Resolution& resolution) {
  std::vector<std::string> split, refused;
  for (const std::vector<int>& set : FusedSets(modules)) {
    if (!IsSplit(set, resolution)) continue;
    (UsesTensorGroup(set, resolution) ? refused : split).push_back(DescribeSet(set, modules));
  }
  if (!refused.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(recipe.origin(), ": fused modules share one NVFP4 global scale, expected one ",
                     "scheme for all of: ", ListOf(refused)));
  }
  if (!split.empty()) {
    resolution.warnings.push_back(
        absl::StrCat("modules that serving engines fuse have different schemes, such engines will "
                     "refuse the checkpoint: ",
                     ListOf(split)));
  }
  return absl::OkStatus();
}

}  // namespace llmc
