#include "service/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>
#include <unistd.h>

#include <fstream>
#include <map>

#include "absl/strings/str_cat.h"
#include "control/transition.h"
#include "service/json_log.h"

namespace llmc {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;
using prometheus::Histogram;
using CounterFamily = prometheus::Family<prometheus::Counter>;
using GaugeFamily = prometheus::Family<prometheus::Gauge>;
using HistogramFamily = prometheus::Family<prometheus::Histogram>;

const Histogram::BucketBoundaries kJobSeconds = {10,   30,    60,    300,   900,   1800,
                                                 3600, 10800, 21600, 43200, 86400, 172800};
const Histogram::BucketBoundaries kCallSeconds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                                  0.1,   0.25,   0.5,   1,    2.5,   10};
const Histogram::BucketBoundaries kStepSeconds = {0.01, 0.05, 0.1, 0.5, 1,   2,
                                                  5,    10,   30,  60,  300, 1800};
const Histogram::BucketBoundaries kErrorFracs = {0.0001, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1};

constexpr const char* kSteps[] = {"Load",      "Capture", "Reduce", "Solve",
                                  "Propagate", "Write",   "Commit", "Verify"};

std::string MethodOf(const v1::Job& job) {
  return job.plan().calibrated() ? "calibrated" : "data_free";
}

double Seconds(const google::protobuf::Timestamp& time) {
  return static_cast<double>(time.seconds()) + time.nanos() * 1e-9;
}

// The reason label of a job that goes back to the queue: a word, never text.
std::string RequeueReason(const v1::StateChange& change) {
  if (!change.error().reason().empty() && change.reason() == change.error().message()) {
    return change.error().reason();
  }
  if (change.from() == v1::JOB_STATE_PAUSED) return "RESUMED";
  return "DRAINED";
}

}  // namespace

struct Metrics::Families {
  prometheus::Registry registry;
  GaugeFamily& jobs = BuildGauge().Name("llmc_jobs").Help("Jobs by state.").Register(registry);
  CounterFamily& submitted = BuildCounter()
                                 .Name("llmc_jobs_submitted_total")
                                 .Help("Jobs that were queued.")
                                 .Register(registry);
  CounterFamily& finished = BuildCounter()
                                .Name("llmc_jobs_finished_total")
                                .Help("Jobs that ended, by state.")
                                .Register(registry);
  HistogramFamily& duration = BuildHistogram()
                                  .Name("llmc_job_duration_seconds")
                                  .Help("From the first start of a job to its end.")
                                  .Register(registry);
  HistogramFamily& queue_wait = BuildHistogram()
                                    .Name("llmc_job_queue_wait_seconds")
                                    .Help("From the submit of a job to its first lease.")
                                    .Register(registry);
  GaugeFamily& oldest = BuildGauge()
                            .Name("llmc_queue_oldest_submit_timestamp_seconds")
                            .Help("When the oldest queued job was submitted; 0: none.")
                            .Register(registry);
  CounterFamily& requeues = BuildCounter()
                                .Name("llmc_job_requeues_total")
                                .Help("Jobs that went back to the queue, by reason.")
                                .Register(registry);
  GaugeFamily& pools = BuildGauge().Name("llmc_pools").Help("Attached pools.").Register(registry);
  GaugeFamily& pool_ranks =
      BuildGauge().Name("llmc_pool_ranks").Help("Ranks of a pool, by state.").Register(registry);
  GaugeFamily& pool_job = BuildGauge()
                              .Name("llmc_pool_job_info")
                              .Help("1 for the job that a pool works on.")
                              .Register(registry);
  GaugeFamily& pool_progress = BuildGauge()
                                   .Name("llmc_pool_job_progress_ratio")
                                   .Help("Layers done of the job that a pool works on.")
                                   .Register(registry);
  GaugeFamily& pool_memory = BuildGauge()
                                 .Name("llmc_host_memory_bytes")
                                 .Help("Resident memory of a rank.")
                                 .Register(registry);
  CounterFamily& renewals = BuildCounter()
                                .Name("llmc_lease_renewals_total")
                                .Help("Heartbeats that named a lease, by result.")
                                .Register(registry);
  GaugeFamily& watchers =
      BuildGauge().Name("llmc_watch_streams").Help("Open WatchJob streams.").Register(registry);
  HistogramFamily& commits = BuildHistogram()
                                 .Name("llmc_store_commit_duration_seconds")
                                 .Help("Durable commits of the job store.")
                                 .Register(registry);
  GaugeFamily& store_size =
      BuildGauge().Name("llmc_store_size_bytes").Help("Files of the job store.").Register(registry);
  CounterFamily& auth_failures = BuildCounter()
                                     .Name("llmc_auth_failures_total")
                                     .Help("Calls that were refused, by reason.")
                                     .Register(registry);
  CounterFamily& handled = BuildCounter()
                               .Name("grpc_server_handled_total")
                               .Help("Calls that ended, by code.")
                               .Register(registry);
  HistogramFamily& handling = BuildHistogram()
                                  .Name("grpc_server_handling_seconds")
                                  .Help("Time that calls took.")
                                  .Register(registry);
  CounterFamily& layers = BuildCounter()
                              .Name("llmc_layers_completed_total")
                              .Help("Layers that became durable.")
                              .Register(registry);
  HistogramFamily& steps = BuildHistogram()
                               .Name("llmc_layer_duration_seconds")
                               .Help("Time of one step of one layer on one rank.")
                               .Register(registry);
  HistogramFamily& errors = BuildHistogram()
                                .Name("llmc_layer_relative_error_ratio")
                                .Help("Relative output error of a solved linear.")
                                .Register(registry);
  GaugeFamily& build = BuildGauge().Name("llmc_build_info").Help("Always 1.").Register(registry);
  GaugeFamily& memory = BuildGauge()
                            .Name("process_resident_memory_bytes")
                            .Help("Of this coordinator.")
                            .Register(registry);
  GaugeFamily& started = BuildGauge()
                             .Name("process_start_time_seconds")
                             .Help("When this coordinator began.")
                             .Register(registry);

  // When the steps that are running now began: job, rank and step -> seconds.
  std::map<std::string, double> begun;
};

Metrics::Metrics() : families_(std::make_unique<Families>()) {
  families_->build.Add({{"version", "0.1.0"}, {"component", "coordinator"}}).Set(1);
  families_->started.Add({}).Set(static_cast<double>(time(nullptr)));
  for (const char* method : {"calibrated", "data_free"}) {
    families_->submitted.Add({{"method", method}});
    for (const char* state : {"SUCCEEDED", "FAILED", "CANCELLED"}) {
      families_->finished.Add({{"method", method}, {"state", state}});
    }
  }
  for (const char* reason : {"LEASE_EXPIRED", "DRAINED", "RESUMED"}) {
    families_->requeues.Add({{"reason", reason}});
  }
  for (const char* result : {"ok", "stale"}) families_->renewals.Add({{"result", result}});
  families_->layers.Add({});
}

Metrics::~Metrics() = default;

void Metrics::OnChange(const Change& change, std::chrono::duration<double> commit_time) {
  LogChange(change);
  families_->commits.Add({{"op", "write"}}, kCallSeconds).Observe(commit_time.count());
  for (const auto& [id, event] : change.events) {
    const auto record = change.jobs.find(id);
    if (record != change.jobs.end()) CountEvent(record->second, event);
  }
}

void Metrics::CountEvent(const store::v1::JobRecord& record, const v1::JobEvent& event) {
  if (event.has_steps()) return CountSteps(event.steps());
  const v1::StateChange& moved = event.state_change();
  const v1::Job& job = record.job();
  const std::string method = MethodOf(job);
  const double now = Seconds(event.time());
  if (moved.from() == v1::JOB_STATE_UNSPECIFIED) {
    families_->submitted.Add({{"method", method}}).Increment();
  } else if (moved.to() == v1::JOB_STATE_QUEUED) {
    families_->requeues.Add({{"reason", RequeueReason(moved)}}).Increment();
  } else if (moved.to() == v1::JOB_STATE_LEASED && job.attempt() == 1) {
    families_->queue_wait.Add({}, kJobSeconds).Observe(now - Seconds(job.create_time()));
  }
  if (!IsEnd(moved.to())) return;
  const std::string state(StateName(moved.to()));
  families_->finished.Add({{"method", method}, {"state", state}}).Increment();
  if (!job.has_start_time()) return;
  families_->duration.Add({{"method", method}, {"state", state}}, kJobSeconds)
      .Observe(now - Seconds(job.start_time()));
}

void Metrics::CountSteps(const v1::StepBatch& steps) {
  for (const v1::StepRecord& step : steps.steps()) {
    const std::string key = absl::StrCat(step.rank(), " ", step.step(), " ", step.layer());
    if (step.kind() == v1::StepRecord::KIND_BEGIN) {
      families_->begun[key] = step.time_seconds();
    } else if (step.kind() == v1::StepRecord::KIND_LINEAR) {
      families_->errors.Add({}, kErrorFracs).Observe(step.output_error());
    } else if (step.kind() == v1::StepRecord::KIND_END) {
      const auto begun = families_->begun.find(key);
      if (begun == families_->begun.end()) continue;
      const double seconds = step.time_seconds() - begun->second;
      families_->begun.erase(begun);
      bool known = false;
      for (const char* name : kSteps) known |= step.step() == name;
      if (known) families_->steps.Add({{"phase", step.step()}}, kStepSeconds).Observe(seconds);
      const bool layer_done = step.step() == "Write" && step.rank() == 0 && step.layer() >= 0;
      if (layer_done) families_->layers.Add({}).Increment();
    }
  }
  // Steps whose end never came (a pool was lost) must not pile up.
  if (families_->begun.size() > 100'000) families_->begun.clear();
}

void Metrics::CountCall(const CallEnd& call, double seconds) {
  families_->handled
      .Add({{"grpc_service", call.service}, {"grpc_method", call.method}, {"grpc_code", call.code}})
      .Increment();
  families_->handling
      .Add({{"grpc_service", call.service}, {"grpc_method", call.method}}, kCallSeconds)
      .Observe(seconds);
}

void Metrics::CountAuthFailure(const std::string& reason) {
  families_->auth_failures.Add({{"reason", reason}}).Increment();
}

void Metrics::CountRenewal(bool valid) {
  families_->renewals.Add({{"result", valid ? "ok" : "stale"}}).Increment();
}

std::string Metrics::Page(const ControlPlane& plane) {
  // Gauges that name pools or jobs live in a registry of their own, so that they go
  // when the pool goes.
  Families now;
  std::map<v1::JobState, int> counts;
  double oldest = 0;
  Coordinator::Position last;
  (void)plane.List(
      std::nullopt, SIZE_MAX,
      [&](const v1::Job& job) {
        ++counts[job.state()];
        if (job.state() == v1::JOB_STATE_QUEUED) oldest = Seconds(job.create_time());
        return false;
      },
      &last);
  for (int state = v1::JOB_STATE_QUEUED; state <= v1::JOB_STATE_CANCELLED; ++state) {
    const auto typed = static_cast<v1::JobState>(state);
    families_->jobs.Add({{"state", std::string(StateName(typed))}}).Set(counts[typed]);
  }
  families_->oldest.Add({}).Set(oldest);
  families_->watchers.Add({}).Set(watch_streams_);
  const StoreSize size = plane.store_size();
  families_->store_size.Add({{"file", "db"}}).Set(static_cast<double>(size.database_bytes));
  families_->store_size.Add({{"file", "wal"}}).Set(static_cast<double>(size.wal_bytes));
  std::ifstream statm("/proc/self/statm");
  int64_t pages = 0;
  statm >> pages >> pages;
  families_->memory.Add({}).Set(static_cast<double>(pages * sysconf(_SC_PAGE_SIZE)));
  int connected = 0;
  for (const v1::Pool& pool : plane.Pools()) {
    connected += pool.connected() ? 1 : 0;
    int silent = 0;
    for (const v1::PoolRank& rank : pool.ranks()) {
      silent += rank.silent() ? 1 : 0;
      now.pool_memory.Add({{"pool", pool.name()}, {"rank", absl::StrCat(rank.rank())}})
          .Set(static_cast<double>(rank.rss_bytes()));
    }
    now.pool_ranks.Add({{"pool", pool.name()}, {"state", "silent"}}).Set(silent);
    now.pool_ranks.Add({{"pool", pool.name()}, {"state", "alive"}}).Set(pool.ranks_size() - silent);
    if (pool.job().empty()) continue;
    now.pool_job.Add({{"pool", pool.name()}, {"job_id", pool.job()}}).Set(1);
    const absl::StatusOr<v1::Job> job = plane.Get(JobIdOf(pool.job()));
    if (!job.ok() || job->progress().num_layers() == 0) continue;
    now.pool_progress.Add({{"pool", pool.name()}})
        .Set(static_cast<double>(job->progress().layers_done()) /
             static_cast<double>(job->progress().num_layers()));
  }
  families_->pools.Add({{"state", "connected"}}).Set(connected);
  std::vector<prometheus::MetricFamily> page = families_->registry.Collect();
  for (prometheus::MetricFamily& family : now.registry.Collect()) {
    const bool per_pool = !family.metric.empty();
    if (per_pool) page.push_back(std::move(family));
  }
  return prometheus::TextSerializer().Serialize(page);
}

}  // namespace llmc
