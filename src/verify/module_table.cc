#include "verify/module_table.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "architecture/model_spec.h"
#include "architecture/module_spec.h"
#include "kernels/sparse_packing.h"

namespace llmc {
namespace {

constexpr std::array<absl::string_view, 17> kSuffixes = {"weight_packed",
                                                         "weight_scale",
                                                         "weight_zero_point",
                                                         "weight_shape",
                                                         "weight_global_scale",
                                                         "weight_g_idx",
                                                         "input_scale",
                                                         "input_zero_point",
                                                         "input_global_scale",
                                                         "output_scale",
                                                         "output_zero_point",
                                                         "k_scale",
                                                         "v_scale",
                                                         "q_scale",
                                                         "k_zero_point",
                                                         "v_zero_point",
                                                         "q_zero_point"};

// What stands for a weight that is stored without zeros.
constexpr std::array<const char*, 4> kSparseParts = {"compressed", "bitmask", "row_offsets",
                                                     "shape"};

// Ends of the names of stored rotation matrices.
constexpr std::array<absl::string_view, 4> kTransformEnds = {"_input.weight", "_output.weight",
                                                             "_q_attn.weight", "_k_cache.weight"};

absl::string_view ModuleOf(absl::string_view tensor_name) {
  const size_t dot = tensor_name.rfind('.');
  return dot == absl::string_view::npos ? "" : tensor_name.substr(0, dot);
}

std::vector<TensorSpec> SpecsOf(const Checkpoint& checkpoint) {
  std::vector<TensorSpec> specs;
  for (const CheckpointTensor& tensor : checkpoint.tensors()) specs.push_back(tensor.spec);
  return specs;
}

bool IsTransform(const Subject& subject, absl::string_view name) {
  if (!subject.config || subject.config->transform_config().empty()) return false;
  return std::any_of(kTransformEnds.begin(), kTransformEnds.end(),
                     [&](absl::string_view end) { return absl::EndsWith(name, end); });
}

// One module, dense or not, before its group is known.
struct Candidate {
  std::string class_name;
  Shape shape;  // May be empty: unknown.
  DType dtype = DType::kBF16;
  DenseSource source;
};

class TableMaker {
 public:
  TableMaker(const Subject& subject, Findings& findings) : subject_(subject), findings_(findings) {}

  ModuleTable Make() {
    if (subject_.dense != nullptr)
      AddSourceModules();
    else
      AddStoredModules();
    AddFamilyModules();
    for (const auto& [name, candidate] : candidates_) Place(name, candidate);
    for (const auto& [name, candidate] : candidates_) PlaceSparse(name);
    if (subject_.dense != nullptr) AddUntouched();
    AllowOthers();
    return std::move(table_);
  }

 private:
  bool IsTied() const {
    const nlohmann::json& config = subject_.output->config();
    const auto flag = config.find("tie_word_embeddings");
    return flag != config.end() && flag->is_boolean() && flag->get<bool>();
  }

  // Matrices and fused experts of the source.
  void AddSourceModules() {
    const std::vector<TensorSpec> specs = SpecsOf(*subject_.dense);
    for (const ModuleSpec& module : ModulesFromTensors(specs)) {
      const CheckpointTensor* tensor = subject_.dense->Find(module.weight_name());
      candidates_[module.name] = {module.class_name,
                                  module.weight_shape,
                                  tensor->spec.dtype,
                                  {module.weight_name(), -1, 0}};
    }
    for (const TensorSpec& spec : specs)
      if (spec.shape.size() == 3) AddExperts(spec);
    AddUntiedHead();
  }

  // "...experts.gate_up_proj" [E, 2 I, H] holds gate, then up, of every expert;
  // "...experts.down_proj" [E, H, I] one matrix of each. Only where the output
  // stores them one by one.
  void AddExperts(const TensorSpec& spec) {
    const absl::string_view stem = absl::StripSuffix(spec.name, ".weight");
    const absl::string_view parent = ModuleOf(stem);
    if (!absl::EndsWith(parent, "experts")) return;
    const bool is_pair = absl::EndsWith(stem, ".gate_up_proj");
    if (!is_pair && !absl::EndsWith(stem, ".down_proj")) return;
    const std::vector<std::string> parts = is_pair
                                               ? std::vector<std::string>{"gate_proj", "up_proj"}
                                               : std::vector<std::string>{"down_proj"};
    const int64_t rows = spec.shape[1] / static_cast<int64_t>(parts.size());
    for (int64_t expert = 0; expert < spec.shape[0]; ++expert) {
      for (size_t part = 0; part < parts.size(); ++part) {
        const std::string name = absl::StrCat(parent, ".", expert, ".", parts[part]);
        if (!IsStored(name)) return;
        split_.insert(spec.name);
        candidates_[name] = {"Linear",
                             {rows, spec.shape[2]},
                             spec.dtype,
                             {spec.name, expert, static_cast<int64_t>(part) * rows}};
      }
    }
  }

  // A tied model whose head was quantised or copied has a head of its own.
  void AddUntiedHead() {
    if (candidates_.count("lm_head") > 0 || !IsStored("lm_head")) return;
    for (const auto& [name, candidate] : candidates_) {
      if (candidate.class_name != "Embedding") continue;
      Candidate head = candidate;
      head.class_name = "Linear";
      candidates_["lm_head"] = head;
      table_.allowed.insert("lm_head.bias");
      return;
    }
  }

  bool IsStored(const std::string& module) const {
    for (const char* suffix : {".weight", ".weight_packed", ".weight_scale", ".compressed"})
      if (subject_.output->Contains(absl::StrCat(module, suffix))) return true;
    return false;
  }

  // Without a source: every module that owns a matrix or a scale.
  void AddStoredModules() {
    std::set<std::string> names;
    for (const CheckpointTensor& tensor : subject_.output->tensors()) {
      const std::string& name = tensor.spec.name;
      if (IsTransform(subject_, name)) continue;
      const absl::string_view suffix = QuantizationSuffix(name);
      const bool is_matrix = absl::EndsWith(name, ".weight") && tensor.spec.shape.size() == 2;
      if (is_matrix || suffix == "weight_packed" || suffix == "weight_scale" ||
          absl::EndsWith(name, ".compressed"))
        names.insert(std::string(ModuleOf(name)));
    }
    std::vector<TensorSpec> stand_ins;
    for (const std::string& name : names)
      stand_ins.push_back({absl::StrCat(name, ".weight"), DType::kBF16, {1, 1}});
    for (const ModuleSpec& module : ModulesFromTensors(stand_ins)) {
      candidates_[module.name] = {module.class_name, {}, StoredDType(module.name), {}};
    }
  }

  // The dtype of the dense weight is that of the scales, where those have one.
  DType StoredDType(const std::string& module) const {
    for (const char* suffix : {".weight_scale", ".weight", ".compressed"}) {
      const CheckpointTensor* tensor = subject_.output->Find(absl::StrCat(module, suffix));
      if (tensor != nullptr && IsDenseFloat(tensor->spec.dtype)) return tensor->spec.dtype;
    }
    return ConfigDType();
  }

  DType ConfigDType() const {
    const nlohmann::json& config = subject_.output->config();
    for (const char* key : {"dtype", "torch_dtype"}) {
      const auto value = config.find(key);
      if (value == config.end() || !value->is_string()) continue;
      const auto dtype = DTypeFromTorch(value->get_ref<const std::string&>());
      if (dtype.ok()) return *dtype;
    }
    return DType::kBF16;
  }

  // What a known family has, whether stored or not: classes, shapes, and modules
  // of which nothing is left.
  void AddFamilyModules() {
    const absl::StatusOr<ModelSpec> model = ParseModelSpec(subject_.output->config());
    // Multimodal wrappers keep their decoder under another name.
    if (!model.ok() || !IsStored(model->embedding_name)) return;
    for (const ModuleSpec& module : Modules(*model)) {
      if (module.weight_shape.empty()) continue;
      if (module.name == model->head_name && model->tie_word_embeddings) continue;
      if (module.weight_shape.size() != 2) {
        table_.required[module.weight_name()] = {module.weight_name(), DType::kBF16,
                                                 module.weight_shape};
        any_dtype_.insert(module.weight_name());
        continue;
      }
      const auto [it, inserted] = candidates_.try_emplace(module.name);
      if (inserted) it->second.dtype = StoredDType(module.name);
      it->second.class_name = module.class_name;
      if (it->second.shape.empty()) it->second.shape = module.weight_shape;
    }
  }

  const ConfigGroup* GroupOf(const std::string& name, const std::string& class_name) {
    if (!subject_.config) return nullptr;
    const absl::StatusOr<const ConfigGroup*> group = subject_.config->GroupOf(name, class_name);
    if (group.ok()) return *group;
    findings_.Add(ProblemCode::kConfigWrong, name, std::string(group.status().message()));
    return nullptr;
  }

  void Place(const std::string& name, const Candidate& candidate) {
    const ConfigGroup* group = GroupOf(name, candidate.class_name);
    if (group == nullptr || (!group->scheme.weights && !group->scheme.input_activations)) {
      PlaceDense(name, candidate);
    } else {
      PlaceQuantized(name, candidate, *group);
    }
    if (absl::EndsWith(name, ".k_proj")) PlaceKvCache(name, candidate);
  }

  void PlaceDense(const std::string& name, const Candidate& candidate) {
    if (candidate.source.tensor.empty() && candidate.shape.empty()) return;
    const std::string weight = absl::StrCat(name, ".weight");
    if (name == "lm_head" && IsTied() && !subject_.output->Contains(weight)) return;
    table_.required[weight] = {weight, candidate.dtype, candidate.shape};
    if (candidate.source.tensor.empty()) any_dtype_.insert(weight);
  }

  void PlaceQuantized(const std::string& name, const Candidate& candidate,
                      const ConfigGroup& group) {
    const QuantizationArgs* args = group.scheme.weights ? &*group.scheme.weights : nullptr;
    Shape shape = candidate.shape;
    if (shape.empty()) shape = StoredWeightShape(*subject_.output, name, args);
    if (shape.empty()) {
      findings_.Add(ProblemCode::kMissingTensor, name,
                    "quantised by the config, but no weight is stored");
      return;
    }
    absl::StatusOr<std::vector<StoredTensorSpec>> stored =
        StoredTensors(group.scheme, shape, candidate.dtype);
    if (!stored.ok()) {
      findings_.Add(ProblemCode::kConfigWrong, name, std::string(stored.status().message()));
      return;
    }
    for (const StoredTensorSpec& spec : *stored) {
      const std::string full = absl::StrCat(name, ".", spec.suffix);
      table_.required[full] = {full, spec.dtype, spec.shape};
    }
    if (group.has_g_idx) table_.allowed.insert(absl::StrCat(name, ".weight_g_idx"));
    if (args != nullptr && group.scheme.format != Format::kDense)
      table_.quantized.push_back(
          {name, std::move(shape), &group, *std::move(stored), candidate.source});
  }

  void PlaceKvCache(const std::string& key_proj, const Candidate& candidate) {
    if (!subject_.config || !subject_.config->kv_cache_scheme()) return;
    const absl::string_view attention = ModuleOf(key_proj);
    AttentionShape heads;
    const nlohmann::json& config = subject_.output->config();
    const nlohmann::json& text = config.contains("text_config") && config["text_config"].is_object()
                                     ? config["text_config"]
                                     : config;
    for (const char* key : {"num_attention_heads", "num_key_value_heads"})
      if (text.contains(key) && text[key].is_number_integer())
        heads.num_key_value_heads = text[key].get<int64_t>();
    const absl::StatusOr<std::vector<StoredTensorSpec>> stored =
        StoredKvCacheTensors(*subject_.config->kv_cache_scheme(), heads, candidate.dtype);
    if (!stored.ok()) {
      findings_.Add(ProblemCode::kConfigWrong, attention, std::string(stored.status().message()));
      return;
    }
    for (const StoredTensorSpec& spec : *stored) {
      const std::string full = absl::StrCat(attention, ".", spec.suffix);
      table_.required[full] = {full, spec.dtype, spec.shape};
    }
  }

  // In place of a weight: whatever parts are stored, in the shapes that they have; that
  // they fit is a matter of their values.
  void PlaceSparse(const std::string& name) {
    const bool is_sparse = subject_.config &&
                           subject_.config->sparse_format() != SparseFormat::kDense &&
                           subject_.output->Contains(absl::StrCat(name, ".compressed"));
    if (!is_sparse || table_.required.erase(absl::StrCat(name, ".weight")) == 0) return;
    table_.sparse.push_back(name);
    for (const char* part : kSparseParts) {
      const CheckpointTensor* stored = subject_.output->Find(absl::StrCat(name, ".", part));
      if (stored != nullptr) table_.required[stored->spec.name] = stored->spec;
    }
  }

  // Every other tensor of the source must be there as it was.
  void AddUntouched() {
    std::set<std::string> replaced;
    for (const std::string& name : table_.sparse) replaced.insert(absl::StrCat(name, ".weight"));
    for (const QuantizedModule& module : table_.quantized) {
      replaced.insert(absl::StrCat(module.name, ".weight"));
      if (module.source.expert >= 0) replaced.insert(module.source.tensor);
    }
    replaced.insert(split_.begin(), split_.end());
    for (const CheckpointTensor& tensor : subject_.dense->tensors()) {
      const std::string& name = tensor.spec.name;
      if (replaced.count(name) > 0) continue;
      if (name == "lm_head.weight" && IsTied() && !subject_.output->Contains(name)) continue;
      table_.required[name] = tensor.spec;
      any_dtype_.erase(name);
      table_.untouched.push_back(name);
    }
  }

  void AllowOthers() {
    const bool has_attention_group =
        subject_.config &&
        std::any_of(subject_.config->groups().begin(), subject_.config->groups().end(),
                    [](const ConfigGroup& group) { return !group.scheme.weights; });
    for (const CheckpointTensor& tensor : subject_.output->tensors()) {
      const std::string& name = tensor.spec.name;
      const absl::string_view suffix = QuantizationSuffix(name);
      const bool is_attention = suffix == "q_scale" || suffix == "k_scale" || suffix == "v_scale";
      if (IsTransform(subject_, name) || (has_attention_group && is_attention))
        table_.allowed.insert(name);
      // Without a source nothing is known of biases, norms, vision towers.
      if (subject_.dense == nullptr && suffix.empty() && table_.required.count(name) == 0)
        table_.allowed.insert(name);
      if (any_dtype_.count(name) > 0) table_.required[name].dtype = tensor.spec.dtype;
    }
  }

  const Subject& subject_;
  Findings& findings_;
  ModuleTable table_;
  std::map<std::string, Candidate> candidates_;
  std::set<std::string> split_;      // Fused tensors of the source, stored one by one.
  std::set<std::string> any_dtype_;  // Required tensors whose dtype nothing fixes.
};

}  // namespace

absl::string_view QuantizationSuffix(absl::string_view tensor_name) {
  const size_t dot = tensor_name.rfind('.');
  if (dot == absl::string_view::npos) return "";
  const absl::string_view last = tensor_name.substr(dot + 1);
  return std::find(kSuffixes.begin(), kSuffixes.end(), last) == kSuffixes.end() ? "" : last;
}

Shape StoredWeightShape(const Checkpoint& checkpoint, const std::string& module,
                        const QuantizationArgs* args) {
  const CheckpointTensor* weight = checkpoint.Find(absl::StrCat(module, ".weight"));
  if (weight != nullptr) return weight->spec.shape;
  const CheckpointTensor* sparse = checkpoint.Find(absl::StrCat(module, ".shape"));
  if (sparse != nullptr && sparse->spec.dtype == DType::kI64 &&
      NumElements(sparse->spec.shape) == 2) {
    const absl::StatusOr<HostTensor> values = checkpoint.Read(sparse->spec.name);
    if (values.ok()) return {values->as<int64_t>()[0], values->as<int64_t>()[1]};
  }
  const CheckpointTensor* packed = checkpoint.Find(absl::StrCat(module, ".weight_packed"));
  if (packed == nullptr || packed->spec.shape.size() != 2 || args == nullptr) return {};
  const Shape& stored = packed->spec.shape;
  if (packed->spec.dtype == DType::kU8) return {stored[0], stored[1] * 2};
  // A row that does not fill its last word: weight_shape says how long it is.
  const CheckpointTensor* shape = checkpoint.Find(absl::StrCat(module, ".weight_shape"));
  if (shape != nullptr && shape->spec.dtype == DType::kI64 && shape->spec.shape == Shape{2}) {
    const absl::StatusOr<HostTensor> values = checkpoint.Read(shape->spec.name);
    const int64_t columns = values.ok() ? values->as<int64_t>()[1] : 0;
    if (columns > 0 && columns <= stored[1] * 32 &&
        (columns * args->num_bits + 31) / 32 == stored[1])
      return {stored[0], columns};
  }
  return {stored[0], stored[1] * 32 / std::max(1, args->num_bits)};
}

absl::StatusOr<HostTensor> ReadSparseWeight(const Subject& subject, const std::string& module) {
  std::map<std::string, HostTensor> parts;
  std::map<std::string, TensorView, std::less<>> views;
  for (const char* part : kSparseParts) {
    const std::string name = absl::StrCat(module, ".", part);
    if (!subject.output->Contains(name)) continue;
    LLMC_ASSIGN_OR_RETURN(parts[part], subject.output->Read(name));
    views[part] = parts[part].view();
  }
  return kernels::UnpackSparse(
      [&views](absl::string_view suffix) -> const TensorView* {
        const auto it = views.find(std::string(suffix));
        return it == views.end() ? nullptr : &it->second;
      },
      subject.config->sparse_format());
}

ModuleTable MakeModuleTable(const Subject& subject, Findings& findings) {
  return TableMaker(subject, findings).Make();
}

}  // namespace llmc
