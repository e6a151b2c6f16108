#include <algorithm>
#include <array>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "formats/target.h"
#include "recipe/resolve.h"

namespace llmc {
namespace {

const std::vector<std::vector<std::string>>& FusedFamilies() {
  static const auto* families = new std::vector<std::vector<std::string>>{
      {"q_proj", "k_proj", "v_proj"},
      {"gate_proj", "up_proj"},
      {"q_a_proj", "kv_a_proj_with_mqa"},
      {"w1", "w3"},
  };
  return *families;
}

bool IsEmbeddingName(const std::string& last) {
  // GPT-NeoX calls its output head embed_out.
  if (last == "embed_out") return false;
  return absl::StrContains(last, "embed") || last == "wte" || last == "wpe" ||
         last == "relative_attention_bias";
}

bool IsRouterName(const std::vector<std::string>& parts) {
  const std::string& last = parts.back();
  if (last == "gate" || last == "shared_expert_gate") return true;
  if (parts.size() > 1 && parts[parts.size() - 2] == "gate") return true;
  return std::any_of(parts.begin(), parts.end(), [](const std::string& part) {
    return absl::StrContains(part, "router") || absl::StrContains(part, "gating");
  });
}

}  // namespace

std::vector<std::vector<int>> FusedSets(const std::vector<ModuleRef>& modules) {
  // (parent, family) -> member index per name of the family.
  std::map<std::pair<std::string, size_t>, std::vector<int>> found;
  std::vector<std::pair<std::string, size_t>> order;
  for (size_t i = 0; i < modules.size(); ++i) {
    const std::string& name = modules[i].name;
    const size_t dot = name.rfind('.');
    const std::string parent = dot == std::string::npos ? "" : name.substr(0, dot);
    const std::string last = dot == std::string::npos ? name : name.substr(dot + 1);
    for (size_t f = 0; f < FusedFamilies().size(); ++f) {
      const std::vector<std::string>& family = FusedFamilies()[f];
      const auto at = std::find(family.begin(), family.end(), last);
      if (at == family.end()) continue;
      std::vector<int>& members = found[{parent, f}];
      if (members.empty()) {
        members.assign(family.size(), -1);
        order.emplace_back(parent, f);
      }
      members[at - family.begin()] = static_cast<int>(i);
    }
  }
  std::vector<std::vector<int>> sets;
  for (const auto& key : order) {
    const std::vector<int>& members = found[key];
    if (std::find(members.begin(), members.end(), -1) == members.end()) sets.push_back(members);
  }
  return sets;
}

std::string GuessClassName(absl::string_view name, const Shape& weight_shape) {
  if (weight_shape.size() != 2) return "";
  const std::vector<std::string> parts = absl::StrSplit(absl::AsciiStrToLower(name), '.');
  const std::string& last = parts.back();
  if (absl::EndsWith(last, "norm") || absl::StartsWith(last, "ln_")) return "Norm";
  if (IsEmbeddingName(last)) return "Embedding";
  return IsRouterName(parts) ? "Router" : "Linear";
}

bool IsRouterClass(absl::string_view class_name) {
  return class_name != "Linear" && ServingClassName(class_name) == "Linear";
}

}  // namespace llmc
