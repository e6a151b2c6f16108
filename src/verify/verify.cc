#include "verify/verify.h"

#include <algorithm>
#include <array>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/checkpoint_writer.h"
#include "checkpoint/strict_json.h"
#include "llmc/parallel.h"
#include "verify/directory_check.h"
#include "verify/findings.h"
#include "verify/module_check.h"
#include "verify/module_table.h"

namespace llmc {
namespace {

namespace fs = std::filesystem;

constexpr JsonLimits kManifestLimits{512 << 20, 32};
constexpr int64_t kMaxRecipeBytes = 16 << 20;

constexpr std::array<absl::string_view, 17> kProblemNames = {
    "unreadable",         "missing_tensor",    "extra_tensor",   "wrong_dtype",  "wrong_shape",
    "bad_scale",          "bad_values",        "bad_zero_point", "padding_bits", "weight_shape",
    "scale_does_not_fit", "untouched_changed", "hash_differs",   "missing_file", "index_wrong",
    "tie_flag",           "config_wrong"};

// Methods that change weights before they are rounded, or tensors that are not
// rounded at all.
constexpr std::array<absl::string_view, 9> kTransformingMethods = {
    "SmoothQuantModifier",    "AWQModifier",
    "SpinQuantModifier",      "QuIPModifier",
    "SparseGPTModifier",      "WandaPruningModifier",
    "PruningModifier",        "LogarithmicEqualizationModifier",
    "AutoSmoothQuantModifier"};

bool RecipeTransforms(const fs::path& dir) {
  const absl::StatusOr<PosixFile> file = PosixFile::OpenForReading(dir / "recipe.yaml");
  if (!file.ok()) return false;
  const absl::StatusOr<std::string> text = file->ReadAll(kMaxRecipeBytes);
  return text.ok() &&
         std::any_of(kTransformingMethods.begin(), kTransformingMethods.end(),
                     [&](absl::string_view method) { return absl::StrContains(*text, method); });
}

void ReadConfig(Subject& subject, Findings& findings) {
  const nlohmann::json* json = FindQuantizationConfig(subject.output->config());
  if (json == nullptr) return;
  absl::StatusOr<QuantizationConfig> config = QuantizationConfig::FromJson(*json);
  const std::string where = "config.json quantization_config";
  if (!config.ok()) {
    findings.Add(ProblemCode::kConfigWrong, where, std::string(config.status().message()));
    return;
  }
  if (json->value("quantization_status", "") != "compressed") {
    findings.Add(ProblemCode::kConfigWrong, where,
                 "quantization_status: expected \"compressed\", or clients take the weights for "
                 "dense ones");
  }
  subject.weights_transformed = subject.weights_transformed || !config->transform_config().empty();
  subject.config = *std::move(config);
}

void ReadManifest(Subject& subject, Findings& findings) {
  const std::string name(kManifestFileName);
  absl::StatusOr<nlohmann::json> manifest =
      ReadStrictJson(subject.output->dir() / name, kManifestLimits);
  if (manifest.ok() && manifest->is_object()) {
    subject.manifest = *std::move(manifest);
  } else if (!absl::IsNotFound(manifest.status())) {
    findings.Add(ProblemCode::kUnreadable, name,
                 manifest.ok() ? "expected an object" : std::string(manifest.status().message()));
  }
}

void CheckQuantizedModules(const Subject& subject, const ModuleTable& table, Findings& findings) {
  ParallelFor(static_cast<int64_t>(table.quantized.size()),
              [&](int64_t i) { CheckModule(subject, table.quantized[i], findings); });
}

// That the parts of every weight without zeros fit each other.
void CheckSparseModules(const Subject& subject, const ModuleTable& table, Findings& findings) {
  ParallelFor(static_cast<int64_t>(table.sparse.size()), [&](int64_t i) {
    const absl::Status status = ReadSparseWeight(subject, table.sparse[i]).status();
    if (!status.ok()) {
      findings.Add(ProblemCode::kBadValues, table.sparse[i], std::string(status.message()));
    }
  });
}

void CheckEverything(Subject& subject, const VerifyOptions& options, Findings& findings) {
  ReadManifest(subject, findings);
  ReadConfig(subject, findings);
  const ModuleTable table = MakeModuleTable(subject, findings);
  findings.report().num_tensors = static_cast<int64_t>(subject.output->tensors().size());
  findings.report().num_quantized_modules = static_cast<int64_t>(table.quantized.size());
  CheckTensorSpecs(subject, table, findings);
  CheckIndexTotals(subject, findings);
  CheckFiles(subject, options.check_hashes && options.read_values, findings);
  CheckTieFlag(subject, findings);
  if (subject.dense != nullptr) CheckConfigFields(subject, findings);
  if (!options.read_values) return;
  CheckQuantizedModules(subject, table, findings);
  CheckSparseModules(subject, table, findings);
  CheckOtherValues(subject, table, findings);
  if (subject.dense != nullptr) CheckUntouched(subject, table, findings);
  if (options.check_hashes) CheckTensorHashes(subject, findings);
}

absl::StatusOr<std::shared_ptr<const Checkpoint>> OpenSource(const fs::path& against,
                                                             Findings& findings) {
  LLMC_ASSIGN_OR_RETURN(std::shared_ptr<const Checkpoint> dense,
                        Checkpoint::Open(against, {.drop_page_cache = false}));
  if (FindQuantizationConfig(dense->config()) == nullptr) return dense;
  findings.Warn(
      absl::StrCat(against.string(), ": is quantised itself, values are not compared with it"));
  return std::shared_ptr<const Checkpoint>();
}

void AddOpenProblem(const absl::Status& status, Findings& findings) {
  const bool index = absl::StrContains(status.message(), "model.safetensors.index.json");
  findings.Add(index ? ProblemCode::kIndexWrong : ProblemCode::kUnreadable,
               index ? "model.safetensors.index.json" : "checkpoint",
               std::string(status.message()));
}

}  // namespace

absl::string_view ProblemName(ProblemCode code) { return kProblemNames[static_cast<size_t>(code)]; }

VerifyReport Findings::Take() {
  std::sort(report_.problems.begin(), report_.problems.end(),
            [](const Problem& a, const Problem& b) {
              return std::tie(a.subject, a.code) < std::tie(b.subject, b.code);
            });
  return std::move(report_);
}

absl::StatusOr<VerifyReport> VerifyCheckpoint(const fs::path& dir,
                                              const std::optional<fs::path>& against,
                                              const VerifyOptions& options) {
  std::error_code error;
  if (!fs::is_directory(dir, error))
    return absl::NotFoundError(absl::StrCat(dir.string(), ": expected a checkpoint directory"));
  Findings findings;
  Subject subject;
  if (against) {
    LLMC_ASSIGN_OR_RETURN(subject.dense, OpenSource(*against, findings));
  }
  absl::StatusOr<std::shared_ptr<const Checkpoint>> output = Checkpoint::Open(dir);
  if (!output.ok()) {
    AddOpenProblem(output.status(), findings);
    return findings.Take();
  }
  subject.output = *std::move(output);
  subject.weights_transformed = options.weights_transformed || RecipeTransforms(dir);
  CheckEverything(subject, options, findings);
  return findings.Take();
}

nlohmann::json ToJson(const VerifyReport& report) {
  nlohmann::json problems = nlohmann::json::array();
  for (const Problem& problem : report.problems) {
    problems.push_back({{"code", std::string(ProblemName(problem.code))},
                        {"subject", problem.subject},
                        {"text", problem.text}});
  }
  return {{"ok", report.ok()},
          {"problems", std::move(problems)},
          {"warnings", report.warnings},
          {"num_tensors", report.num_tensors},
          {"num_quantized_modules", report.num_quantized_modules},
          {"num_bytes_read", report.num_bytes_read},
          {"num_weights_compared", report.num_weights_compared},
          {"largest_relative_error", report.largest_relative_error},
          {"largest_error_module", report.largest_error_module}};
}

}  // namespace llmc
