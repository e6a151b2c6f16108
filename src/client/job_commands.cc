#include "client/job_commands.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <random>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "client/job_text.h"
#include "client/job_watcher.h"
#include "client/watch_display.h"
#include "google/protobuf/util/json_util.h"
#include "llmc/file.h"
#include "llmc/v1/job_service.grpc.pb.h"
#include "nlohmann/json.hpp"
#include "report/run_report.h"
#include "report/terminal.h"
#include "rpc/job_messages.h"
#include "rpc/rpc_status.h"

namespace llmc {
namespace {

namespace fs = std::filesystem;

std::string ToJsonText(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.always_print_primitive_fields = true;
  std::string text;
  if (!google::protobuf::util::MessageToJsonString(message, &text, options).ok()) return "{}";
  return text;
}

std::string NameOf(const std::string& word) {
  return absl::StartsWith(word, "jobs/") ? word : absl::StrCat("jobs/", word);
}

std::string RandomRequestId() {
  std::random_device device;
  return absl::StrFormat("%08x%08x%08x%08x", device(), device(), device(), device());
}

std::string AbsolutePath(const std::string& path) {
  if (path.empty()) return path;
  std::error_code error;
  const fs::path absolute = fs::absolute(path, error).lexically_normal();
  return error ? path : absolute.string();
}

// A new file that nobody else may read.
class PrivateFile {
 public:
  static absl::StatusOr<PrivateFile> Create(const std::string& path) {
    PrivateFile file(path);
    unlink(path.c_str());
    file.descriptor_ = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file.descriptor_ < 0) return ErrnoStatus(errno, path, "create");
    return file;
  }
  PrivateFile(PrivateFile&& other) noexcept
      : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}
  ~PrivateFile() {
    if (descriptor_ < 0) return;
    close(descriptor_);
    unlink(path_.c_str());
  }

  absl::Status Append(absl::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t written = write(descriptor_, bytes.data(), bytes.size());
      if (written < 0 && errno != EINTR) return ErrnoStatus(errno, path_, "write");
      if (written > 0) bytes.remove_prefix(static_cast<size_t>(written));
    }
    return absl::OkStatus();
  }

  absl::Status MoveTo(const std::string& path) {
    if (fsync(descriptor_) != 0) return ErrnoStatus(errno, path_, "fsync");
    if (rename(path_.c_str(), path.c_str()) != 0) return ErrnoStatus(errno, path, "rename");
    close(std::exchange(descriptor_, -1));
    return FsyncDirectory(fs::absolute(path).parent_path());
  }

 private:
  explicit PrivateFile(std::string path) : path_(std::move(path)) {}

  std::string path_;
  int descriptor_ = -1;
};

// Paths become absolute and a recipe file becomes its text: the coordinator stands
// elsewhere.
absl::StatusOr<v1::JobSpec> SpecOf(Job job) {
  if (job.model.empty()) return absl::InvalidArgumentError("--model is required");
  if (job.recipe.empty()) return absl::InvalidArgumentError("--recipe is required");
  if (job.output.empty()) return absl::InvalidArgumentError("--output is required");
  if (job.fresh) {
    return absl::InvalidArgumentError("--fresh: not for submitted jobs; give another --output");
  }
  std::error_code error;
  if (fs::is_regular_file(job.recipe, error)) {
    LLMC_ASSIGN_OR_RETURN(job.recipe_text, ReadFile(job.recipe, 1 << 20));
  }
  if (fs::is_directory(job.model, error)) job.model = AbsolutePath(job.model);
  for (std::string& path : job.datasets) path = AbsolutePath(path);
  for (std::string& path : job.eval_datasets) path = AbsolutePath(path);
  job.output = AbsolutePath(job.output);
  job.work_dir = AbsolutePath(job.work_dir);
  return ToJobSpec(job);
}

int64_t NowSeconds() { return time(nullptr); }

// Of errors that no server was asked about.
constexpr char kUsage[] = "USAGE";

int JobExitCode(v1::JobState state) {
  if (state == v1::JOB_STATE_FAILED) return kExitJobFailed;
  return state == v1::JOB_STATE_CANCELLED ? kExitJobCancelled : 0;
}

}  // namespace

int ClientExitCode(const absl::Status& status) {
  if (ReasonOf(status) == kUsage) return kExitUsage;
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 0;
    case absl::StatusCode::kNotFound:
      return kExitNotFound;
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
      return kExitNotAllowed;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return kExitUnreachable;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kResourceExhausted:
      return kExitRefused;
    case absl::StatusCode::kCancelled:
      return kExitInterrupted;
    default:
      return kExitInternal;
  }
}

// One connection and the commands on it.
class JobCommands::Client {
 public:
  Client(const CoordinatorChannel& channel, const Flags& flags, const OutputOptions& output)
      : channel_(channel),
        flags_(flags),
        output_(output),
        stub_(v1::JobService::NewStub(channel.channel())) {}

  absl::StatusOr<int> Run(const std::string& command) {
    if (command == "submit") return Submit();
    if (command == "list") return List();
    if (command == "pools") return Pools();
    if (command == "watch") return Watch(NameOf(flags_.name));
    if (command == "report") return Report();
    if (command == "delete") return Delete();
    if (command == "backup") return BackUp();
    return Verb(command);
  }

 private:
  template <typename Request, typename Response, typename Call>
  absl::StatusOr<Response> Ask(Call call, const Request& request) {
    grpc::ClientContext context;
    channel_.Prepare(context);
    Response response;
    LLMC_RETURN_IF_ERROR(FromRpcStatus((stub_.get()->*call)(&context, request, &response)));
    return response;
  }

  template <typename Request, typename Call>
  absl::StatusOr<v1::Job> AskByName(Call call) {
    Request request;
    request.set_name(NameOf(flags_.name));
    return Ask<Request, v1::Job>(call, request);
  }

  absl::StatusOr<int> Verb(const std::string& command) {
    using Stub = v1::JobService::Stub;
    absl::StatusOr<v1::Job> job = absl::InternalError(command);
    if (command == "get") job = AskByName<v1::GetJobRequest>(&Stub::GetJob);
    if (command == "cancel") job = AskByName<v1::CancelJobRequest>(&Stub::CancelJob);
    if (command == "pause") job = AskByName<v1::PauseJobRequest>(&Stub::PauseJob);
    if (command == "resume") job = AskByName<v1::ResumeJobRequest>(&Stub::ResumeJob);
    if (command == "retry") job = AskByName<v1::RetryJobRequest>(&Stub::RetryJob);
    if (!job.ok()) return job.status();
    Print(*job);
    return 0;
  }

  absl::StatusOr<int> Delete() {
    v1::DeleteJobRequest request;
    request.set_name(NameOf(flags_.name));
    LLMC_RETURN_IF_ERROR((Ask<v1::DeleteJobRequest, google::protobuf::Empty>(
                              &v1::JobService::Stub::DeleteJob, request))
                             .status());
    return 0;
  }

  // The file appears whole or not at all.
  absl::StatusOr<int> BackUp() {
    const std::string partial = absl::StrCat(flags_.backup_file, ".partial");
    grpc::ClientContext context;
    channel_.Prepare(context, /*is_stream=*/true);
    const auto stream = stub_->BackupStore(&context, v1::BackupStoreRequest());
    LLMC_ASSIGN_OR_RETURN(PrivateFile file, PrivateFile::Create(partial));
    v1::BackupStoreResponse response;
    absl::Status status;
    while (status.ok() && stream->Read(&response)) status = file.Append(response.part());
    if (!status.ok()) context.TryCancel();
    const absl::Status finished = FromRpcStatus(stream->Finish());
    if (status.ok()) status = finished;
    if (status.ok()) status = file.MoveTo(flags_.backup_file);
    if (!status.ok()) return status;
    if (output_.json) std::cout << nlohmann::json{{"file", flags_.backup_file}}.dump() << "\n";
    return 0;
  }

  absl::StatusOr<int> Submit() {
    v1::CreateJobRequest request;
    absl::StatusOr<v1::JobSpec> spec = SpecOf(flags_.job);
    if (!spec.ok()) return WithReason(kUsage, spec.status());
    *request.mutable_job()->mutable_spec() = *std::move(spec);
    request.mutable_job()->set_priority(flags_.priority);
    request.mutable_job()->set_min_ranks(flags_.min_ranks);
    for (const std::string& label : flags_.labels) {
      const size_t equals = label.find('=');
      if (equals == std::string::npos) {
        return WithReason(kUsage, absl::InvalidArgumentError(
                                      absl::StrCat("--label ", label, ": expected KEY=VALUE")));
      }
      (*request.mutable_job()->mutable_labels())[label.substr(0, equals)] =
          label.substr(equals + 1);
    }
    request.set_job_id(flags_.job_id);
    request.set_request_id(flags_.request_id.empty() ? RandomRequestId() : flags_.request_id);
    request.set_validate_only(flags_.validate_only);
    LLMC_ASSIGN_OR_RETURN(const v1::Job job, (Ask<v1::CreateJobRequest, v1::Job>(
                                                 &v1::JobService::Stub::CreateJob, request)));
    if (output_.json && !flags_.wait) {
      std::cout << ToJsonText(job) << "\n";
    } else if (!flags_.validate_only && !output_.json) {
      std::cout << job.name() << std::endl;
    }
    if (!flags_.wait || flags_.validate_only) return 0;
    return Watch(job.name());
  }

  absl::StatusOr<int> List() {
    v1::ListJobsRequest request;
    request.set_filter(flags_.filter);
    request.set_page_size(1000);
    v1::ListJobsResponse all;
    do {
      LLMC_ASSIGN_OR_RETURN(const v1::ListJobsResponse page,
                            (Ask<v1::ListJobsRequest, v1::ListJobsResponse>(
                                &v1::JobService::Stub::ListJobs, request)));
      all.mutable_jobs()->MergeFrom(page.jobs());
      request.set_page_token(page.next_page_token());
    } while (!request.page_token().empty());
    if (output_.json) {
      std::cout << ToJsonText(all) << "\n";
      return 0;
    }
    std::cout << ToText(all, NowSeconds());
    return 0;
  }

  absl::StatusOr<int> Pools() {
    LLMC_ASSIGN_OR_RETURN(const v1::ListPoolsResponse pools,
                          (Ask<v1::ListPoolsRequest, v1::ListPoolsResponse>(
                              &v1::JobService::Stub::ListPools, v1::ListPoolsRequest())));
    if (output_.json) {
      std::cout << ToJsonText(pools) << "\n";
      return 0;
    }
    std::cout << ToText(pools);
    return 0;
  }

  absl::StatusOr<int> Report() {
    v1::GetReportRequest request;
    request.set_name(NameOf(flags_.name));
    LLMC_ASSIGN_OR_RETURN(const v1::GetReportResponse response,
                          (Ask<v1::GetReportRequest, v1::GetReportResponse>(
                              &v1::JobService::Stub::GetReport, request)));
    if (output_.json) {
      std::cout << response.report_json() << "\n";
      return 0;
    }
    LLMC_ASSIGN_OR_RETURN(const RunReport report, ReportFromJson(response.report_json()));
    if (!flags_.report_file.empty()) {
      LLMC_RETURN_IF_ERROR(WriteFileDurably(flags_.report_file, ToHtml(report)));
    }
    std::cout << ToTerminalSummary(report, DetectTerminal(STDOUT_FILENO, ColorMode::kAuto),
                                   flags_.report_file);
    return 0;
  }

  // Bars on stderr; with --json every message as one line on stdout.
  absl::StatusOr<int> Watch(const std::string& name) {
    ProgressOptions options;
    options.quiet = output_.quiet || output_.json;
    WatchDisplay display(name, options);
    JobWatcher watcher(channel_, name, [&](const v1::WatchJobResponse& message) {
      if (output_.json) {
        std::cout << ToJsonText(message) << std::endl;
      } else {
        display.OnMessage(message);
      }
    });
    const absl::StatusOr<v1::JobState> state = watcher.Run();
    display.Finish();
    if (absl::IsCancelled(state.status())) {
      std::cerr << "detached; the job goes on. llmc watch " << name << " attaches again\n";
      return kExitInterrupted;
    }
    if (!state.ok()) return state.status();
    return JobExitCode(*state);
  }

  void Print(const v1::Job& job) {
    if (output_.json) {
      std::cout << ToJsonText(job) << "\n";
      return;
    }
    std::cout << ToText(job, NowSeconds());
  }

  const CoordinatorChannel& channel_;
  const Flags& flags_;
  const OutputOptions& output_;
  const std::unique_ptr<v1::JobService::Stub> stub_;
};

JobCommands::JobCommands() = default;
JobCommands::~JobCommands() = default;

CLI::App* JobCommands::AddCommand(CLI::App& app, const std::string& name,
                                  const std::string& description) {
  CLI::App* command = app.add_subcommand(name, description);
  AddChannelFlags(*command, flags_.channel);
  AddOutputOptions(*command, *output_);
  return command;
}

void JobCommands::AddSubmit(CLI::App& app) {
  CLI::App* submit = AddCommand(app, "submit", "queue a job at the coordinator; prints its name");
  AddJobOptions(*submit, flags_.job);
  AddConfigOption(*submit);
  submit->add_flag("--wait", flags_.wait, "watch it to its end");
  submit->add_flag("--validate-only", flags_.validate_only, "only check it");
  submit->add_option("--priority", flags_.priority, "0 to 100; higher ones are served first")
      ->check(CLI::Range(0, 100))
      ->capture_default_str();
  submit->add_option("--min-ranks", flags_.min_ranks, "only a pool of so many ranks gets it")
      ->check(CLI::Range(0, 100'000));
  submit->add_option("--label", flags_.labels, "KEY=VALUE");
  submit->add_option("--job-id", flags_.job_id, "name of the job (default: made up)");
  submit->add_option("--request-id", flags_.request_id,
                     "the same id again gives the same job (default: made up)");
}

void JobCommands::Add(CLI::App& app, OutputOptions& output) {
  output_ = &output;
  AddSubmit(app);
  const auto add_named = [&](const char* name, const char* description) {
    CLI::App* command = AddCommand(app, name, description);
    command->add_option("JOB", flags_.name, "its name or id")->required();
    return command;
  };
  add_named("get", "one job");
  add_named("watch", "follow a job to its end; Ctrl-C detaches");
  add_named("cancel", "stop a job for good");
  add_named("pause", "stop a job after its layer, until resume");
  add_named("resume", "queue a paused job again");
  add_named("retry", "queue a failed or cancelled job again");
  add_named("delete", "forget a job that has ended");
  add_named("report", "the report of a job")
      ->add_option("--html", flags_.report_file, "also write it as a page to this file");
  AddCommand(app, "list", "all jobs, newest first")
      ->add_option("--filter", flags_.filter, "such as \"state = RUNNING AND labels.team = x\"");
  AddCommand(app, "pools", "pools and what they do");
  AddCommand(app, "backup", "a copy of the coordinator's job store; for administrators")
      ->add_option("FILE", flags_.backup_file, "replaced when it exists")
      ->required();
}

bool JobCommands::Has(const std::string& command) const {
  static const char* const kCommands[] = {"submit", "get",    "list",   "watch",
                                          "cancel", "pause",  "resume", "retry",
                                          "delete", "report", "pools",  "backup"};
  return std::find(std::begin(kCommands), std::end(kCommands), command) != std::end(kCommands);
}

int JobCommands::Run(const std::string& command) {
  for (const std::string& file : ReadableByOthers(flags_.channel)) {
    std::cerr << "llmc: warning: " << EscapeForTerminal(file)
              << ": others may read this secret; chmod 600 it\n";
  }
  const auto channel = CoordinatorChannel::Open(flags_.channel);
  absl::Status status = WithReason(kUsage, channel.status());
  if (status.ok()) {
    const absl::StatusOr<int> code = Client(**channel, flags_, *output_).Run(command);
    if (code.ok()) return *code;
    status = code.status();
    if (ClientExitCode(status) == kExitUnreachable) {
      status = WithReason(ReasonOf(status), At(flags_.channel.address, status));
    }
  }
  if (output_->json) {
    const nlohmann::json error = {{"error",
                                   {{"code", absl::StatusCodeToString(status.code())},
                                    {"reason", ReasonOf(status)},
                                    {"message", std::string(status.message())}}}};
    std::cout << error.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
  }
  std::cerr << "llmc: error:";
  for (absl::string_view line : absl::StrSplit(status.message(), '\n')) {
    std::cerr << " " << EscapeForTerminal(line) << "\n";
  }
  return ClientExitCode(status);
}

}  // namespace llmc
