// llmc-worker: one rank. Alone it is the whole job; under mpirun a part of it.

#include <malloc.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <iostream>
#include <memory>
#include <thread>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "apps/pool.h"
#include "checkpoint/model_directory.h"
#include "cli/eval_options.h"
#include "cli/exit.h"
#include "cli/job_options.h"
#include "collective/collective.h"
#include "dataset/dataset.h"
#include "evaluation/evaluation.h"
#include "llmc/parallel.h"
#include "model/torch_tensor.h"
#include "nlohmann/json.hpp"
#include "pipeline/run.h"
#include "report/progress.h"
#include "report/run_report.h"
#include "tokenizer/tokenizer.h"

namespace {

std::atomic<bool> stop{false};

void OnSignal(int) { stop = true; }

// The first signal lets the current layer finish; a second one ends at once.
void StopOnSignals() {
  struct sigaction action {};
  action.sa_handler = OnSignal;
  action.sa_flags = static_cast<int>(SA_RESETHAND) | SA_RESTART;
  for (int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaction(signal, &action, nullptr);
}

// Large blocks go back to the system as soon as they are freed. Left to itself the
// allocator keeps blocks of up to 32 MiB, and a layer's memory piles up.
void ReturnLargeBlocks() {
  mallopt(M_MMAP_THRESHOLD, 4 << 20);
  // Smaller ones come and go with every sample: without some slack their pages
  // would be returned and cleared each time.
  mallopt(M_TRIM_THRESHOLD, 16 << 20);
}

absl::StatusOr<std::unique_ptr<llmc::Collective>> JoinWorld() {
  if (llmc::LaunchedByMpi()) return llmc::MakeMpiCollective();
  return llmc::MakeSelfCollective();
}

// Ranks of one host share its CPUs; LLMC_THREADS says otherwise.
void ShareCpus(const llmc::Collective& collective) {
  int threads = llmc::NumThreads() / collective.ranks_on_host();
  if (const char* wanted = std::getenv("LLMC_THREADS"); wanted != nullptr)
    threads = std::atoi(wanted);
  llmc::SetNumThreads(threads);
  llmc::UseOneThreadPerOperation();
}

llmc::ColorMode ColorModeOf(const std::string& name) {
  if (name == "always") return llmc::ColorMode::kAlways;
  return name == "never" ? llmc::ColorMode::kNever : llmc::ColorMode::kAuto;
}

std::unique_ptr<llmc::ProgressDisplay> MakeDisplay(const llmc::OutputOptions& output, int rank) {
  if (rank != 0 && !output.all_ranks) return nullptr;
  llmc::ProgressOptions options;
  options.color = ColorModeOf(output.color);
  options.quiet = output.quiet;
  options.plain = rank != 0;
  if (rank != 0) options.title = absl::StrCat("rank ", rank);
  return std::make_unique<llmc::ProgressDisplay>(options);
}

absl::Status Compress(const llmc::Job& job, const llmc::OutputOptions& output,
                      const std::string& command_line, llmc::Collective& collective) {
  std::unique_ptr<llmc::ProgressDisplay> display = MakeDisplay(output, collective.rank());
  llmc::RunOptions options;
  options.command_line = command_line;
  options.stop = &stop;
  if (display != nullptr) options.sink = display->Sink();
  llmc::RunReport report;
  const absl::Status status = llmc::RunJob(job, collective, options, report);
  if (display != nullptr) display->Finish();
  if (!status.ok() || collective.rank() != 0) return status;
  const std::string path = absl::StrCat(job.output, "/llmc_report/report.html");
  if (output.json) {
    std::cout << llmc::ToJson(report) << "\n";
  } else if (!output.quiet) {
    std::cout << llmc::ToTerminalSummary(
        report, llmc::DetectTerminal(STDOUT_FILENO, ColorModeOf(output.color)), path);
  }
  return status;
}

nlohmann::json ToJson(const llmc::EvaluationResult& result) {
  nlohmann::json json = {{"perplexity", result.perplexity},
                         {"mean_nll", result.mean_nll},
                         {"num_windows", result.num_windows},
                         {"num_tokens", result.num_tokens},
                         {"seconds", result.seconds}};
  if (result.against_perplexity) json["against_perplexity"] = *result.against_perplexity;
  if (result.kl_mean) json["kl_mean"] = *result.kl_mean;
  if (result.top1_agreement) json["top1_agreement"] = *result.top1_agreement;
  return json;
}

void Print(const llmc::EvaluationResult& result, bool as_json) {
  if (as_json) {
    std::cout << ToJson(result).dump(2) << "\n";
    return;
  }
  std::cout << absl::StrFormat("perplexity      %.4f\n", result.perplexity);
  if (result.against_perplexity) {
    std::cout << absl::StrFormat("  of the dense  %.4f\n", *result.against_perplexity);
  }
  if (result.kl_mean) std::cout << absl::StrFormat("mean KL         %.6f nats\n", *result.kl_mean);
  if (result.top1_agreement) {
    std::cout << absl::StrFormat("same top token  %.2f %%\n", 100 * *result.top1_agreement);
  }
  std::cout << absl::StrFormat("windows         %d (%d predicted tokens)\n", result.num_windows,
                               result.num_tokens);
}

absl::Status Evaluate(const llmc::EvalRequest& request, const llmc::OutputOptions& output,
                      llmc::Collective& collective) {
  llmc::EvaluationRequest evaluation;
  LLMC_ASSIGN_OR_RETURN(evaluation.model, llmc::ResolveModelDirectory(request.model));
  if (!request.against.empty()) {
    LLMC_ASSIGN_OR_RETURN(evaluation.against, llmc::ResolveModelDirectory(request.against));
  }
  LLMC_ASSIGN_OR_RETURN(const auto tokenizer, llmc::Tokenizer::Load(evaluation.model));
  llmc::EvaluationOptions options;
  for (const std::string& path : request.datasets) options.paths.emplace_back(path);
  options.text_column = request.text_column;
  options.window_length = request.max_seq_length;
  options.num_windows = request.num_windows;
  LLMC_ASSIGN_OR_RETURN(const llmc::EvaluationWindows windows,
                        llmc::LoadEvaluationWindows(*tokenizer, options, evaluation.model));
  evaluation.windows = windows.windows;
  evaluation.compute_dtype =
      request.compute_dtype == "bfloat16" ? llmc::DType::kBF16 : llmc::DType::kF32;
  evaluation.collective = &collective;
  LLMC_ASSIGN_OR_RETURN(const llmc::EvaluationResult result, llmc::Evaluate(evaluation));
  if (collective.rank() == 0) Print(result, output.json);
  return absl::OkStatus();
}

// Flags of one call.
struct Request {
  llmc::Job job;
  llmc::OutputOptions output;
  llmc::EvalRequest eval;
  llmc::PoolOptions pool;
  std::string command_line;
};

absl::Status RunCommand(const std::string& command, const Request& request,
                        llmc::Collective& collective) {
  if (command == "eval") {
    return collective.AgreeOnStatus(Evaluate(request.eval, request.output, collective));
  }
  return Compress(request.job, request.output, request.command_line, collective);
}

// Errors that every rank reports would appear once a rank; rank 0 speaks for all.
int FinishRank(const absl::Status& status, const Request& request, bool is_leader) {
  return is_leader ? llmc::Finish(status, request.output) : llmc::ExitCode(status);
}

// mpirun kills the ranks that are left when one ends with an error, and waits as long as
// odls_base_sigkill_timeout says. So only rank 0 tells the code, after the others ended.
int LeaveWorld(int code, std::unique_ptr<llmc::Collective>& collective) {
  const bool is_leader = collective->rank() == 0;
  const bool has_peers = collective->world_size() > 1;
  collective.reset();
  if (code == 0 || !has_peers) return code;
  if (is_leader) std::this_thread::sleep_for(std::chrono::seconds(1));
  return is_leader ? code : 0;
}

int RunRank(const std::string& command, const Request& request) {
  ReturnLargeBlocks();
  StopOnSignals();
  absl::StatusOr<std::unique_ptr<llmc::Collective>> collective = JoinWorld();
  if (!collective.ok()) return llmc::Finish(collective.status(), request.output);
  ShareCpus(**collective);
  if (command == "pool")
    return LeaveWorld(llmc::RunPool(request.pool, **collective, stop), *collective);
  const absl::Status status = RunCommand(command, request, **collective);
  const int code = FinishRank(status, request, (*collective)->rank() == 0);
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("One rank of llmc; alone, the whole job.", "llmc-worker");
  app.set_version_flag("--version", "llmc-worker 0.1.0");
  // With a coordinator in the environment a worker without a command is a pool.
  char pool_command[] = "pool";
  char* pool_words[] = {argv[0], pool_command, nullptr};
  if (argc == 1 && std::getenv("LLMC_COORDINATOR") != nullptr) {
    argc = 2;
    argv = pool_words;
  }
  app.require_subcommand(1);
  Request request;
  request.command_line = llmc::CommandLine(argc, argv);
  CLI::App* compress = app.add_subcommand("compress", "compress a model");
  llmc::AddJobOptions(*compress, request.job);
  llmc::AddConfigOption(*compress);
  llmc::AddOutputOptions(*compress, request.output);
  for (const char* flag : {"--model", "--recipe", "--output"}) {
    compress->get_option(flag)->required();
  }
  CLI::App* eval = app.add_subcommand("eval", "perplexity, and KL against the dense model");
  llmc::AddEvalOptions(*eval, request.eval);
  llmc::AddOutputOptions(*eval, request.output);
  llmc::AddPoolOptions(*app.add_subcommand("pool", "lease jobs from a coordinator"), request.pool);
  bool done = false;
  const absl::Status parsed = llmc::Parse(app, argc, argv, &done);
  if (!parsed.ok() || done) return llmc::Finish(parsed, request.output);
  return RunRank(app.get_subcommands().front()->get_name(), request);
}
