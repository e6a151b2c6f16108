#include "plan/pruning_plan.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "formats/names.h"
#include "formats/target.h"

namespace llmc {
namespace {

// Most names listed in a message.
constexpr size_t kMaxListed = 8;

std::string LastPart(const std::string& name) { return name.substr(name.rfind('.') + 1); }

std::string ListOf(const std::vector<std::string>& names) {
  const size_t shown = std::min(names.size(), kMaxListed);
  std::string text = absl::StrJoin(names.begin(), names.begin() + shown, ", ");
  if (names.size() > shown) absl::StrAppend(&text, " and ", names.size() - shown, " more");
  return text;
}

bool Lies(const std::string& name, const std::string& container) {
  return name == container || container.empty() || absl::StartsWith(name, container + ".");
}

// Builds the prunings of one modifier.
class PruningPlanner {
 public:
  PruningPlanner(const Plan& plan, int modifier, const std::vector<ModuleSpec>& modules)
      : plan_(plan),
        modifier_(modifier),
        modules_(modules),
        fields_(*PruningFieldsOf(plan.recipe.modifiers()[modifier])) {}

  absl::StatusOr<std::vector<PlannedTransform>> Plan() {
    LLMC_RETURN_IF_ERROR(MatchTargets());
    LLMC_RETURN_IF_ERROR(CheckListLength());
    LLMC_RETURN_IF_ERROR(CompileIgnore());
    FindSharedFactors();
    for (const PlannedModule& module : plan_.modules) LLMC_RETURN_IF_ERROR(AddModule(module));
    if (!indivisible_.empty()) {
      const MaskStructure& mask = fields_.mask_structure;
      return Error(absl::StrCat("mask_structure ", mask.prune_count, ":", mask.group_size,
                                " must divide in_features; choose another or put them in ignore: ",
                                ListOf(indivisible_)));
    }
    if (transforms_.empty()) return Error("prunes no Linear; check targets against ignore");
    return std::move(transforms_);
  }

 private:
  // A module that a target matches, in module order.
  struct Match {
    std::string name;
    std::string target;
    double sparsity;
  };

  absl::string_view ClassName() const {
    return ModifierClassName(plan_.recipe.modifiers()[modifier_]);
  }

  absl::Status Error(absl::string_view what) const {
    return absl::InvalidArgumentError(
        absl::StrCat(plan_.recipe.origin(), ": ", ClassName(), ": ", what));
  }

  absl::Status MatchTargets() {
    TargetSet targets;
    for (const std::string& text : fields_.targets) LLMC_RETURN_IF_ERROR(targets.Add(text, 0));
    for (const ModuleSpec& module : modules_) {
      LLMC_ASSIGN_OR_RETURN(const std::optional<TargetSet::Hit> hit,
                            targets.Find(module.name, module.class_name));
      if (hit) matches_.push_back({module.name, hit->text, 0});
    }
    return CheckAllMatch();
  }

  absl::Status CheckAllMatch() const {
    std::vector<std::string> unmatched;
    for (const std::string& text : fields_.targets) {
      const bool found = std::any_of(matches_.begin(), matches_.end(),
                                     [&](const Match& match) { return match.target == text; });
      if (!found) unmatched.push_back(absl::StrCat("'", text, "'"));
    }
    if (unmatched.empty()) return absl::OkStatus();
    return Error(absl::StrCat("targets that match no module: ", ListOf(unmatched)));
  }

  absl::Status CheckListLength() {
    if (fields_.sparsity_is_list && fields_.sparsity.size() != matches_.size()) {
      return Error(absl::StrCat("sparsity lists ", fields_.sparsity.size(),
                                " numbers, but targets match ", matches_.size(),
                                " modules; expected one for each"));
    }
    for (size_t i = 0; i < matches_.size(); ++i) {
      if (fields_.sparsity.empty()) break;
      matches_[i].sparsity = fields_.sparsity[fields_.sparsity_is_list ? i : 0];
    }
    return absl::OkStatus();
  }

  absl::Status CompileIgnore() {
    for (const std::string& text : fields_.ignore) LLMC_RETURN_IF_ERROR(ignore_.Add(text, 0));
    return absl::OkStatus();
  }

  // Inputs whose factor a GPTQ after this SparseGPT asks for again.
  void FindSharedFactors() {
    const auto* sparse_gpt = std::get_if<SparseGptModifier>(&plan_.recipe.modifiers()[modifier_]);
    if (sparse_gpt == nullptr) return;
    for (const PlannedModule& module : plan_.modules) {
      if (module.method != Method::kGptq || module.modifier < modifier_) continue;
      const auto& gptq = std::get<GptqModifier>(plan_.recipe.modifiers()[module.modifier]);
      if (module.scheme->weights->actorder || gptq.dampening_frac != sparse_gpt->dampening_frac) {
        continue;
      }
      shared_factors_.insert(module.module.input_group);
    }
  }

  // Of several containers the innermost decides: it comes last.
  const Match* FindMatch(const std::string& name) const {
    const Match* found = nullptr;
    for (const Match& match : matches_) {
      if (Lies(name, match.name)) found = &match;
    }
    return found;
  }

  absl::Status AddModule(const PlannedModule& planned) {
    const ModuleSpec& module = planned.module;
    const Match* match = module.is_linear() ? FindMatch(module.name) : nullptr;
    if (match == nullptr) return absl::OkStatus();
    LLMC_ASSIGN_OR_RETURN(const std::optional<TargetSet::Hit> ignored,
                          ignore_.Find(module.name, module.class_name));
    if (ignored) return absl::OkStatus();
    if (planned.source.name != module.weight_name()) {
      return Error(absl::StrCat(module.name,
                                " shares its weight with the embeddings, which "
                                "pruning would change; expected it in ignore"));
    }
    if (!IsDenseFloat(planned.source.dtype)) {
      return Error(absl::StrCat(planned.source.name, ": dtype ",
                                SafetensorsName(planned.source.dtype),
                                ", expected a dense BF16, F16 or F32 weight"));
    }
    LLMC_RETURN_IF_ERROR(CheckKeepsEarlierMask(module.name));
    const MaskStructure& mask = fields_.mask_structure;
    if (mask.is_grouped() && planned.source.shape[1] % mask.group_size != 0) {
      indivisible_.push_back(
          absl::StrCat(module.name, " (in_features ", planned.source.shape[1], ")"));
    }
    Add(planned, *match);
    return absl::OkStatus();
  }

  // SparseGPT fills zeros again; the others never do.
  absl::Status CheckKeepsEarlierMask(const std::string& module) const {
    const auto* sparse_gpt = std::get_if<SparseGptModifier>(&plan_.recipe.modifiers()[modifier_]);
    if (sparse_gpt == nullptr || sparse_gpt->preserve_sparsity_mask) return absl::OkStatus();
    for (const PlannedTransform& earlier : plan_.transforms) {
      if (earlier.module != module) continue;
      return Error(absl::StrCat(
          module, ": would fill again what the ",
          ModifierClassName(plan_.recipe.modifiers()[earlier.modifier]),
          " before it keeps at 0; expected preserve_sparsity_mask: true, or one of the two"));
    }
    return absl::OkStatus();
  }

  void Add(const PlannedModule& planned, const Match& match) {
    PlannedTransform transform;
    transform.modifier = modifier_;
    transform.layer = planned.module.layer;
    transform.module = planned.module.name;
    transform.sparsity = match.sparsity;
    transform.why = absl::StrCat("target ", match.target);
    transform.subject = absl::StrCat(LastPart(planned.module.name), " ", Extent(match.sparsity));
    const Modifier& modifier = plan_.recipe.modifiers()[modifier_];
    // ConstantPruningModifier changes nothing.
    transform.keeps_function = std::holds_alternative<ConstantPruningModifier>(modifier);
    if (!transform.keeps_function) transform.tensors.push_back(planned.source.name);
    StatisticsNeed need;
    need.hessian = std::holds_alternative<SparseGptModifier>(modifier);
    need.squares = std::holds_alternative<WandaPruningModifier>(modifier);
    if (need.hessian || need.squares) transform.needs[planned.module.input_group] = need;
    transform.keeps_factor = shared_factors_.contains(planned.module.input_group);
    transforms_.push_back(std::move(transform));
  }

  // "2:4", "50 %", "about 50 % by OWL", "keeps its zeros".
  std::string Extent(double sparsity) const {
    const MaskStructure& mask = fields_.mask_structure;
    if (fields_.sparsity.empty()) return "keeps its zeros";
    if (mask.is_grouped()) return absl::StrCat(mask.prune_count, ":", mask.group_size);
    const std::string percent = absl::StrFormat("%g %%", 100 * sparsity);
    return fields_.has_owl_profile ? absl::StrCat("about ", percent, " by OWL") : percent;
  }

  const llmc::Plan& plan_;
  int modifier_;
  const std::vector<ModuleSpec>& modules_;
  const PruningFields& fields_;
  std::vector<Match> matches_;
  TargetSet ignore_;
  std::set<std::string> shared_factors_;  // Input groups.
  std::vector<std::string> indivisible_;
  std::vector<PlannedTransform> transforms_;
};

bool StoresPlainWeight(const PlannedModule& module) {
  return std::any_of(module.stored.begin(), module.stored.end(), [&](const TensorSpec& spec) {
    return spec.name == module.module.weight_name();
  });
}

// Two of every four columns are sure to be 0.
bool Is24(const Modifier& modifier) {
  const MaskStructure& mask = PruningFieldsOf(modifier)->mask_structure;
  return mask.group_size == 4 && mask.prune_count >= 2;
}

}  // namespace

std::vector<std::string> SparseModules(const Plan& plan) {
  std::vector<std::string> names;
  for (const PlannedModule& module : plan.modules) {
    const bool is_pruned = std::any_of(
        plan.transforms.begin(), plan.transforms.end(), [&](const PlannedTransform& transform) {
          return transform.module == module.module.name && !transform.tensors.empty();
        });
    if (is_pruned) names.push_back(module.module.name);
  }
  return names;
}

absl::Status CheckSparseFormat(const Plan& plan) {
  if (plan.sparse_format == SparseFormat::kDense) return absl::OkStatus();
  const std::string where = absl::StrCat(SparseFormatName(plan.sparse_format), ": ");
  const std::vector<std::string> names = SparseModules(plan);
  if (names.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(where, "the recipe prunes nothing"));
  }
  for (const std::string& name : names) {
    const PlannedModule& module = *plan.Find(name);
    if (!module.is_quantized() || StoresPlainWeight(module)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(where, name, " is stored as ", FormatName(module.scheme->format),
                     ", expected a format with whole codes (FP8, INT8) or no quantisation"));
  }
  if (plan.sparse_format == SparseFormat::kSparseBitmask) return absl::OkStatus();
  for (const PlannedTransform& transform : plan.transforms) {
    const Modifier& modifier = plan.recipe.modifiers()[transform.modifier];
    if (transform.tensors.empty() || transform.module.empty() || Is24(modifier)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(where, transform.module, " is pruned ",
                     transform.subject.substr(transform.subject.find(' ') + 1),
                     ", expected mask_structure 2:4"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<PlannedTransform>> PlanPruning(const Plan& plan, int modifier,
                                                          const std::vector<ModuleSpec>& modules) {
  return PruningPlanner(plan, modifier, modules).Plan();
}

}  // namespace llmc
