#include "recipe/recipe.h"

#include <filesystem>
#include <set>
#include <type_traits>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "formats/names.h"
#include "formats/presets.h"
#include "llmc/file.h"
#include "recipe/document.h"
#include "recipe/fields.h"
#include "recipe/modifier_reader.h"

namespace llmc {
namespace {

constexpr absl::string_view kSparseFormatKey = "sparse_format";

// "x_stage" and what the reference makes of clashing names: "x_stage_0".
bool IsStageName(absl::string_view key) {
  const size_t digits = key.find_last_not_of("0123456789");
  if (digits != absl::string_view::npos && digits + 1 < key.size() && key[digits] == '_') {
    key = key.substr(0, digits);
  }
  return absl::EndsWith(key, "_stage");
}

bool IsGroupName(absl::string_view key) { return absl::EndsWith(key, "_modifiers"); }

bool LooksLikeModifier(absl::string_view key) { return absl::EndsWith(key, "Modifier"); }

// The shape that was probably meant where the reference would silently read nothing.
std::string ExpectedAtTop(absl::string_view key) {
  if (LooksLikeModifier(key)) {
    return absl::StrCat(
        "a modifier outside a stage is never run, expected "
        "default_stage.default_modifiers.",
        key);
  }
  if (IsGroupName(key)) {
    return absl::StrCat("a group outside a stage is never run, expected default_stage.", key);
  }
  return absl::StrCat("not a stage, expected a name that ends in _stage, such as ", key, "_stage");
}

std::string ExpectedInStage(const Place& stage, absl::string_view key) {
  if (LooksLikeModifier(key)) {
    return absl::StrCat("a modifier directly in a stage is never run, expected ", stage.path,
                        ".default_modifiers.", key);
  }
  if (key == "modifiers") {
    return absl::StrCat("not a group, expected ", stage.path, ".default_modifiers");
  }
  return absl::StrCat("not a group, expected a name that ends in _modifiers, such as ", key,
                      "_modifiers");
}

// The modifier as one of its base structs; null when it is none.
template <typename Fields>
const Fields* FieldsAs(const Modifier& modifier) {
  return std::visit(
      [](const auto& m) -> const Fields* {
        if constexpr (std::is_base_of_v<Fields, std::decay_t<decltype(m)>>) {
          return &m;
        } else {
          return nullptr;
        }
      },
      modifier);
}

}  // namespace

// Walks stages, groups and modifiers in file order.
class RecipeReader {
 public:
  RecipeReader(Document document, absl::string_view origin) : document_(std::move(document)) {
    recipe_.origin_ = std::string(origin);
    recipe_.warnings_ = document_.warnings;
  }

  absl::StatusOr<Recipe> Read() {
    const Value root = {document_.root, {recipe_.origin_, document_.root.line, ""}};
    LLMC_ASSIGN_OR_RETURN(const auto entries, ReadEntries(root));
    for (const auto& [key, value] : entries) {
      if (key == "args" || IsAnnotation(key, value)) continue;
      if (key == kSparseFormatKey) {
        LLMC_RETURN_IF_ERROR(ReadSparseFormat(value));
        continue;
      }
      if (!IsStageName(key)) return value.place.Error(ExpectedAtTop(key));
      LLMC_RETURN_IF_ERROR(ReadStage(value));
    }
    if (recipe_.modifiers_.empty()) return root.place.Error("no modifiers, expected at least one");
    LLMC_RETURN_IF_ERROR(CheckOrder(root.place));
    return std::move(recipe_);
  }

 private:
  // Notes that old recipes carry; they never meant anything to a run.
  bool IsAnnotation(const std::string& key, const Value& value) {
    static const std::set<std::string> kNotes = {"version", "metadata", "run_type"};
    if (kNotes.count(key) == 0 || value.node.is_list()) return false;
    recipe_.warnings_.push_back(absl::StrCat(value.place.origin, ":", value.place.line, ": ",
                                             value.place.path, ": kept as a note, has no effect"));
    return true;
  }

  absl::Status ReadStage(const Value& stage) {
    LLMC_ASSIGN_OR_RETURN(const auto entries, ReadEntries(stage));
    if (entries.empty()) return stage.place.Error("empty, expected a group of modifiers");
    for (const auto& [key, group] : entries) {
      if (IsAnnotation(key, group)) continue;
      if (!IsGroupName(key)) return group.place.Error(ExpectedInStage(stage.place, key));
      LLMC_RETURN_IF_ERROR(group.node.is_list() ? ReadList(group) : ReadGroup(group));
    }
    return absl::OkStatus();
  }

  absl::Status ReadGroup(const Value& group) {
    LLMC_ASSIGN_OR_RETURN(const auto entries, ReadEntries(group));
    if (entries.empty()) return group.place.Error("empty, expected a modifier");
    for (const auto& [class_name, body] : entries) {
      LLMC_ASSIGN_OR_RETURN(const Node own, WithoutSparseFormat(class_name, body));
      LLMC_ASSIGN_OR_RETURN(Modifier modifier, ReadModifier(class_name, {own, body.place}));
      recipe_.modifiers_.push_back(std::move(modifier));
    }
    return absl::OkStatus();
  }

  // Reads the one field that is about the whole output, wherever it stands.
  absl::StatusOr<Node> WithoutSparseFormat(const std::string& class_name, const Value& body) {
    if (body.node.Find(kSparseFormatKey) == nullptr) return body.node;
    LLMC_ASSIGN_OR_RETURN(const auto entries, ReadEntries(body));
    Node rest = body.node;
    for (size_t i = 0; i < entries.size(); ++i) {
      const auto& [key, value] = entries[i];
      if (key != kSparseFormatKey) continue;
      if (!absl::StrContains(class_name, "Prun") && !absl::StrContains(class_name, "SparseGPT")) {
        return value.place.Error("expected at the top of the recipe or in a modifier that prunes");
      }
      LLMC_RETURN_IF_ERROR(ReadSparseFormat(value));
      rest.entries.erase(rest.entries.begin() + i);
      rest.entry_lines.erase(rest.entry_lines.begin() + i);
    }
    return rest;
  }

  absl::Status ReadSparseFormat(const Value& value) {
    LLMC_ASSIGN_OR_RETURN(const std::string name, ReadText(value));
    const absl::StatusOr<SparseFormat> format = SparseFormatFromName(name);
    if (!format.ok()) return value.place.Wrap(format.status());
    const std::string place =
        absl::StrCat(value.place.origin, ":", value.place.line, ": ", value.place.path);
    if (recipe_.sparse_format_.value_or(*format) != *format) {
      return value.place.Error(absl::StrCat("'", name, "' contradicts '",
                                            SparseFormatName(*recipe_.sparse_format_), "' of ",
                                            recipe_.sparse_format_place_, ", expected one layout"));
    }
    recipe_.sparse_format_ = *format;
    recipe_.sparse_format_place_ = place;
    return absl::OkStatus();
  }

  // A list of modifiers, each "- ClassName: {...}".
  absl::Status ReadList(const Value& list) {
    if (list.node.items.empty()) return list.place.Error("empty, expected a modifier");
    for (size_t i = 0; i < list.node.items.size(); ++i) {
      const Node& item = list.node.items[i];
      const Value value = {item, list.place.Child(absl::StrCat(i), item.line)};
      if (!item.is_map()) {
        return value.place.Error(
            absl::StrCat(Describe(item), ", expected a modifier: {its fields}"));
      }
      LLMC_RETURN_IF_ERROR(ReadGroup(value));
    }
    return absl::OkStatus();
  }

  // AWQ searches for the quantiser that follows it.
  absl::Status CheckOrder(const Place& place) const {
    bool quantised_later = false;
    for (auto it = recipe_.modifiers_.rbegin(); it != recipe_.modifiers_.rend(); ++it) {
      quantised_later |= QuantizationFieldsOf(*it) != nullptr;
      if (std::holds_alternative<AwqModifier>(*it) && !quantised_later) {
        return place.Error(
            "AWQModifier only rescales, expected a QuantizationModifier or GPTQModifier after it");
      }
    }
    return absl::OkStatus();
  }

  Document document_;
  Recipe recipe_;
};

absl::StatusOr<Recipe> Recipe::Parse(absl::string_view text, absl::string_view origin,
                                     const std::map<std::string, std::string>& args) {
  LLMC_ASSIGN_OR_RETURN(Document document, ParseDocument(text, origin, args));
  return RecipeReader(std::move(document), origin).Read();
}

absl::StatusOr<Recipe> Recipe::Load(const std::string& path_or_preset,
                                    const std::map<std::string, std::string>& args) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path_or_preset, error);
  if (std::filesystem::exists(status)) {
    if (std::filesystem::is_directory(status)) {
      return absl::InvalidArgumentError(
          absl::StrCat(path_or_preset, ": a directory, expected a recipe file or a preset name"));
    }
    LLMC_ASSIGN_OR_RETURN(const std::string text, ReadFile(path_or_preset, kMaxRecipeBytes));
    return Parse(text, path_or_preset, args);
  }
  if (IsPresetName(path_or_preset)) {
    if (args.empty()) return FromPreset(path_or_preset);
    return absl::InvalidArgumentError(
        absl::StrCat("preset ", path_or_preset, ": has no {{...}}, expected no arguments"));
  }
  return absl::NotFoundError(absl::StrCat("recipe ", path_or_preset,
                                          ": neither a file nor a preset name",
                                          DidYouMean(path_or_preset, PresetNames())));
}

absl::StatusOr<Recipe> Recipe::FromPreset(absl::string_view name) {
  LLMC_ASSIGN_OR_RETURN(const Scheme scheme, PresetScheme(name));
  const std::string preset = absl::AsciiStrToUpper(name);
  if (!scheme.weights) {
    return absl::InvalidArgumentError(
        absl::StrCat("preset ", preset, ": quantises nothing, expected another preset"));
  }
  // Rounding ints to nearest loses what GPTQ keeps; fp8 and fp4 lose little.
  const bool gains_from_gptq = scheme.weights->type == NumberType::kInt;
  return Parse(
      absl::StrCat("default_stage:\n  default_modifiers:\n    ",
                   gains_from_gptq ? "GPTQModifier" : "QuantizationModifier",
                   ":\n      targets: [Linear]\n      ignore: [lm_head]\n      scheme: ", preset),
      absl::StrCat("preset ", preset));
}

Recipe Recipe::Concatenate(std::vector<Recipe> recipes) {
  Recipe all;
  for (Recipe& recipe : recipes) {
    absl::StrAppend(&all.origin_, all.origin_.empty() ? "" : ", ", recipe.origin_);
    for (Modifier& modifier : recipe.modifiers_) all.modifiers_.push_back(std::move(modifier));
    for (std::string& warning : recipe.warnings_) all.warnings_.push_back(std::move(warning));
    if (!recipe.sparse_format_) continue;
    all.sparse_format_ = recipe.sparse_format_;
    all.sparse_format_place_ = std::move(recipe.sparse_format_place_);
  }
  return all;
}

absl::string_view ModifierClassName(const Modifier& modifier) {
  struct Name {
    absl::string_view operator()(const QuantizationModifier&) { return "QuantizationModifier"; }
    absl::string_view operator()(const GptqModifier&) { return "GPTQModifier"; }
    absl::string_view operator()(const AwqModifier&) { return "AWQModifier"; }
    absl::string_view operator()(const SparseGptModifier&) { return "SparseGPTModifier"; }
    absl::string_view operator()(const WandaPruningModifier&) { return "WandaPruningModifier"; }
    absl::string_view operator()(const MagnitudePruningModifier&) {
      return "MagnitudePruningModifier";
    }
    absl::string_view operator()(const ConstantPruningModifier&) {
      return "ConstantPruningModifier";
    }
    absl::string_view operator()(const SmoothQuantModifier& smooth) {
      return smooth.algorithm == SmoothAlgorithm::kSmoothQuant ? "SmoothQuantModifier"
                                                               : "LogarithmicEqualizationModifier";
    }
  };
  return std::visit(Name(), modifier);
}

const QuantizationFields* QuantizationFieldsOf(const Modifier& modifier) {
  return FieldsAs<QuantizationFields>(modifier);
}

const PruningFields* PruningFieldsOf(const Modifier& modifier) {
  return FieldsAs<PruningFields>(modifier);
}

const QuantizationFields& FieldsOf(const Modifier& modifier) {
  return *QuantizationFieldsOf(modifier);
}

std::string CalibrationReason(const Modifier& modifier) {
  if (std::holds_alternative<GptqModifier>(modifier)) {
    return "GPTQModifier solves with Hessians of its inputs";
  }
  if (std::holds_alternative<AwqModifier>(modifier)) {
    return "AWQModifier searches factors by its inputs";
  }
  if (std::holds_alternative<SmoothQuantModifier>(modifier)) {
    return absl::StrCat(ModifierClassName(modifier), " reads the range of its inputs");
  }
  if (const PruningFields* pruning = PruningFieldsOf(modifier)) {
    if (pruning->has_owl_profile) {
      return absl::StrCat(ModifierClassName(modifier), " finds layer sparsities by OWL");
    }
    if (std::holds_alternative<SparseGptModifier>(modifier)) {
      return "SparseGPTModifier solves with Hessians of its inputs";
    }
    return std::holds_alternative<WandaPruningModifier>(modifier)
               ? "WandaPruningModifier reads the norms of its inputs"
               : "";
  }
  const QuantizationFields& fields = FieldsOf(modifier);
  if (fields.kv_cache_scheme) return "kv_cache_scheme stores calibrated scales";
  for (const SchemeGroup& group : fields.groups) {
    const Scheme& scheme = group.scheme;
    if (scheme.weights && absl::StrContains(scheme.weights->observer.value_or(""), "imatrix")) {
      return absl::StrCat("observer ", *scheme.weights->observer, " of ", group.name);
    }
    if (scheme.input_activations && scheme.input_activations->dynamic != Dynamic::kTrue) {
      return absl::StrCat("static input_activations of ", group.name);
    }
    if (scheme.output_activations && scheme.output_activations->dynamic == Dynamic::kFalse) {
      return absl::StrCat("static output_activations of ", group.name);
    }
  }
  return "";
}

}  // namespace llmc
