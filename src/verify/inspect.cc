#include "verify/inspect.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/strict_json.h"
#include "formats/names.h"
#include "formats/quantization_config.h"
#include "llmc/byte_size.h"
#include "verify/findings.h"
#include "verify/module_table.h"

namespace llmc {
namespace {

// "model.layers.3.mlp" -> "model.layers.*.mlp".
std::string Pattern(absl::string_view name) {
  std::vector<std::string> parts = absl::StrSplit(name, '.');
  for (std::string& part : parts)
    if (!part.empty() && std::all_of(part.begin(), part.end(), absl::ascii_isdigit)) part = "*";
  return absl::StrJoin(parts, ".");
}

std::string ArgsText(const QuantizationArgs& args) {
  std::string text = absl::StrCat(args.type == NumberType::kInt ? "int" : "fp", args.num_bits, " ",
                                  StrategyName(args.strategy));
  if (args.group_size) absl::StrAppend(&text, " ", *args.group_size);
  if (args.block_structure)
    absl::StrAppend(&text, " ", (*args.block_structure)[0], "x", (*args.block_structure)[1]);
  if (!args.symmetric) text += " asymmetric";
  return text;
}

std::string FormatText(const Scheme& scheme) {
  std::string text = absl::StrCat(FormatName(scheme.format), " ", ArgsText(*scheme.weights));
  if (!scheme.input_activations) return text;
  const char* when = scheme.input_activations->dynamic == Dynamic::kFalse ? "static" : "dynamic";
  return absl::StrCat(text, ", inputs ", ArgsText(*scheme.input_activations), " ", when);
}

double BitsPerWeight(int64_t num_bytes, int64_t num_parameters) {
  return num_parameters == 0 ? 0 : 8.0 * static_cast<double>(num_bytes) / num_parameters;
}

class Inspector {
 public:
  explicit Inspector(std::shared_ptr<const Checkpoint> checkpoint) {
    subject_.output = std::move(checkpoint);
  }

  absl::StatusOr<Inspection> Inspect() {
    const Checkpoint& checkpoint = *subject_.output;
    const nlohmann::json* config = FindQuantizationConfig(checkpoint.config());
    result_.format = "dense";
    if (config != nullptr) {
      LLMC_ASSIGN_OR_RETURN(subject_.config, QuantizationConfig::FromJson(*config));
      result_.format = subject_.config->format();
    }
    const auto type = checkpoint.config().find("model_type");
    if (type != checkpoint.config().end() && type->is_string()) result_.model_type = *type;
    result_.shards = checkpoint.shards();
    FindQuantizedModules();
    for (const CheckpointTensor& tensor : checkpoint.tensors()) AddTensor(tensor.spec);
    for (ModuleGroup& group : result_.groups) {
      group.bits_per_weight = BitsPerWeight(group.num_bytes, group.num_parameters);
      result_.num_bytes += group.num_bytes;
      result_.num_parameters += group.num_parameters;
    }
    result_.bits_per_weight = BitsPerWeight(result_.num_bytes, result_.num_parameters);
    return std::move(result_);
  }

 private:
  void FindQuantizedModules() {
    Findings ignored;  // Soundness is VerifyCheckpoint's subject.
    ModuleTable table = MakeModuleTable(subject_, ignored);
    for (QuantizedModule& module : table.quantized)
      quantized_.emplace(module.name, std::move(module));
    for (const std::string& name : table.sparse)
      sparse_[name] = NumElements(StoredWeightShape(*subject_.output, name, nullptr));
  }

  // Parameters that a tensor of a module without a quantised weight stands for.
  int64_t ParametersOf(const TensorSpec& spec, const std::string& module) const {
    if (!IsSparsePart(spec.name, module)) return NumElements(spec.shape);
    return absl::EndsWith(spec.name, ".compressed") ? sparse_.at(module) : 0;
  }

  bool IsSparsePart(const std::string& name, const std::string& module) const {
    return sparse_.contains(module) && !absl::EndsWith(name, ".bias");
  }

  std::string DenseFormat(const TensorSpec& spec, const std::string& module) const {
    if (!IsSparsePart(spec.name, module)) return std::string(SafetensorsName(spec.dtype));
    return std::string(SparseFormatName(subject_.config->sparse_format()));
  }

  ModuleGroup& GroupFor(const std::string& pattern, const std::string& format) {
    const auto [it, inserted] = group_of_.try_emplace({pattern, format}, result_.groups.size());
    if (inserted) {
      result_.groups.emplace_back();
      result_.groups.back().pattern = pattern;
      result_.groups.back().format = format;
    }
    return result_.groups[it->second];
  }

  void AddTensor(const TensorSpec& spec) {
    result_.tensors.push_back(spec);
    const size_t dot = spec.name.rfind('.');
    const std::string module = dot == std::string::npos ? spec.name : spec.name.substr(0, dot);
    const auto it = quantized_.find(module);
    const bool is_parameter = it != quantized_.end() && QuantizationSuffix(spec.name).empty() &&
                              !absl::EndsWith(spec.name, ".weight") &&
                              !IsSparsePart(spec.name, module);
    ModuleGroup& group = it == quantized_.end()
                             ? GroupFor(Pattern(module), DenseFormat(spec, module))
                             : GroupFor(Pattern(module), FormatText(it->second.group->scheme));
    const bool is_new = seen_.insert({module, group.format}).second;
    if (is_new) ++group.num_modules;
    group.num_bytes += spec.num_bytes();
    if (it == quantized_.end() || is_parameter) group.num_parameters += ParametersOf(spec, module);
    if (it != quantized_.end() && is_new) group.num_parameters += NumElements(it->second.shape);
  }

  Subject subject_;
  Inspection result_;
  std::map<std::string, QuantizedModule> quantized_;
  std::map<std::string, int64_t> sparse_;  // Module -> elements of its weight.
  std::map<std::pair<std::string, std::string>, size_t> group_of_;
  std::set<std::pair<std::string, std::string>> seen_;  // Modules counted, by format.
};

// Names for a terminal: hostile bytes escaped, without quotes.
std::string Printable(const std::string& name) {
  const std::string quoted = Quoted(name);
  return quoted.substr(1, quoted.size() - 2);
}

}  // namespace

absl::StatusOr<Inspection> InspectCheckpoint(const std::filesystem::path& dir) {
  LLMC_ASSIGN_OR_RETURN(std::shared_ptr<const Checkpoint> checkpoint, Checkpoint::Open(dir));
  return Inspector(std::move(checkpoint)).Inspect();
}

std::string ToTable(const Inspection& inspection, bool every_tensor) {
  size_t name_width = 6;
  for (const ModuleGroup& group : inspection.groups)
    name_width = std::max(name_width, Printable(group.pattern).size());
  const int width = static_cast<int>(name_width);
  std::string table = absl::StrFormat("%-*s  %8s  %14s  %10s  %6s  %s\n", width, "module",
                                      "modules", "parameters", "size", "bits", "format");
  for (const ModuleGroup& group : inspection.groups) {
    absl::StrAppend(&table, absl::StrFormat("%-*s  %8d  %14d  %10s  %6.2f  %s\n", width,
                                            Printable(group.pattern), group.num_modules,
                                            group.num_parameters, FormatByteSize(group.num_bytes),
                                            group.bits_per_weight, group.format));
  }
  absl::StrAppend(
      &table,
      absl::StrFormat("%-*s  %8s  %14d  %10s  %6.2f  %s, %d file(s)\n", width, "total", "",
                      inspection.num_parameters, FormatByteSize(inspection.num_bytes),
                      inspection.bits_per_weight, inspection.format, inspection.shards.size()));
  if (!every_tensor) return table;
  table += "\n";
  for (const TensorSpec& spec : inspection.tensors) {
    absl::StrAppend(&table, Printable(spec.name), "  ", SafetensorsName(spec.dtype), " ",
                    ShapeString(spec.shape), "\n");
  }
  return table;
}

nlohmann::json ToJson(const Inspection& inspection) {
  nlohmann::json groups = nlohmann::json::array();
  for (const ModuleGroup& group : inspection.groups) {
    groups.push_back({{"pattern", group.pattern},
                      {"format", group.format},
                      {"num_modules", group.num_modules},
                      {"num_parameters", group.num_parameters},
                      {"num_bytes", group.num_bytes},
                      {"bits_per_weight", group.bits_per_weight}});
  }
  nlohmann::json tensors = nlohmann::json::array();
  for (const TensorSpec& spec : inspection.tensors) {
    tensors.push_back({{"name", spec.name},
                       {"dtype", std::string(SafetensorsName(spec.dtype))},
                       {"shape", spec.shape}});
  }
  return {{"model_type", inspection.model_type}, {"format", inspection.format},
          {"shards", inspection.shards},         {"num_parameters", inspection.num_parameters},
          {"num_bytes", inspection.num_bytes},   {"bits_per_weight", inspection.bits_per_weight},
          {"groups", std::move(groups)},         {"tensors", std::move(tensors)}};
}

}  // namespace llmc
