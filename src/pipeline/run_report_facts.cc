#include "pipeline/run_report_facts.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "formats/names.h"
#include "llmc/byte_size.h"
#include "llmc/parallel.h"
#include "recipe/recipe.h"

namespace llmc {
namespace {

int64_t StoredWeightBytes(const PlannedModule& module) {
  int64_t bytes = 0;
  for (const TensorSpec& spec : module.stored) bytes += spec.num_bytes();
  return bytes;
}

std::string SchemesOf(const Plan& plan) {
  std::set<std::string> schemes;
  for (const PlannedModule& module : plan.modules) {
    if (!module.is_quantized()) continue;
    schemes.insert(
        absl::StrCat(std::string(MethodName(module.method)), " ", SchemeSummary(*module.scheme)));
  }
  for (const PlannedTransform& transform : plan.transforms) {
    if (transform.module.empty() || transform.tensors.empty()) continue;
    const size_t extent = transform.subject.find(' ');
    schemes.insert(absl::StrCat(PruningMethodName(plan.recipe.modifiers()[transform.modifier]),
                                transform.subject.substr(extent)));
  }
  return absl::StrJoin(schemes, "; ");
}

std::string Architecture(const nlohmann::json& config) {
  auto it = config.find("architectures");
  if (it == config.end() || !it->is_array() || it->empty() || !it->front().is_string()) return "";
  return it->front().get<std::string>();
}

int64_t NumParameters(const Checkpoint& source) {
  int64_t count = 0;
  for (const CheckpointTensor& tensor : source.tensors()) count += NumElements(tensor.spec.shape);
  return count;
}

// One shell word.
std::string Quoted(const std::string& word) {
  if (word.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                             "-_./=:,@%+") == std::string::npos &&
      !word.empty()) {
    return word;
  }
  std::string quoted = "'";
  for (char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

// A linear that is pruned and stays dense.
void AddPruned(const Plan& plan, const PlannedTransform& transform, ReportBuilder& builder) {
  const PlannedModule* module = plan.Find(transform.module);
  if (module == nullptr || module->is_quantized() || transform.tensors.empty()) return;
  LinearRow row;
  row.module = module->module.name;
  row.layer = module->module.layer;
  row.scheme = "dense";
  row.shape = module->source.shape;
  row.method = PruningMethodName(plan.recipe.modifiers()[transform.modifier]);
  row.bytes_before = module->source.num_bytes();
  row.bytes_after = row.bytes_before;
  builder.AddLinear(std::move(row));
}

// A path is bytes; what is not UTF-8 in it is replaced.
std::string QuotedModel(const std::string& model) {
  return nlohmann::json(model).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

std::string ReproduceCommand(const Job& job, int world_size) {
  std::string command = absl::StrCat("llmc compress --model ", Quoted(job.model), " --recipe ",
                                     Quoted(job.recipe), " --output ", Quoted(job.output));
  for (const std::string& dataset : job.datasets) {
    absl::StrAppend(&command, " --dataset ", Quoted(dataset));
  }
  absl::StrAppend(
      &command, " --num-calibration-samples ", job.num_calibration_samples, " --max-seq-length ",
      job.max_seq_length, " --text-column ", Quoted(job.text_column), " --seed ", job.seed,
      job.shuffle ? " --shuffle" : " --no-shuffle", " --device ", job.device, " --compute-dtype ",
      job.compute_dtype == ComputeDType::kBFloat16 ? "bfloat16" : "float32",
      " --quotient-rounding ",
      job.quotient_rounding == QuotientRounding::kFloat32 ? "float32" : "model-dtype",
      " --max-shard-size ", job.max_shard_bytes);
  if (job.sparse_format) {
    absl::StrAppend(&command, " --sparse-format ", SparseFormatName(*job.sparse_format));
  }
  if (world_size > 1) absl::StrAppend(&command, " --ranks ", world_size);
  return command;
}

std::string TimeText(std::time_t time) {
  std::tm parts{};
  gmtime_r(&time, &parts);
  char text[32];
  return {text, std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

void AddPlanFacts(const RunState& run, const std::string& command_line, ReportBuilder& builder) {
  RunReport& report = builder.report();
  const Plan& plan = run.plan;
  report.started_at = TimeText(std::time(nullptr));
  report.model_name = run.job.model;
  report.model_path = plan.source->dir().string();
  report.output_path = run.job.output;
  report.architecture = Architecture(plan.source->config());
  report.num_layers = plan.model ? plan.model->num_hidden_layers : 0;
  report.num_parameters = NumParameters(*plan.source);
  report.source_bytes = plan.source->total_bytes();
  report.output_bytes = run.estimate.output_bytes;
  report.scheme = SchemesOf(plan);
  report.recipe = ResolvedRecipeYaml(plan.recipe);
  report.command_line = command_line;
  report.reproduce_command = ReproduceCommand(run.job, run.collective.world_size());
  report.planned_rank_peak_bytes = run.estimate.peak_memory_bytes;
  report.rank_budget_bytes = run.job.memory_budget_bytes.value_or(0);
  report.planned_device_peak_bytes =
      run.estimate.device_memory_bytes + run.estimate.device_activation_bytes +
      (run.estimate.device_packs_in_flight - 1) * run.estimate.device_pack_bytes;
  if (plan.calibrated) {
    CalibrationFacts facts;
    facts.datasets = run.job.datasets;
    facts.num_samples = static_cast<int64_t>(run.samples.rows.size());
    facts.num_tokens = run.samples.num_tokens;
    facts.max_seq_length = run.job.max_seq_length;
    facts.seed = run.job.seed;
    facts.shuffled = run.job.shuffle;
    facts.token_hash = run.samples.hash;
    report.calibration = std::move(facts);
  }
  report.environment = DetectEnvironment();
  report.environment.device = run.device.name();
  report.environment.num_ranks = run.collective.world_size();
  report.environment.threads_per_rank = NumThreads();
  report.versions = {{"llmc", "0.1.0"}, {"LibTorch", "2.11.0"}, {"compressed-tensors", "0.19.0"}};
  for (const PlannedModule& module : plan.modules) {
    if (!module.is_quantized()) continue;
    LinearRow row;
    row.module = module.module.name;
    row.layer = module.module.layer;
    row.scheme = SchemeSummary(*module.scheme);
    row.shape = module.source.shape;
    row.method = std::string(MethodName(module.method));
    row.bytes_before = module.source.num_bytes();
    row.bytes_after = StoredWeightBytes(module);
    builder.AddLinear(std::move(row));
  }
  for (const PlannedTransform& transform : plan.transforms) AddPruned(plan, transform, builder);
}

std::string ModelCard(const RunState& run) {
  const Plan& plan = run.plan;
  const std::string base = plan.source->dir().filename().string();
  std::string card = absl::StrCat("---\nbase_model: ", QuotedModel(run.job.model),
                                  "\nbase_model_relation: quantized\nlibrary_name: transformers\n"
                                  "tags:\n- compressed-tensors\n- llmc\n---\n\n# ",
                                  base, ", compressed\n\n");
  absl::StrAppend(&card, SchemesOf(plan), ".\n\n");
  absl::StrAppend(&card, "| | |\n|---|---|\n| weights before | ",
                  FormatByteSize(plan.source->total_bytes()), " |\n| weights after | ",
                  FormatByteSize(run.estimate.output_bytes), " |\n");
  if (plan.calibrated) {
    absl::StrAppend(&card, "| calibration | ", run.samples.rows.size(), " samples, ",
                    run.samples.num_tokens, " tokens, hash ", run.samples.hash, " |\n");
  }
  absl::StrAppend(&card,
                  "| made with | llmc 0.1.0 |\n\nThe recipe is in `recipe.yaml`. Loads with ",
                  "vLLM and with transformers (package compressed-tensors).\n");
  return card;
}

}  // namespace llmc
