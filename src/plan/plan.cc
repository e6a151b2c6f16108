#include "plan/plan.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "checkpoint/model_directory.h"
#include "formats/quantization_config.h"
#include "formats/stored_tensors.h"
#include "plan/attention.h"
#include "plan/pruning_plan.h"
#include "plan/smoothing_plan.h"
#include "recipe/resolve.h"

namespace llmc {
namespace {

// Layers of data-free jobs are grouped up to this, so that making a unit durable
// costs little beside writing it.
constexpr int64_t kDataFreeUnitBytes = int64_t{1} << 30;

std::vector<TensorSpec> Specs(const Checkpoint& source) {
  std::vector<TensorSpec> specs;
  for (const CheckpointTensor& tensor : source.tensors()) specs.push_back(tensor.spec);
  return specs;
}

bool IsQuantizable(const ModuleSpec& module) {
  return module.class_name == "Linear" || module.class_name == "Embedding";
}

std::string ReasonText(const ModuleDecision& decision) {
  if (decision.scheme) {
    return decision.decided_by.empty() ? decision.group_name
                                       : absl::StrCat("target ", decision.decided_by);
  }
  if (decision.decided_by.empty()) return std::string(NoSchemeName(decision.reason));
  return absl::StrCat(NoSchemeName(decision.reason), " (", decision.decided_by, ")");
}

// auto: bfloat16 products where the model is bfloat16 and the device multiplies
// bfloat16 in hardware, float32 elsewhere (docs/decisions/0001-compute-dtype.md).
ComputeDType ResolveComputeDType(const Job& job, const std::vector<PlannedModule>& modules) {
  if (job.compute_dtype != ComputeDType::kAuto) return job.compute_dtype;
  for (const PlannedModule& module : modules) {
    if (module.source.dtype != DType::kBF16) return ComputeDType::kFloat32;
  }
  if (job.device == "cuda") return ComputeDType::kBFloat16;
  return __builtin_cpu_supports("avx512bf16") != 0 ? ComputeDType::kBFloat16
                                                   : ComputeDType::kFloat32;
}

// What one modifier that is no quantiser will do.
absl::StatusOr<std::vector<PlannedTransform>> PlanTransform(
    const Plan& plan, int modifier, const std::vector<ModuleSpec>& modules) {
  const Modifier& fields = plan.recipe.modifiers()[modifier];
  if (std::holds_alternative<SmoothQuantModifier>(fields) ||
      std::holds_alternative<AwqModifier>(fields)) {
    return PlanSmoothing(plan, modifier);
  }
  if (PruningFieldsOf(fields) != nullptr) return PlanPruning(plan, modifier, modules);
  return absl::InternalError(absl::StrCat(ModifierClassName(fields), ": not planned"));
}

// Builds a Plan step by step; each member function fills one part of it.
class Planner {
 public:
  explicit Planner(const Job& job) : job_(job) {}

  absl::StatusOr<Plan> Make() {
    LLMC_RETURN_IF_ERROR(OpenSource());
    LLMC_RETURN_IF_ERROR(LoadRecipe());
    LLMC_RETURN_IF_ERROR(ListModules());
    LLMC_RETURN_IF_ERROR(ResolveModules());
    LLMC_RETURN_IF_ERROR(PlanTransforms());
    plan_.compute_dtype = ResolveComputeDType(job_, plan_.modules);
    LLMC_RETURN_IF_ERROR(RefuseWhatIsMissing());
    LLMC_RETURN_IF_ERROR(ChooseSparseFormat());
    LLMC_RETURN_IF_ERROR(PlaceTensors());
    LLMC_RETURN_IF_ERROR(WriteConfig());
    plan_.on_device = job_.device == "cuda" && plan_.calibrated;
    return std::move(plan_);
  }

 private:
  absl::Status OpenSource() {
    LLMC_ASSIGN_OR_RETURN(const std::filesystem::path dir, ResolveModelDirectory(job_.model));
    LLMC_ASSIGN_OR_RETURN(plan_.source, Checkpoint::Open(dir, {.drop_page_cache = false}));
    if (FindQuantizationConfig(plan_.source->config()) != nullptr) {
      return absl::UnimplementedError(absl::StrCat(dir.string(),
                                                   "/config.json: the model is already quantised "
                                                   "(quantization_config), expected a dense one"));
    }
    return absl::OkStatus();
  }

  absl::Status LoadRecipe() {
    LLMC_ASSIGN_OR_RETURN(plan_.recipe, job_.recipe_text
                                            ? Recipe::Parse(*job_.recipe_text, job_.recipe)
                                            : Recipe::Load(job_.recipe));
    for (const Modifier& modifier : plan_.recipe.modifiers()) {
      const std::string reason = CalibrationReason(modifier);
      if (reason.empty()) continue;
      plan_.calibrated = true;
      if (plan_.calibration_reason.empty()) plan_.calibration_reason = reason;
    }
    plan_.warnings = plan_.recipe.warnings();
    return absl::OkStatus();
  }

  absl::Status ChooseSparseFormat() {
    const std::string recipes = plan_.recipe.sparse_format_place();
    plan_.sparse_format =
        job_.sparse_format.value_or(plan_.recipe.sparse_format().value_or(SparseFormat::kDense));
    plan_.recipe.OverrideSparseFormat(plan_.sparse_format);
    return At(job_.sparse_format ? "--sparse-format" : recipes, CheckSparseFormat(plan_));
  }

  // A known family gives its modules; of any other, 2-D tensors are taken.
  absl::Status ListModules() {
    absl::StatusOr<ModelSpec> spec = ParseModelSpec(plan_.source->config());
    const std::vector<TensorSpec> specs = Specs(*plan_.source);
    if (spec.ok()) {
      LLMC_RETURN_IF_ERROR(At(plan_.source->dir().string(), CheckTensors(*spec, specs)));
      modules_ = Modules(*spec);
      plan_.model = *std::move(spec);
      return absl::OkStatus();
    }
    const bool unknown = spec.status().code() == absl::StatusCode::kUnimplemented;
    if (!unknown || plan_.calibrated) {
      return At(absl::StrCat(plan_.source->dir().string(), "/config.json"), spec.status());
    }
    plan_.warnings.push_back(
        absl::StrCat(spec.status().message(), "; modules are taken from tensor names"));
    modules_ = ModulesFromTensors(specs);
    return absl::OkStatus();
  }

  absl::Status ResolveModules() {
    std::vector<ModuleRef> refs;
    for (const ModuleSpec& module : modules_) {
      refs.push_back({module.name, module.class_name, module.weight_shape});
    }
    ResolveOptions options;
    options.model_free = !plan_.model.has_value();
    options.allow_unmatched_ignore = options.model_free;
    LLMC_ASSIGN_OR_RETURN(const Resolution resolution, ResolveTargets(plan_.recipe, refs, options));
    plan_.kv_cache_scheme = resolution.kv_cache_scheme;
    for (const std::string& warning : resolution.warnings) plan_.warnings.push_back(warning);
    for (size_t i = 0; i < modules_.size(); ++i) {
      LLMC_RETURN_IF_ERROR(AddModule(modules_[i], resolution.modules[i]));
    }
    if (!plan_.model) return absl::OkStatus();
    const std::string first = absl::StrCat(plan_.model->LayerName(0), ".self_attn.q_proj");
    LLMC_ASSIGN_OR_RETURN(plan_.attentions, PlanAttentions(*plan_.model, modules_, resolution,
                                                           plan_.Find(first)->source.dtype));
    return absl::OkStatus();
  }

  absl::Status PlanTransforms() {
    const std::vector<Modifier>& modifiers = plan_.recipe.modifiers();
    for (size_t m = 0; m < modifiers.size(); ++m) {
      if (QuantizationFieldsOf(modifiers[m]) != nullptr) continue;
      LLMC_ASSIGN_OR_RETURN(std::vector<PlannedTransform> transforms,
                            PlanTransform(plan_, static_cast<int>(m), modules_));
      for (PlannedTransform& transform : transforms) {
        LLMC_RETURN_IF_ERROR(CheckBeforeQuantizer(transform));
        KeepZeros(transform);
        plan_.transforms.push_back(std::move(transform));
      }
    }
    return absl::OkStatus();
  }

  void KeepZeros(const PlannedTransform& transform) {
    for (PlannedModule& module : plan_.modules) {
      if (module.module.name != transform.module) continue;
      module.keeps_zeros |= module.modifier > transform.modifier;
    }
  }

  // What is quantised can no longer be changed.
  absl::Status CheckBeforeQuantizer(const PlannedTransform& transform) const {
    const std::vector<Modifier>& modifiers = plan_.recipe.modifiers();
    for (const PlannedModule& module : plan_.modules) {
      const bool earlier = module.is_quantized() && module.modifier < transform.modifier;
      if (!earlier || std::find(transform.tensors.begin(), transform.tensors.end(),
                                module.source.name) == transform.tensors.end()) {
        continue;
      }
      return absl::InvalidArgumentError(absl::StrCat(
          plan_.recipe.origin(), ": ", ModifierClassName(modifiers[transform.modifier]),
          " changes ", module.source.name, ", which the ",
          ModifierClassName(modifiers[module.modifier]),
          " before it has quantised; expected the quantising modifier last"));
    }
    return absl::OkStatus();
  }

  // The tensor that holds a module's dense weight: the embedding's for a tied head.
  const CheckpointTensor* WeightTensor(const ModuleSpec& module) const {
    const bool is_tied_head =
        plan_.model && plan_.model->tie_word_embeddings && module.name == plan_.model->head_name;
    const std::string& owner = is_tied_head ? plan_.model->embedding_name : module.name;
    return plan_.source->Find(absl::StrCat(owner, ".weight"));
  }

  absl::Status AddModule(const ModuleSpec& module, const ModuleDecision& decision) {
    if (!IsQuantizable(module)) return absl::OkStatus();
    const CheckpointTensor* weight = WeightTensor(module);
    if (weight == nullptr) return absl::OkStatus();
    PlannedModule planned;
    planned.module = module;
    planned.source = weight->spec;
    planned.why = ReasonText(decision);
    if (decision.scheme) LLMC_RETURN_IF_ERROR(GiveScheme(decision, planned));
    plan_.modules.push_back(std::move(planned));
    return absl::OkStatus();
  }

  static Method MethodOf(const Modifier& modifier, const PlannedModule& planned) {
    const Scheme& scheme = *planned.scheme;
    if (scheme.weights) {
      const bool is_gptq = std::holds_alternative<GptqModifier>(modifier);
      return is_gptq && planned.module.is_linear() ? Method::kGptq : Method::kRoundToNearest;
    }
    const auto is_static = [](const std::optional<QuantizationArgs>& args) {
      return args && args->dynamic != Dynamic::kTrue;
    };
    const bool has_scales =
        is_static(scheme.input_activations) || is_static(scheme.output_activations);
    return has_scales ? Method::kActivations : Method::kCopy;
  }

  absl::Status GiveScheme(const ModuleDecision& decision, PlannedModule& planned) {
    const Modifier& modifier = plan_.recipe.modifiers()[decision.modifier];
    planned.modifier = decision.modifier;
    planned.scheme = decision.scheme;
    planned.targets = decision.group_targets;
    planned.method = MethodOf(modifier, planned);
    if (planned.method == Method::kRoundToNearest && !planned.module.is_linear() &&
        std::holds_alternative<GptqModifier>(modifier)) {
      planned.why += "; no Linear, so rounded to nearest";
    }
    if (!IsDenseFloat(planned.source.dtype)) {
      return absl::InvalidArgumentError(absl::StrCat(
          planned.source.name, ": dtype ", std::string(SafetensorsName(planned.source.dtype)),
          ", expected a dense BF16, F16 or F32 weight"));
    }
    LLMC_ASSIGN_OR_RETURN(
        const std::vector<StoredTensorSpec> stored,
        StoredTensors(*planned.scheme, planned.source.shape, planned.source.dtype));
    for (const StoredTensorSpec& tensor : stored) {
      planned.stored.push_back(
          {absl::StrCat(planned.module.name, ".", tensor.suffix), tensor.dtype, tensor.shape});
    }
    return absl::OkStatus();
  }

  // Schemes that parse, but that this version cannot carry out.
  absl::Status RefuseWhatIsMissing() const {
    for (const PlannedModule& module : plan_.modules) {
      if (!module.scheme) continue;
      if (module.scheme->output_activations && module.module.layer < 0) {
        return absl::UnimplementedError(
            absl::StrCat(module.module.name,
                         ": output_activations outside the layers are known, but not in "
                         "this version"));
      }
    }
    return absl::OkStatus();
  }

  // Output tensors in the order of the source; a quantised weight's place is
  // taken by what is stored instead.
  absl::Status PlaceTensors() {
    std::map<std::string, int> module_of_weight;
    for (size_t i = 0; i < plan_.modules.size(); ++i) {
      const PlannedModule& module = plan_.modules[i];
      const bool own = module.source.name == module.module.weight_name();
      if (module.is_quantized() && own) {
        module_of_weight[module.source.name] = static_cast<int>(i);
      }
    }
    std::vector<TensorSpec> tensors;
    for (const CheckpointTensor& tensor : plan_.source->tensors()) {
      auto it = module_of_weight.find(tensor.spec.name);
      if (it == module_of_weight.end()) {
        AddCopy(tensor.spec, tensors);
      } else {
        AddStored(it->second, tensors);
      }
    }
    for (size_t i = 0; i < plan_.modules.size(); ++i) {
      const PlannedModule& module = plan_.modules[i];
      if (module.is_quantized() && module.source.name != module.module.weight_name()) {
        plan_.unties_embeddings = true;
        AddStored(static_cast<int>(i), tensors);
      }
    }
    for (size_t i = 0; i < plan_.attentions.size(); ++i) AddScales(static_cast<int>(i), tensors);
    LLMC_ASSIGN_OR_RETURN(plan_.layout, OutputLayout::Make(tensors, job_.max_shard_bytes));
    FinishUnits();
    return absl::OkStatus();
  }

  void AddCopy(const TensorSpec& spec, std::vector<TensorSpec>& tensors) {
    tensors.push_back(spec);
    WorkUnit& unit = UnitOfLayer(LayerOf(spec.name));
    (IsRewritten(spec.name) ? unit.rewritten : unit.copies).push_back(spec.name);
    unit.tensors.push_back(spec.name);
    unit_bytes_[unit.first_layer] += spec.num_bytes();
  }

  void AddStored(int index, std::vector<TensorSpec>& tensors) {
    const PlannedModule& module = plan_.modules[index];
    WorkUnit& unit = UnitOfLayer(module.module.layer);
    unit.modules.push_back(index);
    for (const TensorSpec& spec : module.stored) {
      tensors.push_back(spec);
      unit.tensors.push_back(spec.name);
    }
    unit_bytes_[unit.first_layer] += module.source.num_bytes();
  }

  void AddScales(int index, std::vector<TensorSpec>& tensors) {
    const PlannedAttention& attention = plan_.attentions[index];
    WorkUnit& unit = UnitOfLayer(attention.layer);
    unit.attentions.push_back(index);
    for (const TensorSpec& spec : attention.stored) {
      tensors.push_back(spec);
      unit.tensors.push_back(spec.name);
    }
  }

  bool IsRewritten(const std::string& tensor) const {
    return std::any_of(
        plan_.transforms.begin(), plan_.transforms.end(), [&](const PlannedTransform& transform) {
          return std::find(transform.tensors.begin(), transform.tensors.end(), tensor) !=
                 transform.tensors.end();
        });
  }

  // The decoder layer a tensor belongs to, by its name; -1 outside.
  int64_t LayerOf(const std::string& tensor) const {
    if (!plan_.model) return -1;
    const std::string prefix = plan_.model->layers_name + ".";
    if (!absl::StartsWith(tensor, prefix)) return -1;
    int64_t layer = 0;
    const absl::string_view rest = absl::string_view(tensor).substr(prefix.size());
    if (!absl::SimpleAtoi(rest.substr(0, rest.find('.')), &layer)) return -1;
    return layer < plan_.model->num_hidden_layers ? layer : -1;
  }

  WorkUnit& UnitOfLayer(int64_t layer) {
    WorkUnit& unit = by_layer_[layer];
    unit.first_layer = layer;
    unit.num_layers = layer < 0 ? 0 : 1;
    return unit;
  }

  void FinishUnits() {
    for (size_t i = 0; i < plan_.transforms.size(); ++i) {
      UnitOfLayer(plan_.transforms[i].layer).transforms.push_back(static_cast<int>(i));
    }
    std::vector<WorkUnit> units;
    for (auto& [layer, unit] : by_layer_) {
      const bool joins = !plan_.calibrated && !units.empty() && layer > 0 &&
                         units.back().first_layer >= 0 && open_bytes_ < kDataFreeUnitBytes;
      if (!joins) {
        open_bytes_ = 0;
        units.push_back(std::move(unit));
      } else {
        Join(unit, units.back());
      }
      open_bytes_ += unit_bytes_[layer];
    }
    // The tensors outside the layers come last: a head is solved after them.
    if (!units.empty() && units.front().first_layer < 0) {
      std::rotate(units.begin(), units.begin() + 1, units.end());
    }
    for (WorkUnit& unit : units) unit.name = UnitName(unit);
    plan_.units = std::move(units);
  }

  static void Join(const WorkUnit& from, WorkUnit& into) {
    into.num_layers += from.num_layers;
    into.modules.insert(into.modules.end(), from.modules.begin(), from.modules.end());
    into.attentions.insert(into.attentions.end(), from.attentions.begin(), from.attentions.end());
    into.copies.insert(into.copies.end(), from.copies.begin(), from.copies.end());
    into.rewritten.insert(into.rewritten.end(), from.rewritten.begin(), from.rewritten.end());
    into.transforms.insert(into.transforms.end(), from.transforms.begin(), from.transforms.end());
    into.tensors.insert(into.tensors.end(), from.tensors.begin(), from.tensors.end());
  }

  static std::string UnitName(const WorkUnit& unit) {
    if (unit.first_layer < 0) return "outside";
    if (unit.num_layers == 1) return absl::StrFormat("layer-%05d", unit.first_layer);
    return absl::StrFormat("layers-%05d-%05d", unit.first_layer,
                           unit.first_layer + unit.num_layers - 1);
  }

  // Modules and attention modules, in the order of the model.
  std::vector<ConfigModule> ConfigModules() const {
    std::map<std::string, ConfigModule> by_name;
    for (const PlannedModule& m : plan_.modules) {
      by_name[m.module.name] = {m.module.name, m.module.class_name, m.scheme, m.targets};
    }
    for (const PlannedAttention& a : plan_.attentions) {
      if (a.scheme) by_name[a.name] = {a.name, a.class_name, a.scheme, a.targets};
    }
    std::vector<ConfigModule> ordered;
    for (const ModuleSpec& module : modules_) {
      const auto it = by_name.find(module.name);
      if (it != by_name.end()) ordered.push_back(it->second);
    }
    return ordered;
  }

  absl::Status WriteConfig() {
    ConfigContents contents;
    contents.modules = ConfigModules();
    contents.kv_cache_scheme = plan_.kv_cache_scheme;
    nlohmann::json config = plan_.source->config();
    LLMC_ASSIGN_OR_RETURN(nlohmann::json quantization, QuantizationConfigJson(contents));
    if (!quantization.is_null()) config["quantization_config"] = std::move(quantization);
    if (plan_.unties_embeddings) config["tie_word_embeddings"] = false;
    plan_.config_json = config.dump(2);
    return absl::OkStatus();
  }

  const Job& job_;
  Plan plan_;
  std::vector<ModuleSpec> modules_;
  std::map<int64_t, WorkUnit> by_layer_;
  std::map<int64_t, int64_t> unit_bytes_;
  int64_t open_bytes_ = 0;
};

}  // namespace

absl::string_view MethodName(Method method) {
  switch (method) {
    case Method::kCopy:
      return "copy";
    case Method::kActivations:
      return "scales";
    case Method::kRoundToNearest:
      return "RTN";
    case Method::kGptq:
      return "GPTQ";
  }
  return "";
}

std::string PruningMethodName(const Modifier& modifier) {
  if (std::holds_alternative<SparseGptModifier>(modifier)) return "SparseGPT";
  if (std::holds_alternative<WandaPruningModifier>(modifier)) return "Wanda";
  return std::holds_alternative<MagnitudePruningModifier>(modifier) ? "magnitude" : "";
}

const PlannedModule* Plan::Find(absl::string_view module) const {
  for (const PlannedModule& planned : modules) {
    if (planned.module.name == module) return &planned;
  }
  return nullptr;
}

absl::StatusOr<Plan> MakePlan(const Job& job) { return Planner(job).Make(); }

}  // namespace llmc
