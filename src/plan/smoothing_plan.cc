#include "plan/smoothing_plan.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "formats/names.h"
#include "formats/target.h"

namespace llmc {
namespace {

using Entries = std::vector<SmoothMappingEntry>;

std::string LastPart(const std::string& name) { return name.substr(name.rfind('.') + 1); }

std::vector<std::string> LastParts(const std::vector<std::string>& names) {
  std::vector<std::string> parts;
  for (const std::string& name : names) parts.push_back(LastPart(name));
  return parts;
}

// One target of a mapping, and whether it was ever of use.
struct Pattern {
  Target target;
  bool matched = false;
};

// One mapping of the user's with its targets compiled.
struct CompiledEntry {
  const SmoothMappingEntry* entry;
  Pattern smooth;
  std::vector<Pattern> balance;
};

absl::StatusOr<CompiledEntry> CompileEntry(const SmoothMappingEntry& entry) {
  LLMC_ASSIGN_OR_RETURN(Target smooth, Target::Compile(entry.smooth_layer));
  CompiledEntry compiled{&entry, {std::move(smooth)}, {}};
  for (const std::string& text : entry.balance_layers) {
    LLMC_ASSIGN_OR_RETURN(Target target, Target::Compile(text));
    compiled.balance.push_back({std::move(target)});
  }
  return compiled;
}

absl::StatusOr<std::vector<std::string>> MatchIn(const std::vector<ModuleSpec>& modules,
                                                 Pattern& pattern) {
  std::vector<std::string> names;
  for (const ModuleSpec& module : modules) {
    if (module.weight_shape.empty()) continue;
    LLMC_ASSIGN_OR_RETURN(const TargetMatch match,
                          pattern.target.Match(module.name, module.class_name));
    if (match != TargetMatch::kNone) names.push_back(module.name);
  }
  pattern.matched |= !names.empty();
  return names;
}

bool HasWeightScheme(const PlannedModule& module) {
  return module.scheme && module.scheme->weights;
}

// Builds the smoothings of one modifier.
class SmoothingPlanner {
 public:
  SmoothingPlanner(const Plan& plan, int modifier)
      : plan_(plan),
        modifier_(modifier),
        smooth_(std::get_if<SmoothQuantModifier>(&plan.recipe.modifiers()[modifier])),
        awq_(std::get_if<AwqModifier>(&plan.recipe.modifiers()[modifier])) {}

  absl::StatusOr<std::vector<PlannedTransform>> Plan() {
    const std::optional<Entries>& entries = awq_ != nullptr ? awq_->mappings : smooth_->mappings;
    LLMC_RETURN_IF_ERROR(entries ? AddEntries(*entries) : AddDefaults());
    if (transforms_.empty()) {
      return Error(
          "smooths nothing of this model; check its mappings, ignore and the targets "
          "of the quantisation modifier");
    }
    return std::move(transforms_);
  }

 private:
  absl::Status Error(absl::string_view what) const {
    return absl::InvalidArgumentError(
        absl::StrCat(plan_.recipe.origin(), ": ",
                     ModifierClassName(plan_.recipe.modifiers()[modifier_]), ": ", what));
  }

  absl::Status AddDefaults() {
    for (int64_t layer = 0; layer < plan_.model->num_hidden_layers; ++layer) {
      for (SmoothMapping& mapping : SmoothMappings(*plan_.model, layer)) {
        // SmoothQuant's own table has the norms only.
        if (awq_ == nullptr && mapping.kind != SmoothMapping::Kind::kNorm) continue;
        LLMC_RETURN_IF_ERROR(Add(std::move(mapping), layer, "family default"));
      }
    }
    return absl::OkStatus();
  }

  absl::Status AddEntries(const Entries& entries) {
    std::vector<CompiledEntry> compiled;
    for (const SmoothMappingEntry& entry : entries) {
      LLMC_ASSIGN_OR_RETURN(CompiledEntry one, CompileEntry(entry));
      compiled.push_back(std::move(one));
    }
    for (int64_t layer = 0; layer < plan_.model->num_hidden_layers; ++layer) {
      const std::vector<ModuleSpec> modules = LayerModules(*plan_.model, layer);
      for (CompiledEntry& entry : compiled) {
        LLMC_RETURN_IF_ERROR(AddEntry(modules, layer, entry));
      }
    }
    return CheckAllMatched(compiled);
  }

  // A layer without the smooth layer, or without any of the others, is left out.
  absl::Status AddEntry(const std::vector<ModuleSpec>& modules, int64_t layer,
                        CompiledEntry& entry) {
    LLMC_ASSIGN_OR_RETURN(const std::vector<std::string> smooth, MatchIn(modules, entry.smooth));
    std::vector<std::string> balance;
    for (Pattern& pattern : entry.balance) {
      LLMC_ASSIGN_OR_RETURN(const std::vector<std::string> names, MatchIn(modules, pattern));
      balance.insert(balance.end(), names.begin(), names.end());
    }
    if (smooth.empty() || balance.empty()) return absl::OkStatus();
    if (smooth.size() > 1) {
      return Error(absl::StrCat("smooth layer '", entry.entry->smooth_layer, "' matches ",
                                absl::StrJoin(smooth, " and "), ", expected one in a layer"));
    }
    LLMC_ASSIGN_OR_RETURN(SmoothMapping mapping, Checked(layer, smooth[0], balance));
    return Add(std::move(mapping), layer, absl::StrCat("mappings, line ", entry.entry->line));
  }

  // The family's mapping of `source`, when `balance` is exactly what it feeds.
  absl::StatusOr<SmoothMapping> Checked(int64_t layer, const std::string& source,
                                        const std::vector<std::string>& balance) const {
    for (const SmoothMapping& mapping : SmoothMappings(*plan_.model, layer)) {
      if (mapping.source != source) continue;
      const std::set<std::string> named(balance.begin(), balance.end());
      for (const std::string& name : named) {
        if (std::find(mapping.consumers.begin(), mapping.consumers.end(), name) !=
            mapping.consumers.end()) {
          continue;
        }
        return Error(absl::StrCat("smooth layer ", source, " does not feed ", name, "; expected ",
                                  absl::StrJoin(LastParts(mapping.consumers), ", ")));
      }
      for (const std::string& consumer : mapping.consumers) {
        if (named.contains(consumer)) continue;
        return Error(absl::StrCat("smooth layer ", source, " also feeds ", consumer,
                                  ", which its mapping does not balance; expected ",
                                  absl::StrJoin(LastParts(mapping.consumers), ", ")));
      }
      return mapping;
    }
    std::vector<std::string> sources;
    for (const SmoothMapping& mapping : SmoothMappings(*plan_.model, layer)) {
      sources.push_back(LastPart(mapping.source));
    }
    return Error(absl::StrCat(source, ": scaling its output changes the model, expected one of ",
                              absl::StrJoin(sources, ", ")));
  }

  absl::Status CheckAllMatched(const std::vector<CompiledEntry>& entries) const {
    std::vector<std::string> names;
    for (const ModuleSpec& module : LayerModules(*plan_.model, 0)) {
      if (!module.weight_shape.empty()) names.push_back(LastPart(module.name));
    }
    std::vector<std::string> absent;
    const auto check = [&](const CompiledEntry& entry, const Pattern& pattern) {
      if (pattern.matched) return;
      absent.push_back(
          absl::StrCat("'", pattern.target.text(), "' (line ", entry.entry->line, ")"));
    };
    for (const CompiledEntry& entry : entries) {
      check(entry, entry.smooth);
      for (const Pattern& pattern : entry.balance) check(entry, pattern);
    }
    if (absent.empty()) return absl::OkStatus();
    return Error(
        absl::StrCat("mappings name modules that no layer has: ", absl::StrJoin(absent, ", "),
                     "; a layer has ", absl::StrJoin(names, ", ")));
  }

  absl::StatusOr<bool> IsIgnored(const std::string& name) const {
    for (const std::string& text : smooth_->ignore) {
      LLMC_ASSIGN_OR_RETURN(const Target target, Target::Compile(text));
      LLMC_ASSIGN_OR_RETURN(const TargetMatch match, target.Match(name, ""));
      if (match != TargetMatch::kNone) return true;
    }
    return false;
  }

  absl::StatusOr<bool> IsLeftOut(const SmoothMapping& mapping) const {
    if (awq_ != nullptr) return !AnyConsumerQuantized(mapping);
    LLMC_ASSIGN_OR_RETURN(bool all, IsIgnored(mapping.source));
    for (const std::string& consumer : mapping.consumers) {
      LLMC_ASSIGN_OR_RETURN(const bool one, IsIgnored(consumer));
      all &= one;
    }
    return all;
  }

  bool AnyConsumerQuantized(const SmoothMapping& mapping) const {
    return std::any_of(mapping.consumers.begin(), mapping.consumers.end(),
                       [&](const std::string& name) { return HasWeightScheme(*plan_.Find(name)); });
  }

  absl::Status CheckSearchable(const SmoothMapping& mapping) const {
    if (awq_ == nullptr || awq_->duo_scaling == DuoScaling::kFalse) return absl::OkStatus();
    for (const std::string& name : mapping.consumers) {
      const PlannedModule* module = plan_.Find(name);
      if (!HasWeightScheme(*module) || module->scheme->weights->strategy != Strategy::kTensor) {
        continue;
      }
      return Error(absl::StrCat(name,
                                ": duo_scaling needs weight scales of channels, groups or "
                                "blocks, its scheme has one for the tensor; expected "
                                "duo_scaling: false"));
    }
    return absl::OkStatus();
  }

  absl::Status Add(SmoothMapping mapping, int64_t layer, std::string why) {
    LLMC_ASSIGN_OR_RETURN(const bool left_out, IsLeftOut(mapping));
    if (left_out) return absl::OkStatus();
    LLMC_RETURN_IF_ERROR(CheckSearchable(mapping));
    PlannedTransform transform;
    transform.modifier = modifier_;
    transform.layer = layer;
    transform.subject = absl::StrCat(LastPart(mapping.source), " -> ",
                                     absl::StrJoin(LastParts(mapping.consumers), ", "));
    transform.why = std::move(why);
    transform.keeps_function = true;
    transform.tensors.push_back(absl::StrCat(mapping.source, ".weight"));
    const std::string bias = absl::StrCat(mapping.source, ".bias");
    if (plan_.source->Find(bias) != nullptr) transform.tensors.push_back(bias);
    for (const std::string& consumer : mapping.consumers) {
      transform.tensors.push_back(absl::StrCat(consumer, ".weight"));
    }
    StatisticsNeed need;
    need.channel_extrema = smooth_ != nullptr;
    need.mean_magnitude = awq_ != nullptr;
    // A mapping whose parent is the linear itself needs no forward, but X^T X.
    need.hessian = awq_ != nullptr && mapping.kind != SmoothMapping::Kind::kNorm;
    transform.reads_samples = awq_ != nullptr && mapping.kind == SmoothMapping::Kind::kNorm;
    transform.needs[plan_.Find(mapping.consumers[0])->module.input_group] = need;
    transform.smoothing = std::move(mapping);
    transforms_.push_back(std::move(transform));
    return absl::OkStatus();
  }

  const llmc::Plan& plan_;
  int modifier_;
  const SmoothQuantModifier* smooth_;
  const AwqModifier* awq_;
  std::vector<PlannedTransform> transforms_;
};

}  // namespace

absl::StatusOr<std::vector<PlannedTransform>> PlanSmoothing(const Plan& plan, int modifier) {
  return SmoothingPlanner(plan, modifier).Plan();
}

}  // namespace llmc
