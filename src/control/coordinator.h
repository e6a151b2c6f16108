// Jobs, leases and pools: every decision of the control plane.
//
// No I/O, no clock, no threads: time is an argument. A decision is a const-like
// function that returns the Change it wants; the caller makes the Change durable
// and then calls Apply. A Change that could not be stored is dropped and nothing
// has happened.
//
// Thread-safety: none; the caller holds one lock around decide, store, Apply.
#ifndef LLMC_CONTROL_COORDINATOR_H_
#define LLMC_CONTROL_COORDINATOR_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "control/job_state.h"
#include "llmc/reason.h"
#include "llmc/status.h"
#include "llmc/store/v1/record.pb.h"
#include "llmc/v1/job_service.pb.h"
#include "llmc/v1/worker_service.pb.h"

namespace llmc {

// Leases follow the steady clock, which no one sets; people see the wall clock.
struct Now {
  int64_t steady_ms = 0;
  int64_t wall_ms = 0;  // Since 1970, UTC.
};

struct CoordinatorOptions {
  int64_t lease_ttl_ms = 30'000;
  int64_t heartbeat_interval_ms = 5'000;
  int64_t rank_silence_ms = 8'000;  // A rank that is silent for so long is reported.
  int max_attempts = 5;             // Bad ends of attempts before a job is FAILED.
  int64_t backoff_ms = 10'000;      // After the first bad end; doubles.
  int64_t max_backoff_ms = 600'000;
  int64_t priority_step_ms = 1'800'000;                   // Waiting so long is worth one priority.
  int64_t retention_ms = int64_t{30} * 24 * 3600 * 1000;  // Of ended jobs.
  int64_t max_events_per_job = 20'000;
  int64_t max_jobs = 100'000;  // Jobs that have not ended.
};

// What must be durable before anyone hears of it.
struct Change {
  std::map<std::string, store::v1::JobRecord> jobs;          // Job id -> its new record.
  std::vector<std::pair<std::string, v1::JobEvent>> events;  // Job id and event.
  std::vector<std::string> deleted;                          // Job ids.
  std::map<std::string, std::string> reports;                // Job id -> JSON.
  std::map<std::string, int64_t> not_before_ms;              // Job id -> steady time. Not durable.

  bool empty() const { return jobs.empty() && deleted.empty(); }
};

// A decision about one job.
struct Decision {
  Change change;
  std::string job_id;
};

struct NewJob {
  std::string job_id;  // Unique so far, or as the user chose.
  v1::Job job;         // spec, labels, priority, submitter and plan are used.
  std::string request_id;
  std::string request_digest;
};

struct HeartbeatDecision {
  Change change;
  v1::HeartbeatAck ack;
};

struct LeaseDecision {
  Change change;
  v1::LeaseOffer offer;
};

struct AttachDecision {
  Change change;
  v1::Attached attached;
};

class Coordinator {
 public:
  explicit Coordinator(CoordinatorOptions options) : options_(options) {}

  const CoordinatorOptions& options() const { return options_; }

  // Fills an empty coordinator from the store. Leases begin a full term at `now`.
  void Restore(std::vector<store::v1::JobRecord> records, Now now);

  // Takes a durable Change into memory.
  void Apply(const Change& change, Now now);

  // --- What clients ask. ---
  // The same request_id and digest gives an empty Change and the first job.
  // kAlreadyExists: the id with another body, or job_id is taken.
  // kResourceExhausted: too many jobs.
  absl::StatusOr<Decision> Create(const NewJob& request, Now now) const;
  // `etag` empty: any. kNotFound, kAborted (another etag), kFailedPrecondition.
  absl::StatusOr<Decision> Cancel(absl::string_view id, absl::string_view etag, Now now) const;
  absl::StatusOr<Decision> Pause(absl::string_view id, absl::string_view etag, Now now) const;
  absl::StatusOr<Decision> Resume(absl::string_view id, absl::string_view etag, Now now) const;
  absl::StatusOr<Decision> Retry(absl::string_view id, absl::string_view etag, Now now) const;
  absl::StatusOr<Decision> Delete(absl::string_view id, absl::string_view etag) const;

  const store::v1::JobRecord* Find(absl::string_view id) const;
  // Why no pool works on a queued job yet, for people; "" in other states.
  std::string WaitsFor(const store::v1::JobRecord& record, Now now) const;
  // The job that an earlier request with this id made; null: none.
  const store::v1::JobRecord* FindRequest(absl::string_view request_id) const;
  // The job that has not ended and writes `output`; null: none.
  const store::v1::JobRecord* FindOutput(absl::string_view output) const;
  // Newest first, from the one after (`create_millis`, `id`), until `visit` says no.
  using Position = std::pair<int64_t, std::string>;
  void VisitNewestFirst(const std::optional<Position>& after,
                        const std::function<bool(const store::v1::JobRecord&)>& visit) const;
  std::vector<v1::Pool> Pools(Now now) const;
  size_t num_jobs() const { return jobs_.size(); }

  // --- What pools ask. A pool is known by its instance. ---
  absl::StatusOr<AttachDecision> Attach(const v1::Attach& request, Now now);
  // The session's stream is gone. `goodbye`: the pool said so, its lease ends now.
  Change Detach(absl::string_view instance, bool goodbye, Now now);
  // kNotFound: the instance is not attached.
  absl::StatusOr<HeartbeatDecision> Beat(absl::string_view instance, const v1::Heartbeat& heartbeat,
                                         Now now);
  absl::StatusOr<v1::ReportRankResponse> BeatRank(const v1::ReportRankRequest& request, Now now);
  // The best job for an idle pool, if there is one.
  std::optional<LeaseDecision> NextLease(absl::string_view instance, Now now) const;
  // kAborted: the lease is not this instance's. A batch that was kept gives an
  // empty Change.
  absl::StatusOr<Change> ReportSteps(absl::string_view instance, const v1::ReportSteps& report,
                                     Now now) const;
  // Whether the worker may rename its output into place; a yes is in the Change.
  absl::StatusOr<Decision> AskPublish(absl::string_view instance, const v1::LeaseId& lease, Now now,
                                      bool* granted) const;
  // A job that this incarnation ended before gives an empty Change.
  absl::StatusOr<Change> Finish(absl::string_view instance, const v1::Finished& finished,
                                Now now) const;

  // --- What time brings: expired leases, silent ranks, retention. ---
  Change Tick(Now now);

 private:
  struct Session {
    std::string pool;
    std::vector<v1::PoolRank> ranks;
    std::vector<int64_t> heard_ms;  // Per rank, steady.
    int64_t last_heard_ms = 0;
    bool connected = true;
    bool idle = false;
    bool draining = false;
  };

  absl::StatusOr<store::v1::JobRecord> Copy(absl::string_view id, absl::string_view etag) const;
  absl::StatusOr<store::v1::JobRecord> Leased(absl::string_view instance,
                                              const v1::LeaseId& lease) const;
  const store::v1::JobRecord* HeldBy(absl::string_view instance) const;
  bool Holds(absl::string_view instance, const v1::LeaseId& lease) const;
  // Gives the job back: QUEUED, PAUSED or CANCELLED. `error`: it ended badly and counts.
  void Release(store::v1::JobRecord record, const std::string& reason,
               const std::optional<v1::JobError>& error, Now now, Change& change) const;
  void FailOrRetry(store::v1::JobRecord record, const v1::JobError& error, Now now,
                   Change& change) const;
  // "" or why the pool cannot do the job.
  static std::string Misfit(const v1::Job& job, const Session& session);
  bool IsShunned(const store::v1::JobRecord& record, const Session& session) const;
  double Urgency(const store::v1::JobRecord& record, Now now) const;
  const store::v1::JobRecord* BestFor(const Session& session, Now now) const;
  std::vector<int> SilentRanks(const Session& session, Now now) const;
  int64_t Backoff(int attempts) const;
  void Forget(const std::string& id);

  const CoordinatorOptions options_;
  std::map<std::string, store::v1::JobRecord, std::less<>> jobs_;
  std::set<Position> by_age_;
  std::set<std::string> queued_;
  std::set<std::string> leased_;
  std::map<std::string, std::string, std::less<>> by_request_;  // Request id -> job id.
  std::map<std::string, std::string, std::less<>> by_output_;   // Of jobs that have not ended.
  std::map<std::string, int64_t> lease_end_ms_;                 // Job id -> steady time.
  std::map<std::string, int64_t> not_before_ms_;
  std::map<std::string, int64_t> last_turn_;  // Of each submitter who was served.
  int64_t num_turns_ = 0;
  std::map<std::string, Session, std::less<>> sessions_;  // By instance.
};

}  // namespace llmc

#endif  // LLMC_CONTROL_COORDINATOR_H_
