#include "service/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "control/transition.h"
#include "report/step_stream.h"
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
constexpr const char* kMethods[] = {"calibrated", "data_free"};
// How a linear was changed; others are counted as "other".
constexpr const char* kSolvers[] = {"GPTQ", "RTN", "SparseGPT", "Wanda", "magnitude", "other"};

std::string MethodOf(const v1::Job& job) {
  return job.plan().calibrated() ? "calibrated" : "data_free";
}

double Seconds(const google::protobuf::Timestamp& time) {
  return static_cast<double>(time.seconds()) + time.nanos() * 1e-9;
}

template <size_t N>
bool IsOneOf(const char* const (&names)[N], absl::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

// Of "SparseGPT + GPTQ" the last one. Text from a worker never becomes a label.
std::string SolverOf(const SolveNote& note) {
  const std::vector<std::string> words = absl::StrSplit(note.method, ' ');
  return IsOneOf(kSolvers, words.back()) ? words.back() : "other";
}

std::string PriorityBand(int priority) {
  return priority < 50 ? "low" : priority > 50 ? "high" : "normal";
}

// The reason label of a job that goes back to the queue: a word, never text.
std::string RequeueReason(const v1::StateChange& change) {
  if (!change.error().reason().empty() && change.reason() == change.error().message()) {
    return change.error().reason();
  }
  if (change.from() == v1::JOB_STATE_PAUSED) return "RESUMED";
  return "DRAINED";
}

// Makes families in a registry, which outlives it.
class FamilyMaker {
 public:
  explicit FamilyMaker(prometheus::Registry& registry) : registry_(registry) {}

 protected:
  CounterFamily& Counters(const char* name, const char* help) {
    return BuildCounter().Name(name).Help(help).Register(registry_);
  }
  GaugeFamily& Gauges(const char* name, const char* help) {
    return BuildGauge().Name(name).Help(help).Register(registry_);
  }
  HistogramFamily& Histograms(const char* name, const char* help) {
    return BuildHistogram().Name(name).Help(help).Register(registry_);
  }

 private:
  prometheus::Registry& registry_;
};

}  // namespace

// Families that live as long as the coordinator.
struct Metrics::Families : FamilyMaker {
  using FamilyMaker::FamilyMaker;

  GaugeFamily& jobs = Gauges("llmc_jobs", "Jobs by state.");
  CounterFamily& submitted = Counters("llmc_jobs_submitted_total", "Jobs that were queued.");
  CounterFamily& finished = Counters("llmc_jobs_finished_total", "Jobs that ended, by state.");
  HistogramFamily& duration =
      Histograms("llmc_job_duration_seconds", "From the first start of a job to its end.");
  HistogramFamily& queue_wait =
      Histograms("llmc_job_queue_wait_seconds", "From the submit of a job to its first lease.");
  GaugeFamily& oldest = Gauges("llmc_queue_oldest_submit_timestamp_seconds",
                               "When the oldest queued job was submitted; 0: none.");
  CounterFamily& requeues =
      Counters("llmc_job_requeues_total", "Jobs that went back to the queue, by reason.");
  GaugeFamily& pools = Gauges("llmc_pools", "Attached pools.");
  CounterFamily& renewals =
      Counters("llmc_lease_renewals_total", "Heartbeats that named a lease, by result.");
  GaugeFamily& watchers = Gauges("llmc_watch_streams", "Open WatchJob streams.");
  HistogramFamily& commits =
      Histograms("llmc_store_commit_duration_seconds", "Durable commits of the job store.");
  GaugeFamily& store_size = Gauges("llmc_store_size_bytes", "Files of the job store.");
  GaugeFamily& store_failing =
      Gauges("llmc_store_failing", "1 when the last write of the job store failed.");
  GaugeFamily& state_volume =
      Gauges("llmc_state_volume_bytes", "The file system that holds the job store.");
  CounterFamily& auth_failures =
      Counters("llmc_auth_failures_total", "Calls that were refused, by reason.");
  GaugeFamily& certificate = Gauges("llmc_tls_certificate_expiry_timestamp_seconds",
                                    "When the server's certificate ends.");
  CounterFamily& handled = Counters("grpc_server_handled_total", "Calls that ended, by code.");
  HistogramFamily& handling = Histograms("grpc_server_handling_seconds", "Time that calls took.");
  CounterFamily& layers = Counters("llmc_layers_completed_total", "Layers that became durable.");
  HistogramFamily& steps =
      Histograms("llmc_layer_duration_seconds", "Time of one step of one layer on one rank.");
  HistogramFamily& errors =
      Histograms("llmc_layer_relative_error_ratio", "Relative output error of a solved linear.");
  CounterFamily& anomalies = Counters("llmc_numeric_anomalies_total",
                                      "Linears that fell back to rounding, errors not finite.");
  CounterFamily& warnings = Counters("llmc_rank_warnings_total", "Warnings of ranks.");
  GaugeFamily& build = Gauges("llmc_build_info", "Always 1.");
  GaugeFamily& memory = Gauges("process_resident_memory_bytes", "Of this coordinator.");
  CounterFamily& cpu = Counters("process_cpu_seconds_total", "Of this coordinator.");
  GaugeFamily& descriptors = Gauges("process_open_fds", "Of this coordinator.");
  GaugeFamily& started = Gauges("process_start_time_seconds", "When this coordinator began.");

  // When the steps that are running now began: job, rank and step -> seconds.
  std::map<std::string, double> begun;
};

namespace {

// Families that name pools: made anew for every page, so that they go when a pool goes.
class PoolFamilies : FamilyMaker {
 public:
  using FamilyMaker::FamilyMaker;

  void Add(const v1::Pool& pool, const absl::StatusOr<v1::Job>& job) {
    int silent = 0;
    for (const v1::PoolRank& rank : pool.ranks()) {
      silent += rank.silent() ? 1 : 0;
      AddRank({{"pool", pool.name()}, {"rank", absl::StrCat(rank.rank())}}, rank);
    }
    SetGauge(ranks_, {{"pool", pool.name()}, {"state", "silent"}}, silent);
    SetGauge(ranks_, {{"pool", pool.name()}, {"state", "alive"}}, pool.ranks_size() - silent);
    if (!job.ok()) return;
    SetGauge(job_, {{"pool", pool.name()}, {"job_id", std::string(JobIdOf(job->name()))}}, 1);
    SetGauge(last_progress_, {{"pool", pool.name()}}, Seconds(job->update_time()));
    if (job->progress().num_layers() == 0) return;
    SetGauge(progress_, {{"pool", pool.name()}},
             static_cast<double>(job->progress().layers_done()) /
                 static_cast<double>(job->progress().num_layers()));
  }

 private:
  using Labels = std::map<std::string, std::string>;

  static void SetGauge(GaugeFamily& family, const Labels& labels, double value) {
    family.Add(labels).Set(value);
  }
  static void SetCounter(CounterFamily& family, Labels labels, const Labels& more, double value) {
    labels.insert(more.begin(), more.end());
    family.Add(labels).Increment(value);
  }

  void AddRank(const Labels& rank_labels, const v1::PoolRank& rank) {
    Labels labels = rank_labels;
    labels["kind"] = "used";
    SetGauge(memory_, labels, static_cast<double>(rank.rss_bytes()));
    labels["kind"] = "limit";
    SetGauge(memory_, labels, static_cast<double>(rank.memory_bytes()));
    const v1::RankCounters& counters = rank.counters();
    const auto bytes = [&](CounterFamily& family, int64_t count, const Labels& more = {}) {
      SetCounter(family, rank_labels, more, static_cast<double>(count));
    };
    SetCounter(cpu_, rank_labels, {}, counters.cpu_seconds());
    bytes(tokens_, counters.calibration_tokens());
    bytes(model_read_, counters.model_read_bytes());
    bytes(output_written_, counters.output_written_bytes());
    bytes(offload_, counters.spill_read_bytes(), {{"direction", "read"}});
    bytes(offload_, counters.spill_written_bytes(), {{"direction", "write"}});
    double waited = 0;
    for (const v1::CollectiveCounters& operation : counters.collectives()) {
      if (!IsOneOf(kOperations, operation.operation())) continue;
      const Labels op = {{"op", operation.operation()}};
      SetCounter(collective_seconds_, rank_labels, op, operation.seconds());
      bytes(collective_bytes_, operation.bytes(), op);
      waited += operation.seconds();
    }
    SetCounter(wait_, rank_labels, {}, waited);
  }

  static constexpr const char* kOperations[] = {"reduce", "broadcast", "gather", "barrier"};

  GaugeFamily& ranks_ = Gauges("llmc_pool_ranks", "Ranks of a pool, by state.");
  GaugeFamily& job_ = Gauges("llmc_pool_job_info", "1 for the job that a pool works on.");
  GaugeFamily& progress_ =
      Gauges("llmc_pool_job_progress_ratio", "Layers done of the job that a pool works on.");
  GaugeFamily& last_progress_ = Gauges("llmc_pool_job_last_progress_timestamp_seconds",
                                       "When the job that a pool works on last went on.");
  GaugeFamily& memory_ =
      Gauges("llmc_host_memory_bytes", "Resident memory of a rank, and what it may use.");
  CounterFamily& cpu_ = Counters("llmc_rank_cpu_seconds_total", "Processor time of a rank.");
  CounterFamily& tokens_ =
      Counters("llmc_calibration_tokens_total", "Tokens that a rank ran through a layer.");
  CounterFamily& model_read_ =
      Counters("llmc_model_read_bytes_total", "Of checkpoints, by a rank.");
  CounterFamily& output_written_ =
      Counters("llmc_output_written_bytes_total", "Of weight files, by a rank.");
  CounterFamily& offload_ =
      Counters("llmc_offload_bytes_total", "Activations that did not fit into a rank's memory.");
  CounterFamily& collective_seconds_ =
      Counters("llmc_collective_seconds_total", "Time of a rank in operations between ranks.");
  CounterFamily& collective_bytes_ = Counters(
      "llmc_collective_bytes_total", "Bytes that a rank passed into operations between ranks.");
  CounterFamily& wait_ =
      Counters("llmc_rank_wait_seconds_total",
               "Time of a rank in all operations between ranks: a straggler waits least.");
};

}  // namespace

Metrics::Metrics()
    : registry_(std::make_unique<prometheus::Registry>()),
      families_(std::make_unique<Families>(*registry_)) {
  Families& all = *families_;
  all.build.Add({{"version", "0.1.0"}, {"component", "coordinator"}}).Set(1);
  all.started.Add({}).Set(static_cast<double>(time(nullptr)));
  for (const char* method : kMethods) {
    all.submitted.Add({{"method", method}});
    all.layers.Add({{"method", method}});
    for (const char* state : {"SUCCEEDED", "FAILED", "CANCELLED"}) {
      all.finished.Add({{"method", method}, {"state", state}});
      all.duration.Add({{"method", method}, {"state", state}}, kJobSeconds);
    }
    for (const char* step : kSteps) {
      all.steps.Add({{"method", method}, {"phase", step}}, kStepSeconds);
    }
  }
  for (const char* band : {"low", "normal", "high"}) {
    all.queue_wait.Add({{"priority", band}}, kJobSeconds);
  }
  for (const char* reason : {"LEASE_EXPIRED", "DRAINED", "RESUMED"}) {
    all.requeues.Add({{"reason", reason}});
  }
  for (const char* reason : {"TOKEN_MISSING", "TOKEN_UNKNOWN", "ROLE_MISSING", "RATE_LIMITED"}) {
    all.auth_failures.Add({{"reason", reason}});
  }
  for (const char* result : {"ok", "stale"}) all.renewals.Add({{"result", result}});
  for (const char* solver : kSolvers) all.errors.Add({{"method", solver}}, kErrorFracs);
  for (const char* kind : {"fallback", "not_finite"}) all.anomalies.Add({{"kind", kind}});
  all.warnings.Add({});
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
  if (event.has_steps()) return CountSteps(record.job(), event.steps());
  const v1::StateChange& moved = event.state_change();
  const v1::Job& job = record.job();
  const std::string method = MethodOf(job);
  const double now = Seconds(event.time());
  if (moved.from() == v1::JOB_STATE_UNSPECIFIED) {
    families_->submitted.Add({{"method", method}}).Increment();
  } else if (moved.to() == v1::JOB_STATE_QUEUED) {
    families_->requeues.Add({{"reason", RequeueReason(moved)}}).Increment();
  } else if (moved.to() == v1::JOB_STATE_LEASED && job.attempt() == 1) {
    families_->queue_wait.Add({{"priority", PriorityBand(job.priority())}}, kJobSeconds)
        .Observe(now - Seconds(job.create_time()));
  }
  if (!IsEnd(moved.to())) return;
  const std::string state(StateName(moved.to()));
  families_->finished.Add({{"method", method}, {"state", state}}).Increment();
  if (!job.has_start_time()) return;
  families_->duration.Add({{"method", method}, {"state", state}}, kJobSeconds)
      .Observe(now - Seconds(job.start_time()));
}

void Metrics::CountStepEnd(const std::string& method, const v1::StepRecord& step,
                           const std::string& key) {
  const auto begun = families_->begun.find(key);
  if (begun == families_->begun.end()) return;
  const double seconds = step.time_seconds() - begun->second;
  families_->begun.erase(begun);
  if (IsOneOf(kSteps, step.step())) {
    families_->steps.Add({{"method", method}, {"phase", step.step()}}, kStepSeconds)
        .Observe(seconds);
  }
  const bool layer_done = step.step() == "Write" && step.rank() == 0 && step.layer() >= 0;
  if (layer_done) families_->layers.Add({{"method", method}}).Increment();
}

void Metrics::CountSteps(const v1::Job& job, const v1::StepBatch& steps) {
  const std::string method = MethodOf(job);
  for (const v1::StepRecord& step : steps.steps()) {
    const std::string key =
        absl::StrCat(job.name(), " ", step.rank(), " ", step.step(), " ", step.layer());
    if (step.kind() == v1::StepRecord::KIND_BEGIN) {
      families_->begun[key] = step.time_seconds();
    } else if (step.kind() == v1::StepRecord::KIND_LINEAR) {
      const SolveNote note = ParseSolveNote(step.message());
      if (note.is_fallback) families_->anomalies.Add({{"kind", "fallback"}}).Increment();
      if (!std::isfinite(step.output_error())) {
        families_->anomalies.Add({{"kind", "not_finite"}}).Increment();
      } else if (step.output_error() >= 0) {
        families_->errors.Add({{"method", SolverOf(note)}}, kErrorFracs)
            .Observe(step.output_error());
      }
    } else if (step.kind() == v1::StepRecord::KIND_WARNING) {
      families_->warnings.Add({}).Increment();
    } else if (step.kind() == v1::StepRecord::KIND_END) {
      CountStepEnd(method, step, key);
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

void Metrics::SetCertificateExpiry(int64_t seconds) {
  families_->certificate.Add({{"cert", "server"}}).Set(static_cast<double>(seconds));
}

void Metrics::ReadJobs(const ControlPlane& plane) {
  std::map<std::pair<v1::JobState, std::string>, int> counts;
  double oldest = 0;
  plane.Visit([&](const v1::Job& job) {
    ++counts[{job.state(), MethodOf(job)}];
    if (job.state() == v1::JOB_STATE_QUEUED) oldest = Seconds(job.create_time());
  });
  for (int state = v1::JOB_STATE_QUEUED; state <= v1::JOB_STATE_CANCELLED; ++state) {
    const auto typed = static_cast<v1::JobState>(state);
    for (const char* method : kMethods) {
      families_->jobs.Add({{"state", std::string(StateName(typed))}, {"method", method}})
          .Set(counts[{typed, method}]);
    }
  }
  families_->oldest.Add({}).Set(oldest);
}

void Metrics::ReadStore(const ControlPlane& plane) {
  const StoreSize size = plane.store_size();
  families_->store_size.Add({{"file", "db"}}).Set(static_cast<double>(size.database_bytes));
  families_->store_size.Add({{"file", "wal"}}).Set(static_cast<double>(size.wal_bytes));
  families_->store_failing.Add({}).Set(plane.store_failing() ? 1 : 0);
  std::error_code error;
  const std::filesystem::space_info volume = std::filesystem::space(plane.state_dir(), error);
  if (error) return;
  families_->state_volume.Add({{"kind", "free"}}).Set(static_cast<double>(volume.available));
  families_->state_volume.Add({{"kind", "size"}}).Set(static_cast<double>(volume.capacity));
}

void Metrics::ReadProcess() {
  std::ifstream statm("/proc/self/statm");
  int64_t pages = 0;
  statm >> pages >> pages;
  families_->memory.Add({}).Set(static_cast<double>(pages * sysconf(_SC_PAGE_SIZE)));
  timespec cpu{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
  prometheus::Counter& counted = families_->cpu.Add({});
  counted.Increment(static_cast<double>(cpu.tv_sec) + static_cast<double>(cpu.tv_nsec) * 1e-9 -
                    counted.Value());
  std::error_code error;
  int descriptors = 0;
  for (std::filesystem::directory_iterator it("/proc/self/fd", error), end; !error && it != end;
       it.increment(error)) {
    ++descriptors;
  }
  families_->descriptors.Add({}).Set(descriptors);
}

std::string Metrics::Page(const ControlPlane& plane) {
  ReadJobs(plane);
  ReadStore(plane);
  ReadProcess();
  families_->watchers.Add({}).Set(watch_streams_);
  prometheus::Registry of_pools;
  PoolFamilies pools(of_pools);
  int connected = 0;
  // A pool that was started anew may stand beside its lost self for a while.
  std::map<std::string, v1::Pool> by_name;
  for (v1::Pool& pool : plane.Pools()) {
    connected += pool.connected() ? 1 : 0;
    if (pool.connected() || !by_name.contains(pool.name())) by_name[pool.name()] = std::move(pool);
  }
  for (const auto& [name, pool] : by_name) pools.Add(pool, plane.Get(JobIdOf(pool.job())));
  families_->pools.Add({{"state", "connected"}}).Set(connected);
  std::vector<prometheus::MetricFamily> page = registry_->Collect();
  for (prometheus::MetricFamily& family : of_pools.Collect()) page.push_back(std::move(family));
  return prometheus::TextSerializer().Serialize(page);
}

}  // namespace llmc
