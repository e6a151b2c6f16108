// A plan for people and for programs.

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "formats/names.h"
#include "llmc/byte_size.h"
#include "plan/plan.h"
#include "plan/statistics.h"

namespace llmc {
namespace {

std::string ArgsSummary(const QuantizationArgs& args) {
  std::string text = absl::StrCat(args.type == NumberType::kInt ? "int" : "fp", args.num_bits, " ",
                                  std::string(StrategyName(args.strategy)));
  if (args.group_size) absl::StrAppend(&text, " ", *args.group_size);
  if (args.block_structure) {
    absl::StrAppend(&text, " ", (*args.block_structure)[0], "x", (*args.block_structure)[1]);
  }
  if (!args.symmetric) absl::StrAppend(&text, " asym");
  if (args.dynamic == Dynamic::kTrue) absl::StrAppend(&text, " dynamic");
  return text;
}

std::string Duration(double seconds) {
  if (seconds < 90) return absl::StrFormat("%.0f s", std::max(1.0, seconds));
  if (seconds < 5400) return absl::StrFormat("%.0f min", seconds / 60);
  return absl::StrFormat("%.1f h", seconds / 3600);
}

int64_t TotalBytes(const std::vector<TensorSpec>& specs) {
  int64_t bytes = 0;
  for (const TensorSpec& spec : specs) bytes += spec.num_bytes();
  return bytes;
}

int64_t StoredBytes(const PlannedModule& module) {
  return module.is_quantized() ? TotalBytes(module.stored) : module.source.num_bytes();
}

nlohmann::json StoredJson(const std::vector<TensorSpec>& specs) {
  nlohmann::json stored = nlohmann::json::array();
  for (const TensorSpec& spec : specs) {
    stored.push_back({{"name", spec.name},
                      {"dtype", std::string(SafetensorsName(spec.dtype))},
                      {"shape", spec.shape}});
  }
  return stored;
}

nlohmann::json AttentionJson(const PlannedAttention& attention) {
  return {{"module", attention.name}, {"class", attention.class_name},
          {"layer", attention.layer}, {"scheme", ArgsSummary(attention.args)},
          {"why", attention.why},     {"stored", StoredJson(attention.stored)}};
}

nlohmann::json ModuleJson(const PlannedModule& module) {
  return {{"module", module.module.name},
          {"class", module.module.class_name},
          {"layer", module.module.layer},
          {"shape", module.source.shape},
          {"dtype", std::string(SafetensorsName(module.source.dtype))},
          {"method", std::string(MethodName(module.method))},
          {"scheme", module.scheme ? SchemeSummary(*module.scheme) : ""},
          {"why", module.why},
          {"bytes_before", module.source.num_bytes()},
          {"bytes_after", StoredBytes(module)},
          {"stored", StoredJson(module.stored)}};
}

std::string ModifierName(const Plan& plan, int modifier) {
  return std::string(ModifierClassName(plan.recipe.modifiers()[modifier]));
}

nlohmann::json TransformJson(const Plan& plan, const PlannedTransform& transform) {
  return {{"modifier", ModifierName(plan, transform.modifier)},
          {"layer", transform.layer},
          {"subject", transform.subject},
          {"tensors", transform.tensors},
          {"keeps_function", transform.keeps_function},
          {"why", transform.why}};
}

nlohmann::json StatisticsJson(const Plan& plan) {
  nlohmann::json list = nlohmann::json::array();
  for (const WorkUnit& unit : plan.units) {
    for (const auto& [group, need] : NeedsOfUnit(plan, unit)) {
      list.push_back({{"layer", unit.first_layer},
                      {"tap", group},
                      {"readers", StatisticsReaders(plan, unit, group)}});
    }
  }
  return list;
}

// Number lists as people write them: "0-2, 4".
std::string Ranges(const std::vector<int64_t>& rising) {
  std::string text;
  for (size_t first = 0; first < rising.size();) {
    size_t last = first;
    while (last + 1 < rising.size() && rising[last + 1] == rising[last] + 1) ++last;
    absl::StrAppend(&text, text.empty() ? "" : ", ", rising[first]);
    if (last > first) absl::StrAppend(&text, "-", rising[last]);
    first = last + 1;
  }
  return text;
}

// One line for what several layers have in common.
class LinesByLayer {
 public:
  void Add(int64_t layer, const std::string& line) {
    auto [found, is_new] = layers_.try_emplace(line);
    if (is_new) order_.push_back(line);
    found->second.push_back(layer);
  }
  std::string Text(const char* title) const {
    std::string text;
    for (const std::string& line : order_) {
      const std::vector<int64_t>& layers = layers_.at(line);
      absl::StrAppend(&text, title, line,
                      layers[0] < 0 ? "" : absl::StrCat(" (layers ", Ranges(layers), ")"), "\n");
    }
    return text;
  }

 private:
  std::map<std::string, std::vector<int64_t>> layers_;
  std::vector<std::string> order_;
};

// "input of q_proj, k_proj, v_proj", or the tap's own last word.
std::string TapText(const Plan& plan, const std::string& tap) {
  std::vector<std::string> linears;
  for (const PlannedModule& module : plan.modules) {
    if (module.module.input_group != tap) continue;
    linears.push_back(module.module.name.substr(module.module.name.rfind('.') + 1));
  }
  if (linears.empty()) return tap.substr(tap.rfind('.') + 1);
  return absl::StrCat("input of ", absl::StrJoin(linears, ", "));
}

// What transforms do, and which modifiers share a capture.
std::string TransformsText(const Plan& plan) {
  if (!plan.calibrated && plan.transforms.empty()) return "";
  LinesByLayer changes;
  for (const PlannedTransform& transform : plan.transforms) {
    changes.Add(transform.layer, absl::StrCat(ModifierName(plan, transform.modifier), ": ",
                                              transform.subject, ", ", transform.why));
  }
  LinesByLayer statistics;
  for (const WorkUnit& unit : plan.units) {
    for (const auto& [group, need] : NeedsOfUnit(plan, unit)) {
      std::vector<std::string> parts;
      for (const auto& [statistic, readers] : StatisticsReaders(plan, unit, group)) {
        parts.push_back(absl::StrCat(statistic, " for ", absl::StrJoin(readers, " and ")));
      }
      statistics.Add(unit.first_layer,
                     absl::StrCat(TapText(plan, group), ": ", absl::StrJoin(parts, "; ")));
    }
  }
  return absl::StrCat("\n", changes.Text("transform    "), statistics.Text("statistics   "));
}

}  // namespace

std::string SchemeSummary(const Scheme& scheme) {
  std::string text = scheme.weights ? ArgsSummary(*scheme.weights) : "dense";
  if (scheme.input_activations) {
    absl::StrAppend(&text, ", inputs ", ArgsSummary(*scheme.input_activations));
  }
  if (scheme.output_activations) {
    absl::StrAppend(&text, ", outputs ", ArgsSummary(*scheme.output_activations));
  }
  return text;
}

std::string ToTable(const Plan& plan, const Estimate& estimate) {
  size_t name_width = 6;
  size_t scheme_width = 6;
  for (const PlannedModule& module : plan.modules) {
    name_width = std::max(name_width, module.module.name.size());
    if (module.scheme) scheme_width = std::max(scheme_width, SchemeSummary(*module.scheme).size());
  }
  std::string text;
  const auto row = [&](const std::string& name, const std::string& method,
                       const std::string& scheme, const std::string& shape,
                       const std::string& sizes, const std::string& why) {
    absl::StrAppendFormat(&text, "%-*s  %-5s  %-*s  %-15s  %-20s  %s\n", name_width, name, method,
                          scheme_width, scheme, shape, sizes, why);
  };
  row("module", "how", "scheme", "shape", "bytes", "why");
  for (const PlannedModule& module : plan.modules) {
    const std::string sizes = absl::StrCat(FormatByteSize(module.source.num_bytes()), " -> ",
                                           FormatByteSize(StoredBytes(module)));
    row(module.module.name, std::string(MethodName(module.method)),
        module.scheme ? SchemeSummary(*module.scheme) : "", ShapeString(module.source.shape), sizes,
        module.why);
  }
  for (const PlannedAttention& attention : plan.attentions) {
    row(attention.name, "scales", absl::StrCat("cache ", ArgsSummary(attention.args)), "",
        absl::StrCat("+ ", FormatByteSize(TotalBytes(attention.stored))), attention.why);
  }
  absl::StrAppend(&text, TransformsText(plan));
  int64_t num_copies = 0;
  for (const WorkUnit& unit : plan.units) num_copies += static_cast<int64_t>(unit.copies.size());
  absl::StrAppendFormat(&text, "\n%d tensors are copied as they are.\n", num_copies);
  absl::StrAppendFormat(&text, "calibration  %s\n",
                        plan.calibrated ? plan.calibration_reason : "not needed");
  absl::StrAppendFormat(&text, "weights      %s -> %s in %d file(s)\n",
                        FormatByteSize(plan.source->total_bytes()),
                        FormatByteSize(estimate.output_bytes), plan.layout.shards().size());
  if (plan.sparse_format != SparseFormat::kDense) {
    absl::StrAppend(&text, "zeros        left out at the end, as ",
                    SparseFormatName(plan.sparse_format), "\n");
  }
  absl::StrAppendFormat(&text, "memory       %s a rank",
                        FormatByteSize(estimate.peak_memory_bytes));
  if (plan.calibrated) {
    absl::StrAppendFormat(&text, " (%s of activations, %s of them on disk)",
                          FormatByteSize(estimate.activation_bytes),
                          FormatByteSize(estimate.spilled_bytes));
  }
  if (plan.on_device) {
    absl::StrAppendFormat(&text, "\ndevice       %s a rank, and %s of activations",
                          FormatByteSize(estimate.device_memory_bytes),
                          FormatByteSize(estimate.device_activation_bytes));
  }
  absl::StrAppendFormat(&text, "\ntime         about %s\n", Duration(estimate.seconds));
  for (const std::string& warning : plan.warnings)
    absl::StrAppend(&text, "warning: ", warning, "\n");
  return text;
}

nlohmann::json ToJson(const Plan& plan, const Estimate& estimate) {
  nlohmann::json modules = nlohmann::json::array();
  for (const PlannedModule& module : plan.modules) modules.push_back(ModuleJson(module));
  nlohmann::json copies = nlohmann::json::array();
  for (const WorkUnit& unit : plan.units) {
    for (const std::string& name : unit.copies) copies.push_back(name);
  }
  nlohmann::json attentions = nlohmann::json::array();
  for (const PlannedAttention& a : plan.attentions) attentions.push_back(AttentionJson(a));
  nlohmann::json transforms = nlohmann::json::array();
  for (const PlannedTransform& transform : plan.transforms) {
    transforms.push_back(TransformJson(plan, transform));
  }
  return {{"model", plan.source->dir().string()},
          {"calibrated", plan.calibrated},
          {"calibration_reason", plan.calibration_reason},
          {"modules", std::move(modules)},
          {"attentions", std::move(attentions)},
          {"copied_tensors", std::move(copies)},
          {"transforms", std::move(transforms)},
          {"statistics", StatisticsJson(plan)},
          {"source_bytes", plan.source->total_bytes()},
          {"output_bytes", estimate.output_bytes},
          {"sparse_format", std::string(SparseFormatName(plan.sparse_format))},
          {"num_shards", plan.layout.shards().size()},
          {"peak_memory_bytes", estimate.peak_memory_bytes},
          {"min_memory_bytes", estimate.min_memory_bytes},
          {"activation_bytes", estimate.activation_bytes},
          {"spilled_bytes", estimate.spilled_bytes},
          {"device_memory_bytes", estimate.device_memory_bytes},
          {"device_activation_bytes", estimate.device_activation_bytes},
          {"device_packs_in_flight", estimate.device_packs_in_flight},
          {"matrix_product_flops", estimate.matrix_product_flops},
          {"estimated_seconds", estimate.seconds},
          {"warnings", plan.warnings}};
}

}  // namespace llmc
