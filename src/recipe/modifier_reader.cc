#include "recipe/modifier_reader.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "formats/names.h"

namespace llmc {
namespace {

using ModifierReader = absl::StatusOr<Modifier> (*)(const Value& body, const FieldEntries& fields);

struct KnownModifier {
  const char* class_name;
  ModifierReader read;  // Null: LLM Compressor has it, this version does not.
};

constexpr KnownModifier kKnown[] = {
    {"QuantizationModifier", ReadQuantizationModifier},
    {"GPTQModifier", ReadGptqModifier},
    {"AWQModifier", ReadAwqModifier},
    {"SmoothQuantModifier", ReadSmoothQuantModifier},
    {"LogarithmicEqualizationModifier", ReadLogEqualizationModifier},
    {"AutoRoundModifier", nullptr},
    {"SpinQuantModifier", nullptr},
    {"QuIPModifier", nullptr},
    {"SparseGPTModifier", ReadSparseGptModifier},
    {"WandaPruningModifier", ReadWandaModifier},
    {"REAPPruningModifier", nullptr},
    {"MagnitudePruningModifier", ReadMagnitudeModifier},
    {"ConstantPruningModifier", ReadConstantPruningModifier},
};

std::string ImplementedNames() {
  std::vector<std::string> names;
  for (const KnownModifier& known : kKnown) {
    if (known.read != nullptr) names.emplace_back(known.class_name);
  }
  return absl::StrJoin(names, ", ");
}

}  // namespace

const std::vector<std::string>& KnownModifierNames() {
  static const auto* names = [] {
    auto* list = new std::vector<std::string>;
    for (const KnownModifier& known : kKnown) list->emplace_back(known.class_name);
    return list;
  }();
  return *names;
}

const std::vector<std::string>& LegacyKeys() {
  static const auto* keys = new std::vector<std::string>{
      "index", "group", "start", "end", "update", "requires_calibration_data"};
  return *keys;
}

absl::Status CheckLegacyField(absl::string_view key, const Value& value) {
  if (key == "requires_calibration_data") return ReadBool(value).status();
  return key == "group" ? ReadText(value).status() : ReadNumber(value).status();
}

absl::StatusOr<Modifier> ReadModifier(const std::string& class_name, const Value& body) {
  for (const KnownModifier& known : kKnown) {
    if (class_name != known.class_name) continue;
    if (known.read == nullptr) {
      return absl::UnimplementedError(
          absl::StrCat(body.place.origin, ":", body.place.line, ": ", body.place.path,
                       ": known, but not in this version; expected one of ", ImplementedNames()));
    }
    FieldEntries fields;
    if (!body.node.is_null()) {
      LLMC_ASSIGN_OR_RETURN(fields, ReadEntries(body));
    }
    return known.read(body, fields);
  }
  return body.place.Error(
      absl::StrCat("unknown modifier", DidYouMean(class_name, KnownModifierNames())));
}

}  // namespace llmc
