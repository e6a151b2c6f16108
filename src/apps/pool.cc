#include "apps/pool.h"

#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "apps/rank_counters.h"
#include "checkpoint/journal.h"
#include "client/rank_beat.h"
#include "client/worker_session.h"
#include "control/partition.h"
#include "control/transition.h"
#include "google/protobuf/util/message_differencer.h"
#include "llmc/parallel.h"
#include "nlohmann/json.hpp"
#include "pipeline/run.h"
#include "pipeline/step_clock.h"
#include "report/run_report.h"
#include "rpc/allowed_roots.h"
#include "rpc/job_messages.h"
#include "rpc/plan_summary.h"

namespace llmc {
namespace {

using std::chrono::milliseconds;

void Log(const std::string& level, const std::string& message,
         const nlohmann::ordered_json& fields) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const int64_t millis = std::chrono::duration_cast<milliseconds>(now).count();
  nlohmann::ordered_json line = {{"time", absl::StrFormat("%d.%03d", millis / 1000, millis % 1000)},
                                 {"level", level},
                                 {"message", message}};
  if (fields.is_object()) line.update(fields);
  const std::string text =
      line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  std::fputs(text.c_str(), stderr);
}

std::string HostName() {
  char host[256] = {};
  gethostname(host, sizeof(host) - 1);
  return host;
}

std::string RandomInstance() {
  std::random_device device;
  return absl::StrFormat("%08x%08x%08x%08x", device(), device(), device(), device());
}

std::string PoolName(const PoolOptions& options) {
  if (!options.name.empty()) return options.name;
  // A requeued batch job attaches as the same pool.
  if (const char* id = std::getenv("SLURM_JOB_ID"); id != nullptr)
    return absl::StrCat("slurm-", id);
  return absl::StrCat(HostName(), "-", getpid());
}

v1::PoolRank DescribeRank(const Collective& collective) {
  v1::PoolRank rank;
  rank.set_rank(collective.rank());
  rank.set_host(HostName());
  rank.set_pid(getpid());
  rank.set_device("cpu");
  rank.set_memory_bytes(static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE) /
                        collective.ranks_on_host());
  rank.set_num_threads(NumThreads());
  return rank;
}

// Rank 0's text on every rank.
absl::Status Share(Collective& collective, std::string& text) {
  LLMC_ASSIGN_OR_RETURN(const std::vector<std::string> all, collective.AllGatherStrings(text));
  text = all[0];
  return absl::OkStatus();
}

// Which end of an attempt a status is.
v1::Outcome OutcomeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return v1::OUTCOME_SUCCEEDED;
    case absl::StatusCode::kCancelled:
      return v1::OUTCOME_STOPPED;
    case absl::StatusCode::kFailedPrecondition:
      if (absl::StrContains(status.message(), kOutputBusy)) return v1::OUTCOME_BUSY;
      return v1::OUTCOME_FAILED;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kDataLoss:
      return v1::OUTCOME_FAILED;
    default:
      return v1::OUTCOME_RETRY;
  }
}

// Of a pool that does one job. A job that was paused, cancelled or given back is no
// reason to start the pool again.
int ExitCodeOf(v1::Outcome outcome) {
  if (outcome == v1::OUTCOME_SUCCEEDED || outcome == v1::OUTCOME_STOPPED) return kExitDrained;
  return outcome == v1::OUTCOME_FAILED ? kExitFailed : kExitTryAgain;
}

// The paths may have changed since the coordinator looked at them.
absl::Status CheckPaths(const v1::JobSpec& spec, const std::vector<std::string>& allow_roots) {
  if (allow_roots.empty()) return absl::OkStatus();
  LLMC_ASSIGN_OR_RETURN(const AllowedRoots roots, AllowedRoots::Open(allow_roots));
  LLMC_RETURN_IF_ERROR(roots.ExistingTree(spec.model()).status());
  for (const auto* paths : {&spec.datasets(), &spec.eval_datasets()}) {
    for (const std::string& path : *paths) {
      LLMC_RETURN_IF_ERROR(roots.ExistingTree(path).status());
    }
  }
  return roots.Creatable(spec.output()).status();
}

class Pool {
 public:
  Pool(const PoolOptions& options, Collective& collective, const std::atomic<bool>& stop)
      : options_(options), collective_(collective), stop_(stop) {}

  int Run() {
    const absl::Status started = collective_.AgreeOnStatus(Start());
    if (!started.ok()) {
      Log("error", std::string(started.message()), {{"rank", collective_.rank()}});
      return kExitBadConfiguration;
    }
    const absl::Status joined = Join();
    if (!joined.ok()) return Broken(joined);
    for (;;) {
      std::string command = is_leader() ? NextCommand() : "";
      if (const absl::Status shared = Share(collective_, command); !shared.ok()) {
        return Broken(shared);
      }
      if (command == "wait") continue;
      if (absl::StartsWith(command, "exit ")) return End(std::stoi(command.substr(5)));
      v1::LeaseOffer offer;
      offer.ParseFromString(command.substr(4));
      if (const absl::Status sound = RunOffer(offer); !sound.ok()) return Broken(sound);
    }
  }

 private:
  bool is_leader() const { return collective_.rank() == 0; }

  absl::Status Start() {
    for (const std::string& file : ReadableByOthers(options_.channel)) {
      Log("warning", absl::StrCat(file, ": others may read this secret; chmod 600 it"), {});
    }
    LLMC_ASSIGN_OR_RETURN(channel_, CoordinatorChannel::Open(options_.channel));
    return absl::OkStatus();
  }

  // Makes the ranks known and begins to report them.
  absl::Status Join() {
    instance_ = is_leader() ? RandomInstance() : "";
    LLMC_RETURN_IF_ERROR(Share(collective_, instance_));
    LLMC_ASSIGN_OR_RETURN(
        const std::vector<std::string> ranks,
        collective_.GatherStrings(DescribeRank(collective_).SerializeAsString(), 0));
    const auto fence = [this](const std::string& why) { Fence(why); };
    if (is_leader()) {
      WorkerSessionOptions session;
      session.attach.set_pool(PoolName(options_));
      session.attach.set_instance(instance_);
      session.attach.set_version("0.1.0");
      for (const std::string& rank : ranks) session.attach.add_ranks()->ParseFromString(rank);
      session.on_stop = [this](v1::StopReason) { job_stop_ = true; };
      session.on_fence = fence;
      session_ = std::make_unique<WorkerSession>(*channel_, std::move(session));
    }
    RankBeatOptions beat;
    beat.instance = instance_;
    beat.rank = collective_.rank();
    beat.interval = milliseconds(options_.beat_interval_ms);
    beat.resident_bytes = [] { return ResidentBytes(); };
    beat.counters = [] { return ReadRankCounters(); };
    beat.on_fence = fence;
    beat_ = std::make_unique<RankBeat>(*channel_, std::move(beat));
    return absl::OkStatus();
  }

  // No rank may write any more, and this one cannot ask the others: end them all.
  [[noreturn]] void Fence(const std::string& why) {
    Log("error", why, {{"rank", collective_.rank()}, {"job", std::string(JobIdOf(job_name_))}});
    // mpirun drops what it has not read when its world ends.
    std::this_thread::sleep_for(milliseconds(300));
    collective_.Abort(why);
    _exit(kExitTryAgain);
  }

  // A collective operation has failed: nothing can be agreed on any more.
  int Broken(const absl::Status& status) {
    Log("error", std::string(status.message()), {{"rank", collective_.rank()}});
    _exit(kExitTryAgain);
  }

  // "wait", "exit CODE" or "job " with the offer.
  std::string NextCommand() {
    if (stop_) return absl::StrCat("exit ", kExitDrained);
    if (options_.once && jobs_done_ > 0) return absl::StrCat("exit ", last_code_);
    if (!session_->fatal().ok()) {
      Log("error", std::string(session_->fatal().message()), nlohmann::json::object());
      return absl::StrCat("exit ", kExitBadConfiguration);
    }
    const milliseconds give_up(static_cast<int64_t>(options_.give_up_s * 1000));
    if (options_.give_up_s > 0 && !session_->HeardWithin(give_up)) {
      return absl::StrCat("exit ", kExitCoordinatorLost);
    }
    const std::optional<v1::LeaseOffer> offer = session_->WaitForOffer(milliseconds(300));
    return offer ? absl::StrCat("job ", offer->SerializeAsString()) : "wait";
  }

  int End(int code) {
    if (session_ != nullptr) session_->Goodbye();
    return code;
  }

  // Warnings, and what every finished step of a layer took.
  void LogStep(const StepEvent& event) {
    const bool is_warning = event.kind == StepEvent::Kind::kWarning;
    if (event.kind == StepEvent::Kind::kBegin) step_begin_s_[event.step] = event.time_s;
    if (!is_warning && (event.kind != StepEvent::Kind::kEnd || event.layer < 0)) return;
    nlohmann::ordered_json fields = {{"job", std::string(JobIdOf(job_name_))},
                                     {"rank", event.rank},
                                     {"step", std::string(StepName(event.step))},
                                     {"layer", event.layer}};
    if (!is_warning)
      fields["seconds"] = std::round(1e3 * (event.time_s - step_begin_s_[event.step])) / 1e3;
    Log(is_warning ? "warning" : "info", is_warning ? event.message : "step done", fields);
  }

  void AddStep(const StepEvent& event) {
    LogStep(event);
    // A signal to any one rank ends the job after its layer.
    if (stop_) job_stop_ = true;
    if (is_leader()) {
      session_->AddStep(ToStepRecord(event));
    } else {
      beat_->AddStep(ToStepRecord(event));
    }
  }

  // The work is done as the coordinator has cut it, or not at all.
  absl::Status CheckPlan(const v1::LeaseOffer& offer, const Plan& plan) const {
    const v1::PlanSummary found = MakePlanSummary(plan, ToJob(offer.spec()));
    LLMC_RETURN_IF_ERROR(CheckSamePlan(offer.plan(), found));
    const v1::Partition mine = MakePartition(found, collective_.world_size());
    if (google::protobuf::util::MessageDifferencer::Equals(offer.partition(), mine)) {
      return absl::OkStatus();
    }
    return absl::FailedPreconditionError(
        "the coordinator shares the work in another way than this version of llmc-worker");
  }

  RunOptions MakeRunOptions(const v1::LeaseOffer& offer) {
    RunOptions run;
    run.check_plan = [&offer, this](const Plan& plan) { return CheckPlan(offer, plan); };
    run.command_line = absl::StrCat("llmc submit (", job_name_, ")");
    run.stop = &job_stop_;
    run.sink = [this](const StepEvent& event) { AddStep(event); };
    run.may_publish = [this] {
      if (session_->MayPublish()) return absl::OkStatus();
      return absl::CancelledError("the coordinator did not allow the output to be put in place");
    };
    return run;
  }

  // An error means that the ranks can no longer talk to each other.
  absl::Status RunOffer(const v1::LeaseOffer& offer) {
    job_name_ = offer.lease().job();
    job_stop_ = stop_.load();
    beat_->Hold(offer.lease());
    if (is_leader()) {
      Log("info", "begins",
          {{"job", std::string(JobIdOf(job_name_))}, {"incarnation", offer.lease().incarnation()}});
    }
    RunReport report;
    absl::Status status = collective_.AgreeOnStatus(CheckPaths(offer.spec(), options_.allow_roots));
    if (status.ok())
      status = RunJob(ToJob(offer.spec()), collective_, MakeRunOptions(offer), report);
    if (!is_leader()) beat_->Flush(milliseconds(2000));
    beat_->Hold(std::nullopt);
    // Also tells whether the world is whole.
    LLMC_RETURN_IF_ERROR(collective_.Barrier());
    if (is_leader()) ReportEnd(offer, status, report);
    job_name_.clear();
    return absl::OkStatus();
  }

  void ReportEnd(const v1::LeaseOffer& offer, const absl::Status& status, const RunReport& report) {
    v1::Finished finished;
    finished.set_outcome(OutcomeOf(status));
    if (!status.ok()) {
      v1::JobError& error = *finished.mutable_error();
      error.set_code(absl::StatusCodeToString(status.code()));
      error.set_reason(error.code());
      error.set_message(std::string(status.message()));
    }
    if (finished.outcome() != v1::OUTCOME_BUSY) finished.set_report_json(ToJson(report));
    std::error_code ignored;
    finished.set_output_in_place(std::filesystem::exists(
        std::filesystem::path(offer.spec().output()) / "config.json", ignored));
    if (options_.once) last_code_ = ExitCodeOf(finished.outcome());
    ++jobs_done_;
    const bool kept = session_->Finish(finished);
    Log(kept ? "info" : "warning", kept ? "ends" : "ends, but the coordinator was not reached",
        {{"job", std::string(JobIdOf(job_name_))},
         {"outcome", v1::Outcome_Name(finished.outcome())},
         {"status", std::string(status.message())}});
  }

  const PoolOptions& options_;
  Collective& collective_;
  const std::atomic<bool>& stop_;
  std::unique_ptr<CoordinatorChannel> channel_;
  std::unique_ptr<WorkerSession> session_;  // Rank 0.
  std::unique_ptr<RankBeat> beat_;
  std::atomic<bool> job_stop_{false};
  std::string instance_;
  std::string job_name_;
  std::map<Step, double> step_begin_s_;
  int jobs_done_ = 0;
  int last_code_ = kExitDrained;
};

}  // namespace

void AddPoolOptions(CLI::App& app, PoolOptions& options) {
  AddChannelFlags(app, options.channel);
  app.add_option("--name", options.name, "of this pool (default: slurm-JOBID, or host and process)")
      ->envname("LLMC_POOL");
  app.add_flag("--once", options.once, "end after one job");
  app.add_option("--allow-root", options.allow_roots, "directory that job paths may not leave")
      ->envname("LLMC_ALLOW_ROOT");
  app.add_option("--give-up", options.give_up_s,
                 "end with code 69 after so many seconds without the coordinator; 0: never")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--beat-interval-ms", options.beat_interval_ms, "how often every rank reports")
      ->check(CLI::Range(int64_t{10}, int64_t{60'000}))
      ->capture_default_str();
}

int RunPool(const PoolOptions& options, Collective& collective, const std::atomic<bool>& stop) {
  return Pool(options, collective, stop).Run();
}

}  // namespace llmc
