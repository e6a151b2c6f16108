#include "cli/model_commands.h"

#include <iostream>
#include <optional>

#include "absl/strings/str_cat.h"
#include "checkpoint/model_directory.h"
#include "dataset/dataset.h"
#include "llmc/parallel.h"
#include "plan/plan.h"
#include "report/terminal.h"
#include "tokenizer/tokenizer.h"
#include "verify/inspect.h"
#include "verify/verify.h"

namespace llmc {
namespace {

void PrintJson(const nlohmann::json& json) {
  std::cout << json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
}

}  // namespace

absl::Status PrintPlan(const Job& job, int num_ranks, const OutputOptions& output) {
  LLMC_ASSIGN_OR_RETURN(const Plan plan, MakePlan(job));
  const Ranks ranks{num_ranks, std::max(1, NumThreads() / num_ranks)};
  const Estimate estimate =
      EstimatePlan(plan, ExtentFromFlags(job), ranks, job.memory_budget_bytes,
                   job.device_memory_budget_bytes);
  if (output.json) {
    PrintJson(ToJson(plan, estimate));
  } else {
    std::cout << ToTable(plan, estimate);
  }
  if (job.output.empty()) return absl::OkStatus();
  return CheckResources(job, estimate, ranks);
}

absl::Status PrintInspection(const InspectRequest& request, const OutputOptions& output) {
  LLMC_ASSIGN_OR_RETURN(const std::filesystem::path dir, ResolveModelDirectory(request.dir));
  LLMC_ASSIGN_OR_RETURN(const Inspection inspection, InspectCheckpoint(dir));
  if (output.json) {
    PrintJson(ToJson(inspection));
  } else {
    std::cout << ToTable(inspection, request.every_tensor);
  }
  return absl::OkStatus();
}

absl::Status PrintVerification(const VerifyRequest& request, const OutputOptions& output) {
  std::optional<std::filesystem::path> against;
  if (!request.against.empty()) {
    LLMC_ASSIGN_OR_RETURN(against, ResolveModelDirectory(request.against));
  }
  LLMC_ASSIGN_OR_RETURN(const VerifyReport report, VerifyCheckpoint(request.dir, against));
  if (output.json) {
    PrintJson(ToJson(report));
  } else {
    for (const Problem& problem : report.problems) {
      std::cout << std::string(ProblemName(problem.code)) << "  "
                << EscapeForTerminal(problem.subject) << "  " << problem.text << "\n";
    }
    for (const std::string& warning : report.warnings) std::cout << "warning: " << warning << "\n";
    std::cout << report.num_tensors << " tensors, " << report.num_quantized_modules
              << " quantised modules, " << report.num_bytes_read << " bytes read: "
              << (report.ok() ? "sound" : absl::StrCat(report.problems.size(), " problem(s)"))
              << "\n";
  }
  if (report.ok()) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(request.dir, ": not sound"));
}

absl::Status TokenizeToFile(const Job& job, const std::string& file, const OutputOptions& output) {
  LLMC_ASSIGN_OR_RETURN(const std::filesystem::path dir, ResolveModelDirectory(job.model));
  LLMC_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer, Tokenizer::Load(dir));
  DatasetOptions options;
  for (const std::string& path : job.datasets) options.paths.emplace_back(path);
  options.text_column = job.text_column;
  options.num_samples = job.num_calibration_samples;
  options.max_seq_length = job.max_seq_length;
  options.seed = job.seed;
  options.shuffle = job.shuffle;
  LLMC_ASSIGN_OR_RETURN(const CalibrationSamples samples,
                        LoadCalibrationSamples(*tokenizer, options, dir));
  LLMC_RETURN_IF_ERROR(WriteTokenRows(samples.rows, file));
  for (const std::string& warning : samples.warnings) std::cerr << "warning: " << warning << "\n";
  if (output.json) {
    PrintJson({{"output", file},
               {"num_samples", samples.rows.size()},
               {"num_tokens", samples.num_tokens},
               {"num_truncated", samples.rows_truncated},
               {"hash", samples.hash}});
  } else {
    std::cout << file << ": " << samples.rows.size() << " samples, " << samples.num_tokens
              << " tokens\n";
  }
  return absl::OkStatus();
}

}  // namespace llmc
