#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "formats/names.h"
#include "formats/quantization_args.h"
#include "formats/quantization_config.h"

namespace llmc {
namespace {

using Json = nlohmann::json;

struct Group {
  std::vector<std::string> targets;
  Scheme scheme;
  std::vector<std::string> members;  // Exact names of its modules.
};

struct Groups {
  std::vector<Group> groups;
  std::vector<int> group_of_module;  // -1: dense.
};

bool IsQuantized(const Scheme& scheme) {
  return scheme.weights || scheme.input_activations || scheme.output_activations;
}

// Distinct (targets, scheme) pairs in order of first appearance.
Groups CollectGroups(const std::vector<ConfigModule>& modules) {
  Groups all;
  for (const ConfigModule& module : modules) {
    all.group_of_module.push_back(-1);
    if (!module.scheme || !IsQuantized(*module.scheme)) continue;
    auto at = std::find_if(all.groups.begin(), all.groups.end(), [&](const Group& group) {
      return group.scheme == *module.scheme && group.targets == module.targets;
    });
    if (at == all.groups.end()) {
      at = all.groups.insert(at, Group{module.targets, *module.scheme, {}});
    }
    at->members.push_back(module.name);
    all.group_of_module.back() = static_cast<int>(at - all.groups.begin());
  }
  return all;
}

// Dense modules of every class that is quantised somewhere, class by class.
std::vector<std::string> ExpandedIgnore(const std::vector<ConfigModule>& modules,
                                        const Groups& all) {
  std::vector<std::string> class_order;
  std::map<std::string, std::vector<std::string>> dense;
  std::set<std::string> quantized;
  for (size_t i = 0; i < modules.size(); ++i) {
    const std::string class_name = ServingClassName(modules[i].class_name);
    if (all.group_of_module[i] >= 0) {
      quantized.insert(class_name);
      continue;
    }
    if (dense.count(class_name) == 0) class_order.push_back(class_name);
    dense[class_name].push_back(modules[i].name);
  }
  std::vector<std::string> ignore;
  for (const std::string& class_name : class_order) {
    if (quantized.count(class_name) == 0) continue;
    const std::vector<std::string>& names = dense[class_name];
    ignore.insert(ignore.end(), names.begin(), names.end());
  }
  return ignore;
}

bool ClientQuantizes(absl::string_view class_name) {
  return ClassMatches(class_name, "Linear") || class_name == "Embedding";
}

// Whether a client that reads these targets gives every module its own group.
absl::StatusOr<bool> ResolvesAsMeant(const std::vector<ConfigModule>& modules, const Groups& all,
                                     const std::vector<std::string>& ignore) {
  TargetSet targets;
  for (size_t g = 0; g < all.groups.size(); ++g) {
    for (const std::string& target : all.groups[g].targets) {
      LLMC_RETURN_IF_ERROR(targets.Add(target, static_cast<int>(g)));
    }
  }
  const std::set<std::string> ignored(ignore.begin(), ignore.end());
  for (size_t i = 0; i < modules.size(); ++i) {
    const std::string class_name = ServingClassName(modules[i].class_name);
    const int meant = all.group_of_module[i];
    if (meant < 0 && (!ClientQuantizes(class_name) || ignored.count(modules[i].name) > 0)) continue;
    LLMC_ASSIGN_OR_RETURN(const std::optional<TargetSet::Hit> hit,
                          targets.Find(modules[i].name, class_name));
    if ((hit ? hit->owner : -1) != meant) return false;
  }
  return true;
}

bool IsAttention(absl::string_view class_name) {
  return absl::AsciiStrToLower(class_name).find("attention") != std::string::npos;
}

// A quantised attention module implies the cache's scheme, as clients expect.
std::optional<QuantizationArgs> KvCacheScheme(const ConfigContents& contents) {
  if (contents.kv_cache_scheme) return contents.kv_cache_scheme;
  for (const ConfigModule& module : contents.modules) {
    if (module.scheme && !module.scheme->weights && module.scheme->input_activations &&
        IsAttention(module.class_name)) {
      return module.scheme->input_activations;
    }
  }
  return std::nullopt;
}

Json ArgsOrNull(const std::optional<QuantizationArgs>& args) {
  return args ? QuantizationArgsToJson(*args) : Json();
}

Json GroupJson(const Group& group) {
  return {{"format", std::string(FormatName(group.scheme.format))},
          {"input_activations", ArgsOrNull(group.scheme.input_activations)},
          {"output_activations", ArgsOrNull(group.scheme.output_activations)},
          {"targets", group.targets},
          {"weights", ArgsOrNull(group.scheme.weights)}};
}

std::string TopLevelFormat(const std::vector<Group>& groups) {
  std::set<Format> formats;
  for (const Group& group : groups) {
    if (group.scheme.format != Format::kDense) formats.insert(group.scheme.format);
  }
  if (formats.size() > 1) return "mixed-precision";
  return std::string(FormatName(formats.empty() ? Format::kDense : *formats.begin()));
}

Json TransformOnly(const Json& transform_config) {
  return {{"quant_method", "compressed-tensors"},
          {"sparsity_config", Json::object()},
          {"transform_config", transform_config},
          {"version", std::string(kCompressedTensorsVersion)}};
}

}  // namespace

Json WithSparsityConfig(Json config, const SparsityContents& contents) {
  if (config.is_null()) {
    config = {{"format", "dense"},
              {"quant_method", "compressed-tensors"},
              {"quantization_status", "compressed"},
              {"transform_config", Json::object()},
              {"version", std::string(kCompressedTensorsVersion)}};
  }
  const bool is_24 = contents.format == SparseFormat::kSparse24Bitmask;
  config["sparsity_config"] = {{"format", std::string(SparseFormatName(contents.format))},
                               {"global_sparsity", contents.global_sparsity},
                               {"ignore", contents.ignore},
                               {"registry_requires_subclass", false},
                               {"sparsity_structure", is_24 ? "2:4" : "unstructured"},
                               {"targets", {"Linear"}}};
  return config;
}

absl::StatusOr<Json> QuantizationConfigJson(const ConfigContents& contents) {
  Groups all = CollectGroups(contents.modules);
  const std::optional<QuantizationArgs> kv_cache_scheme = KvCacheScheme(contents);
  if (all.groups.empty() && !kv_cache_scheme) {
    return contents.transform_config.empty() ? Json() : TransformOnly(contents.transform_config);
  }
  const std::vector<std::string> ignore = ExpandedIgnore(contents.modules, all);
  LLMC_ASSIGN_OR_RETURN(const bool as_meant, ResolvesAsMeant(contents.modules, all, ignore));
  if (!as_meant) {
    for (Group& group : all.groups) group.targets = group.members;
  }
  Json groups = Json::object();
  for (size_t g = 0; g < all.groups.size(); ++g) {
    groups[absl::StrCat("group_", g)] = GroupJson(all.groups[g]);
  }
  return Json{{"config_groups", groups},
              {"format", TopLevelFormat(all.groups)},
              {"global_compression_ratio", nullptr},
              {"ignore", ignore},
              {"kv_cache_scheme", ArgsOrNull(kv_cache_scheme)},
              {"quant_method", "compressed-tensors"},
              {"quantization_status", "compressed"},
              {"sparsity_config", Json::object()},
              {"transform_config", contents.transform_config},
              {"version", std::string(kCompressedTensorsVersion)}};
}

}  // namespace llmc
