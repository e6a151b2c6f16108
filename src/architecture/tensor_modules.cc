// Modules of architectures that llmc does not know, from tensor names alone.
#include <algorithm>
#include <array>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "architecture/module_spec.h"

namespace llmc {
namespace {

// Linears of one parent that read the same input, by their last name.
constexpr std::array<std::array<absl::string_view, 3>, 5> kSharedInputs = {{
    {"q_proj", "k_proj", "v_proj"},
    {"gate_proj", "up_proj", ""},
    {"w1", "w3", ""},
    {"q_a_proj", "kv_a_proj_with_mqa", ""},
    {"query", "key", "value"},
}};

constexpr absl::string_view kEmbeddingNames[] = {
    "embed_tokens",       "wte",      "wpe", "word_embeddings", "tok_embeddings", "embed_in",
    "position_embedding", "embedding"};

bool IsNumber(absl::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), absl::ascii_isdigit);
}

absl::string_view LastPart(absl::string_view name) {
  const size_t dot = name.rfind('.');
  return dot == absl::string_view::npos ? name : name.substr(dot + 1);
}

int64_t LayerOf(absl::string_view name) {
  for (absl::string_view part : absl::StrSplit(name, '.')) {
    int64_t number = 0;
    if (IsNumber(part) && absl::SimpleAtoi(part, &number)) return number;
  }
  return -1;
}

bool IsEmbedding(absl::string_view name) {
  const absl::string_view last = LastPart(name);
  for (absl::string_view known : kEmbeddingNames) {
    if (last == known) return true;
  }
  return false;
}

// A shorter digit string is a smaller number once leading zeros are gone.
bool PartLess(absl::string_view a, absl::string_view b) {
  if (!IsNumber(a) || !IsNumber(b)) return a < b;
  while (a.size() > 1 && a[0] == '0') a.remove_prefix(1);
  while (b.size() > 1 && b[0] == '0') b.remove_prefix(1);
  return a.size() != b.size() ? a.size() < b.size() : a < b;
}

bool NameLess(const std::string& a, const std::string& b) {
  const std::vector<absl::string_view> left = absl::StrSplit(a, '.');
  const std::vector<absl::string_view> right = absl::StrSplit(b, '.');
  return std::lexicographical_compare(left.begin(), left.end(), right.begin(), right.end(),
                                      PartLess);
}

// The row of kSharedInputs and the parent, or the module's own name.
std::string GroupKey(const std::string& name) {
  const absl::string_view last = LastPart(name);
  for (size_t row = 0; row < kSharedInputs.size(); ++row) {
    for (absl::string_view member : kSharedInputs[row]) {
      if (!member.empty() && member == last) {
        return absl::StrCat(absl::string_view(name).substr(0, name.size() - last.size()), "#", row);
      }
    }
  }
  return name;
}

// Members of a group must have equally many input channels.
void AssignInputGroups(std::vector<ModuleSpec>& modules) {
  std::map<std::pair<std::string, int64_t>, std::string> first;
  for (ModuleSpec& module : modules) {
    if (!module.is_linear()) continue;
    const std::pair<std::string, int64_t> key(GroupKey(module.name), module.weight_shape[1]);
    module.input_group = first.emplace(key, module.name).first->second;
  }
}

}  // namespace

std::vector<ModuleSpec> ModulesFromTensors(std::span<const TensorSpec> tensors) {
  std::map<std::string, bool> biases;
  std::vector<ModuleSpec> modules;
  for (const TensorSpec& tensor : tensors) {
    absl::string_view name = tensor.name;
    if (absl::ConsumeSuffix(&name, ".bias")) biases[std::string(name)] = true;
    name = tensor.name;
    if (tensor.shape.size() != 2 || !absl::ConsumeSuffix(&name, ".weight")) continue;
    ModuleSpec module;
    module.name = std::string(name);
    module.class_name = IsEmbedding(name) ? "Embedding" : "Linear";
    module.weight_shape = tensor.shape;
    module.role = Role::kUnknown;
    module.layer = LayerOf(name);
    modules.push_back(std::move(module));
  }
  for (ModuleSpec& module : modules) module.has_bias = biases.count(module.name) > 0;
  std::sort(modules.begin(), modules.end(),
            [](const ModuleSpec& a, const ModuleSpec& b) { return NameLess(a.name, b.name); });
  AssignInputGroups(modules);
  return modules;
}

}  // namespace llmc
