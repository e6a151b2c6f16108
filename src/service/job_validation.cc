#include "service/job_validation.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <filesystem>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "checkpoint/model_directory.h"
#include "dataset/dataset.h"
#include "llmc/byte_size.h"
#include "plan/plan.h"
#include "rpc/job_messages.h"
#include "rpc/plan_summary.h"
#include "tokenizer/tokenizer.h"

namespace llmc {
namespace {

namespace fs = std::filesystem;

class Validation {
 public:
  Validation(const v1::Job& job, const AllowedRoots& roots) : job_(job), roots_(roots) {
    result_.spec = job.spec();
  }

  ValidatedJob Run() && {
    CheckNumbers();
    CheckLabels();
    CheckModel();
    CheckRecipe();
    CheckDatasets("job.spec.datasets", *result_.spec.mutable_datasets());
    CheckDatasets("job.spec.eval_datasets", *result_.spec.mutable_eval_datasets());
    CheckWorkDir();
    CheckOutput();
    if (model_ok_ && recipe_ok_) CheckPlan();
    return std::move(result_);
  }

 private:
  void Add(const std::string& field, absl::string_view what) {
    result_.violations.emplace_back(absl::StrCat("job.", field), ToProtoText(what));
  }
  void Add(const std::string& field, const absl::Status& status) {
    Add(field, absl::string_view(status.message()));
  }

  void CheckRange(const std::string& field, bool given, int64_t value,
                  std::pair<int64_t, int64_t> range) {
    if (!given || (value >= range.first && value <= range.second)) return;
    Add(absl::StrCat("spec.", field),
        absl::StrCat(value, ": expected ", range.first, " to ", range.second));
  }

  void CheckNumbers() {
    const v1::JobSpec& spec = job_.spec();
    CheckRange("num_calibration_samples", spec.has_num_calibration_samples(),
               spec.num_calibration_samples(), {1, 100'000'000});
    CheckRange("max_seq_length", spec.has_max_seq_length(), spec.max_seq_length(), {1, 16'777'216});
    CheckRange("memory_budget_bytes", spec.has_memory_budget_bytes(), spec.memory_budget_bytes(),
               {1, int64_t{1} << 50});
    CheckRange("max_shard_bytes", spec.has_max_shard_bytes(), spec.max_shard_bytes(),
               {1, int64_t{1} << 50});
    CheckRange("eval_num_windows", spec.has_eval_num_windows(), spec.eval_num_windows(),
               {0, 1'000'000});
    static const std::vector<std::string> kDevices = {"", "auto", "cpu", "cuda"};
    if (std::find(kDevices.begin(), kDevices.end(), spec.device()) == kDevices.end()) {
      Add("spec.device", absl::StrCat(spec.device(), ": expected auto, cpu or cuda"));
    }
    if (!v1::ComputeDtype_IsValid(spec.compute_dtype())) {
      Add("spec.compute_dtype", "unknown value");
    }
    if (!v1::QuotientRounding_IsValid(spec.quotient_rounding())) {
      Add("spec.quotient_rounding", "unknown value");
    }
    if (!v1::SparseFormat_IsValid(spec.sparse_format())) {
      Add("spec.sparse_format", "unknown value");
    }
    if (job_.min_ranks() < 0 || job_.min_ranks() > 100'000) {
      Add("min_ranks", absl::StrCat(job_.min_ranks(), ": expected 0 to 100000"));
    }
    if (job_.has_priority() && (job_.priority() < 0 || job_.priority() > 100)) {
      Add("priority", absl::StrCat(job_.priority(), ": expected 0 to 100"));
    }
    if (spec.text_column().size() > 256) Add("spec.text_column", "more than 256 bytes");
  }

  void CheckLabels() {
    if (job_.labels_size() > 64) Add("labels", "more than 64 labels");
    for (const auto& [key, value] : job_.labels()) {
      if (key.empty() || key.size() > 63 || value.size() > 256) {
        Add("labels", absl::StrCat(key.substr(0, 63),
                                   ": expected a key of 1 to 63 bytes, a value of at most 256"));
      }
    }
  }

  void CheckModel() {
    std::string path = job_.spec().model();
    if (!path.empty() && path[0] != '/') {
      absl::StatusOr<fs::path> cached = ResolveModelDirectory(path);
      if (!cached.ok()) return Add("spec.model", cached.status());
      path = fs::absolute(*cached);
    }
    const absl::StatusOr<fs::path> opened = roots_.ExistingTree(path);
    if (!opened.ok()) return Add("spec.model", opened.status());
    result_.spec.set_model(opened->string());
    const absl::Status readable = Checkpoint::Open(*opened).status();
    if (!readable.ok()) return Add("spec.model", readable);
    model_ok_ = true;
  }

  void CheckRecipe() {
    const v1::JobSpec& spec = job_.spec();
    if (spec.has_recipe_text()) {
      const auto recipe = spec.recipe_text().size() > static_cast<size_t>(kMaxRecipeBytes)
                              ? absl::InvalidArgumentError("recipe: more than 1 MiB")
                              : Recipe::Parse(spec.recipe_text(), "recipe").status();
      if (!recipe.ok()) return Add("spec.recipe_text", recipe);
    } else {
      const absl::Status recipe = Recipe::FromPreset(spec.preset()).status();
      if (!recipe.ok()) return Add("spec.preset", recipe);
    }
    recipe_ok_ = true;
  }

  void CheckDatasets(const std::string& field,
                     google::protobuf::RepeatedPtrField<std::string>& paths) {
    for (int i = 0; i < paths.size(); ++i) {
      const std::string name = absl::StrCat(field.substr(4), "[", i, "]");
      const absl::StatusOr<fs::path> opened = roots_.ExistingTree(paths[i]);
      if (!opened.ok()) {
        Add(name, opened.status());
        continue;
      }
      paths[i] = opened->string();
      if (model_ok_) CheckFirstRow(name, *opened);
    }
  }

  // With this model's tokenizer and chat template.
  void CheckFirstRow(const std::string& name, const fs::path& path) {
    if (tokenizer_ == nullptr && tokenizer_status_.ok()) {
      absl::StatusOr<std::unique_ptr<Tokenizer>> loaded = Tokenizer::Load(result_.spec.model());
      tokenizer_status_ = loaded.status();
      if (loaded.ok()) tokenizer_ = *std::move(loaded);
      if (!tokenizer_status_.ok()) Add("spec.model", tokenizer_status_);
    }
    if (tokenizer_ == nullptr) return;
    DatasetOptions options;
    options.paths = {path};
    if (!job_.spec().text_column().empty()) options.text_column = job_.spec().text_column();
    options.num_samples = 1;
    options.max_seq_length = 16;
    options.shuffle = false;
    const absl::Status status =
        LoadCalibrationSamples(*tokenizer_, options, result_.spec.model()).status();
    if (!status.ok()) Add(name, status);
  }

  void CheckWorkDir() {
    if (job_.spec().work_dir().empty()) return;
    const absl::StatusOr<fs::path> opened = roots_.Existing(job_.spec().work_dir());
    if (!opened.ok()) return Add("spec.work_dir", opened.status());
    result_.spec.set_work_dir(opened->string());
  }

  void CheckOutput() {
    const absl::StatusOr<fs::path> output = roots_.Creatable(job_.spec().output());
    if (!output.ok()) return Add("spec.output", output.status());
    result_.spec.set_output(output->string());
    std::error_code error;
    if (fs::exists(*output, error) && !fs::is_empty(*output, error)) {
      return Add("spec.output", absl::StrCat(output->string(), ": exists"));
    }
    output_ok_ = true;
  }

  void CheckPlan() {
    const Job job = ToJob(result_.spec);
    const absl::StatusOr<Plan> plan = MakePlan(job);
    if (!plan.ok()) return Add("spec", plan.status());
    if (plan->calibrated && job.datasets.empty()) {
      Add("spec.datasets", absl::StrCat("none given, but the recipe needs calibration data: ",
                                        plan->calibration_reason));
    }
    // Every attempt computes in the same type, whichever host it runs on.
    result_.spec.set_compute_dtype(plan->compute_dtype == ComputeDType::kBFloat16
                                       ? v1::COMPUTE_DTYPE_BFLOAT16
                                       : v1::COMPUTE_DTYPE_FLOAT32);
    result_.plan = MakePlanSummary(*plan, job);
    if (job.memory_budget_bytes) CheckBudget(*plan, job);
    if (output_ok_) CheckDisk(job);
  }

  void CheckBudget(const Plan& plan, const Job& job) {
    const Estimate estimate =
        EstimatePlan(plan, ExtentFromFlags(job), Ranks{}, job.memory_budget_bytes);
    if (estimate.min_memory_bytes <= *job.memory_budget_bytes) return;
    Add("spec.memory_budget_bytes",
        absl::StrCat(FormatByteSize(*job.memory_budget_bytes), " a rank, expected at least ",
                     FormatByteSize(estimate.min_memory_bytes)));
  }

  void CheckDisk(const Job& job) {
    struct statvfs stat {};
    const std::string parent = fs::path(job.output).parent_path();
    if (statvfs(parent.c_str(), &stat) != 0) return;
    const int64_t free = static_cast<int64_t>(stat.f_bavail) * static_cast<int64_t>(stat.f_frsize);
    const int64_t needed = result_.plan.output_bytes() + (int64_t{64} << 20);
    if (needed <= free) return;
    Add("spec.output", absl::StrCat("the output needs ", FormatByteSize(needed), " of disk, ",
                                    FormatByteSize(free), " is free"));
  }

  const v1::Job& job_;
  const AllowedRoots& roots_;
  ValidatedJob result_;
  bool model_ok_ = false;
  bool recipe_ok_ = false;
  bool output_ok_ = false;
  std::unique_ptr<Tokenizer> tokenizer_;
  absl::Status tokenizer_status_;
};

}  // namespace

ValidatedJob ValidateJob(const v1::Job& job, const AllowedRoots& roots) {
  return Validation(job, roots).Run();
}

std::string JobIdProblem(const std::string& id) {
  const auto is_inner = [](char c) {
    return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '-';
  };
  const bool good = !id.empty() && id.size() <= 63 && absl::ascii_islower(id.front()) &&
                    id.back() != '-' && std::all_of(id.begin(), id.end(), is_inner);
  return good ? "" : "expected [a-z]([a-z0-9-]{0,61}[a-z0-9])?";
}

}  // namespace llmc
