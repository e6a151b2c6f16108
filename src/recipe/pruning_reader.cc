// Transforms that zero weights: SparseGPTModifier, WandaPruningModifier,
// MagnitudePruningModifier and ConstantPruningModifier.

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "recipe/modifier_reader.h"
#include "recipe/scheme_reader.h"

namespace llmc {
namespace {

// Longest group of an N:M mask.
constexpr int64_t kMaxGroupSize = 64;

bool Contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::vector<std::string> WithLegacyKeys(std::vector<std::string> keys) {
  keys.insert(keys.end(), LegacyKeys().begin(), LegacyKeys().end());
  return keys;
}

const std::vector<std::string>& CommonKeys() {
  static const auto* keys = new std::vector<std::string>(
      WithLegacyKeys({"sparsity", "sparsity_profile", "mask_structure", "owl_m", "owl_lmbda",
                      "targets", "ignore", "sequential_update"}));
  return *keys;
}

absl::StatusOr<double> ReadSparsity(const Value& value) {
  LLMC_ASSIGN_OR_RETURN(const double sparsity, ReadNumber(value));
  if (sparsity >= 0 && sparsity < 1) return sparsity;
  return value.place.Error(
      absl::StrCat(Describe(value.node), ", expected at least 0 and less than 1"));
}

absl::Status ReadSparsities(const Value& value, PruningFields& fields) {
  fields.sparsity_is_list = value.node.is_list();
  if (!fields.sparsity_is_list) {
    LLMC_ASSIGN_OR_RETURN(const double sparsity, ReadSparsity(value));
    fields.sparsity = {sparsity};
    return absl::OkStatus();
  }
  for (size_t i = 0; i < value.node.items.size(); ++i) {
    const Node& item = value.node.items[i];
    LLMC_ASSIGN_OR_RETURN(const double sparsity,
                          ReadSparsity({item, value.place.Child(absl::StrCat(i), item.line)}));
    fields.sparsity.push_back(sparsity);
  }
  return fields.sparsity.empty() ? value.place.Error("empty, expected a number for every target")
                                 : absl::OkStatus();
}

// "0:0": unstructured; "2:4": two of every four are pruned.
absl::Status ReadMaskStructure(const Value& value, PruningFields& fields) {
  LLMC_ASSIGN_OR_RETURN(const std::string text, ReadText(value));
  if (text == "unstructured") return absl::OkStatus();
  const std::vector<std::string> parts = absl::StrSplit(text, ':');
  int64_t n = 0;
  int64_t m = 0;
  const bool reads =
      parts.size() == 2 && absl::SimpleAtoi(parts[0], &n) && absl::SimpleAtoi(parts[1], &m);
  const bool fits = (n == 0 && m == 0) || (n > 0 && n < m && m <= kMaxGroupSize);
  if (!reads || !fits) {
    return value.place.Error(absl::StrCat(Describe(value.node),
                                          ", expected \"0:0\" (unstructured) or \"N:M\" with 0 < N "
                                          "< M <= ",
                                          kMaxGroupSize, ", N pruned of every M"));
  }
  fields.mask_structure = {n, m};
  return absl::OkStatus();
}

absl::Status ReadOwlField(const std::string& key, const Value& value, PruningFields& fields) {
  if (key == "sparsity_profile") {
    LLMC_ASSIGN_OR_RETURN(const std::string profile, ReadText(value));
    if (absl::AsciiStrToLower(profile) == "owl") {
      fields.has_owl_profile = true;
      return absl::OkStatus();
    }
    return value.place.Error(absl::StrCat(Describe(value.node), ", expected owl"));
  }
  LLMC_ASSIGN_OR_RETURN(const double number, ReadNumber(value));
  if (!(number > 0) || (key == "owl_lmbda" && number >= 1)) {
    return value.place.Error(absl::StrCat(Describe(value.node), ", expected more than 0",
                                          key == "owl_lmbda" ? " and less than 1" : ""));
  }
  (key == "owl_m" ? fields.owl_m : fields.owl_lmbda) = number;
  return absl::OkStatus();
}

absl::Status ReadCommonField(const std::string& key, const Value& value, PruningFields& fields) {
  if (value.node.is_null()) return absl::OkStatus();
  if (key == "sparsity") return ReadSparsities(value, fields);
  if (key == "mask_structure") return ReadMaskStructure(value, fields);
  if (key == "targets") {
    LLMC_ASSIGN_OR_RETURN(fields.targets, ReadTargets(value));
    return absl::OkStatus();
  }
  if (key == "ignore") {
    LLMC_ASSIGN_OR_RETURN(fields.ignore, ReadPatterns(value));
    return absl::OkStatus();
  }
  // Deprecated: layers are always pruned one after the other.
  if (key == "sequential_update") return ReadBool(value).status();
  if (key == "sparsity_profile" || key == "owl_m" || key == "owl_lmbda") {
    return ReadOwlField(key, value, fields);
  }
  return CheckLegacyField(key, value);
}

absl::Status CheckOwl(const Place& place, const PruningFields& fields) {
  const bool any = fields.has_owl_profile || fields.owl_m || fields.owl_lmbda;
  if (!any) return absl::OkStatus();
  std::vector<std::string> missing;
  if (!fields.has_owl_profile) missing.push_back("sparsity_profile: owl");
  if (!fields.owl_m) missing.push_back("owl_m");
  if (!fields.owl_lmbda) missing.push_back("owl_lmbda");
  if (!missing.empty()) {
    return place.Error(
        absl::StrCat("OWL needs sparsity_profile, owl_m and owl_lmbda or none of "
                     "them; expected also ",
                     absl::StrJoin(missing, " and ")));
  }
  if (fields.sparsity_is_list || fields.mask_structure.is_grouped()) {
    return place.Error(absl::StrCat(
        "sparsity_profile: owl finds a sparsity for every layer, expected no ",
        fields.sparsity_is_list ? "list of sparsities" : "N:M mask_structure, which fixes one"));
  }
  return absl::OkStatus();
}

// An N:M mask fixes the sparsity; the reference would silently take the mask's.
absl::Status CheckSparsity(const Place& place, const PruningFields& fields) {
  if (fields.sparsity.empty()) {
    return place.Error("sparsity: missing, expected a number from 0 to less than 1");
  }
  const MaskStructure& mask = fields.mask_structure;
  if (!mask.is_grouped()) return absl::OkStatus();
  const double fixed = static_cast<double>(mask.prune_count) / static_cast<double>(mask.group_size);
  for (double sparsity : fields.sparsity) {
    if (std::abs(sparsity - fixed) < 5e-3) continue;
    return place.Error(absl::StrCat("sparsity ", sparsity, " contradicts mask_structure ",
                                    mask.prune_count, ":", mask.group_size, ", expected ", fixed));
  }
  return absl::OkStatus();
}

absl::Status CheckPruning(const Place& place, const PruningFields& fields) {
  LLMC_RETURN_IF_ERROR(CheckSparsity(place, fields));
  return CheckOwl(place, fields);
}

absl::Status ReadSparseGptField(const std::string& key, const Value& value,
                                SparseGptModifier& sparse_gpt) {
  if (value.node.is_null()) return absl::OkStatus();
  if (key == "block_size") {
    LLMC_ASSIGN_OR_RETURN(sparse_gpt.block_size, ReadInteger(value, 1, 1024));
  } else if (key == "dampening_frac") {
    LLMC_ASSIGN_OR_RETURN(sparse_gpt.dampening_frac, ReadNumber(value));
    if (!(sparse_gpt.dampening_frac > 0 && sparse_gpt.dampening_frac <= 1)) {
      return value.place.Error(
          absl::StrCat(Describe(value.node), ", expected more than 0 and at most 1"));
    }
  } else if (key == "preserve_sparsity_mask") {
    LLMC_ASSIGN_OR_RETURN(sparse_gpt.preserve_sparsity_mask, ReadBool(value));
  } else if (key == "offload_hessians") {
    LLMC_ASSIGN_OR_RETURN(sparse_gpt.offload_hessians, ReadBool(value));
  } else {
    return ReadCommonField(key, value, sparse_gpt);
  }
  return absl::OkStatus();
}

absl::Status CheckBlockSize(const Place& place, const SparseGptModifier& sparse_gpt) {
  const MaskStructure& mask = sparse_gpt.mask_structure;
  if (!mask.is_grouped() || sparse_gpt.block_size % mask.group_size == 0) return absl::OkStatus();
  return place.Error(absl::StrCat("block_size ", sparse_gpt.block_size, " cuts groups of ",
                                  mask.group_size, " (mask_structure ", mask.prune_count, ":",
                                  mask.group_size, "), expected a multiple of ", mask.group_size));
}

// Schedules of a training past: what counts in one shot is where they end.
absl::Status ReadMagnitudeField(const std::string& key, const Value& value,
                                MagnitudePruningModifier& magnitude) {
  if (value.node.is_null()) return absl::OkStatus();
  if (key == "final_sparsity") return ReadSparsities(value, magnitude);
  if (key == "init_sparsity") {
    LLMC_ASSIGN_OR_RETURN(magnitude.init_sparsity, ReadSparsity(value));
  } else if (key == "update_scheduler") {
    return ReadText(value).status();
  } else if (key == "scheduler_args") {
    return ReadEntries(value).status();
  } else if (key == "leave_enabled") {
    return ReadBool(value).status();
  } else if (key == "apply_globally") {
    LLMC_ASSIGN_OR_RETURN(const bool globally, ReadBool(value));
    if (globally) return value.place.Error("true, expected false: rows are pruned one by one");
  } else {
    return ReadCommonField(key, value, magnitude);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Modifier> ReadSparseGptModifier(const Value& body, const FieldEntries& fields) {
  static const auto* keys = [] {
    auto* all = new std::vector<std::string>(CommonKeys());
    all->insert(all->end(),
                {"block_size", "dampening_frac", "preserve_sparsity_mask", "offload_hessians"});
    return all;
  }();
  SparseGptModifier sparse_gpt;
  for (const auto& [key, value] : fields) {
    if (!Contains(*keys, key)) return UnknownKey(value.place, key, *keys);
    LLMC_RETURN_IF_ERROR(ReadSparseGptField(key, value, sparse_gpt));
  }
  LLMC_RETURN_IF_ERROR(CheckPruning(body.place, sparse_gpt));
  LLMC_RETURN_IF_ERROR(CheckBlockSize(body.place, sparse_gpt));
  return sparse_gpt;
}

absl::StatusOr<Modifier> ReadWandaModifier(const Value& body, const FieldEntries& fields) {
  WandaPruningModifier wanda;
  for (const auto& [key, value] : fields) {
    if (!Contains(CommonKeys(), key)) return UnknownKey(value.place, key, CommonKeys());
    LLMC_RETURN_IF_ERROR(ReadCommonField(key, value, wanda));
  }
  LLMC_RETURN_IF_ERROR(CheckPruning(body.place, wanda));
  return wanda;
}

absl::StatusOr<Modifier> ReadMagnitudeModifier(const Value& body, const FieldEntries& fields) {
  static const auto* keys = new std::vector<std::string>(
      WithLegacyKeys({"init_sparsity", "final_sparsity", "update_scheduler", "scheduler_args",
                      "mask_structure", "leave_enabled", "apply_globally", "targets", "ignore"}));
  MagnitudePruningModifier magnitude;
  for (const auto& [key, value] : fields) {
    if (!Contains(*keys, key)) return UnknownKey(value.place, key, *keys);
    LLMC_RETURN_IF_ERROR(ReadMagnitudeField(key, value, magnitude));
  }
  if (magnitude.sparsity.empty()) {
    return body.place.Error("final_sparsity: missing, expected a number from 0 to less than 1");
  }
  LLMC_RETURN_IF_ERROR(CheckPruning(body.place, magnitude));
  return magnitude;
}

absl::StatusOr<Modifier> ReadConstantPruningModifier(const Value&, const FieldEntries& fields) {
  static const auto* keys = new std::vector<std::string>(WithLegacyKeys({"targets", "ignore"}));
  ConstantPruningModifier constant;
  for (const auto& [key, value] : fields) {
    if (!Contains(*keys, key)) return UnknownKey(value.place, key, *keys);
    LLMC_RETURN_IF_ERROR(ReadCommonField(key, value, constant));
  }
  return constant;
}

}  // namespace llmc
