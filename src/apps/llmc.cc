// llmc: what a user types. Links no LibTorch, so it answers in milliseconds;
// `compress` and `eval` become llmc-worker.

#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "cli/eval_options.h"
#include "cli/exit.h"
#include "cli/job_options.h"
#include "cli/model_commands.h"
#include "cli/worker_launch.h"
#include "client/completion.h"
#include "client/job_commands.h"

namespace {

using llmc::OutputOptions;

constexpr char kExamples[] = R"(Examples:
  llmc plan     --model DIR --recipe W4A16
  llmc compress --model DIR --recipe W4A16 --dataset text.jsonl --output OUT --ranks 2
  llmc compress --model DIR --recipe FP8_DYNAMIC --output OUT
  llmc eval     --model OUT --dataset held-out.jsonl --against DIR
  llmc verify   OUT --against DIR)";

// Everything the flags of one call fill.
struct Request {
  llmc::Job job;
  OutputOptions output;
  int num_ranks = 1;
  llmc::EvalRequest eval;
  llmc::InspectRequest inspect;
  llmc::VerifyRequest verify;
  std::string tokenize_output;
};

CLI::App* AddJobCommand(CLI::App& app, const std::string& name, const std::string& description,
                        Request& request) {
  CLI::App* command = app.add_subcommand(name, description);
  llmc::AddJobOptions(*command, request.job);
  llmc::AddConfigOption(*command);
  llmc::AddOutputOptions(*command, request.output);
  command->add_option("--ranks", request.num_ranks, "processes to use, through mpirun")
      ->check(CLI::Range(1, 100'000))
      ->envname("LLMC_RANKS")
      ->capture_default_str();
  return command;
}

void AddInspect(CLI::App& app, Request& request) {
  CLI::App* inspect = app.add_subcommand("inspect", "tensors, formats, sizes of a checkpoint");
  inspect->add_option("DIR", request.inspect.dir, "model directory")->required();
  inspect->add_flag("--all", request.inspect.every_tensor, "list every tensor");
  llmc::AddOutputOptions(*inspect, request.output);
}

void AddVerify(CLI::App& app, Request& request) {
  CLI::App* verify = app.add_subcommand("verify", "re-open an output and prove it sound");
  verify->add_option("DIR", request.verify.dir, "output directory")->required();
  verify->add_option("--against", request.verify.against, "the dense model it was made from");
  llmc::AddOutputOptions(*verify, request.output);
}

void AddTokenize(CLI::App& app, Request& request) {
  CLI::App* tokenize = app.add_subcommand("tokenize", "write the rows of input_ids of a dataset");
  llmc::AddJobOptions(*tokenize, request.job);
  llmc::AddOutputOptions(*tokenize, request.output);
}

// The words after the command, without `--ranks N`.
std::vector<std::string> WorkerArguments(int argc, char** argv) {
  std::vector<std::string> words;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--ranks") {
      ++i;
    } else if (word.rfind("--ranks=", 0) != 0) {
      words.push_back(word);
    }
  }
  return words;
}

absl::Status RequireJob(const llmc::Job& job, bool with_output) {
  if (job.model.empty()) return absl::InvalidArgumentError("--model is required");
  if (job.recipe.empty()) return absl::InvalidArgumentError("--recipe is required");
  if (with_output && job.output.empty()) return absl::InvalidArgumentError("--output is required");
  return absl::OkStatus();
}

absl::Status Tokenize(const Request& request) {
  if (request.job.model.empty()) return absl::InvalidArgumentError("--model is required");
  if (request.job.datasets.empty()) return absl::InvalidArgumentError("--dataset is required");
  if (request.job.output.empty()) return absl::InvalidArgumentError("--output is required");
  return llmc::TokenizeToFile(request.job, request.job.output, request.output);
}

absl::Status Run(const CLI::App& app, const Request& request, int argc, char** argv) {
  const std::string command = app.get_subcommands().front()->get_name();
  if (command == "plan") {
    LLMC_RETURN_IF_ERROR(RequireJob(request.job, false));
    return llmc::PrintPlan(request.job, request.num_ranks, request.output);
  }
  if (command == "inspect") return llmc::PrintInspection(request.inspect, request.output);
  if (command == "verify") return llmc::PrintVerification(request.verify, request.output);
  if (command == "tokenize") return Tokenize(request);
  if (command == "compress") LLMC_RETURN_IF_ERROR(RequireJob(request.job, true));
  return llmc::LaunchWorker(WorkerArguments(argc, argv), request.num_ranks);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Compresses large language models into the compressed-tensors format.", "llmc");
  app.set_version_flag("--version", "llmc 0.1.0");
  app.require_subcommand(1);
  app.footer(kExamples);
  Request request;
  AddJobCommand(app, "compress", "compress a model", request);
  AddJobCommand(app, "plan", "what would be done to each tensor, and what it needs", request);
  CLI::App* eval = app.add_subcommand("eval", "perplexity, and KL against the dense model");
  llmc::AddEvalOptions(*eval, request.eval);
  llmc::AddOutputOptions(*eval, request.output);
  eval->add_option("--ranks", request.num_ranks, "processes to use, through mpirun");
  AddInspect(app, request);
  AddVerify(app, request);
  AddTokenize(app, request);
  llmc::JobCommands jobs;
  jobs.Add(app, request.output);
  llmc::AddCompletion(app);
  if (argc > 1 && std::string(argv[1]) == llmc::kCompleteCommand) {
    return llmc::PrintCompletions(app, {argv + 2, argv + argc});
  }
  bool done = false;
  absl::Status status = llmc::Parse(app, argc, argv, &done);
  if (status.ok() && !done) {
    const std::string command = app.get_subcommands().front()->get_name();
    if (jobs.Has(command)) return jobs.Run(command);
    if (command == "completion") return llmc::PrintCompletionScript(app);
  }
  if (status.ok() && !done) status = Run(app, request, argc, argv);
  return llmc::Finish(status, request.output);
}
