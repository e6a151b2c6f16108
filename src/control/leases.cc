// The side of the coordinator that pools see.

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "control/coordinator.h"
#include "control/partition.h"
#include "control/transition.h"

namespace llmc {

using store::v1::JobRecord;

namespace {

v1::StopReason StopReasonOf(v1::JobState state) {
  if (state == v1::JOB_STATE_PAUSING) return v1::STOP_REASON_PAUSE;
  if (state == v1::JOB_STATE_CANCELLING) return v1::STOP_REASON_CANCEL;
  return v1::STOP_REASON_UNSPECIFIED;
}

void Start(JobRecord& record, Now now, Change& change) {
  if (!record.job().has_start_time()) {
    *record.mutable_job()->mutable_start_time() = ToTimestamp(now.wall_ms);
  }
  Move(record, v1::JOB_STATE_RUNNING, "the pool has begun", now, change);
}

}  // namespace

bool Coordinator::Holds(absl::string_view instance, const v1::LeaseId& lease) const {
  const JobRecord* record = Find(JobIdOf(lease.job()));
  return record != nullptr && HoldsLease(record->job().state()) &&
         record->lease_instance() == instance && record->job().incarnation() == lease.incarnation();
}

const JobRecord* Coordinator::HeldBy(absl::string_view instance) const {
  for (const std::string& id : leased_) {
    const JobRecord& record = jobs_.find(id)->second;
    if (record.lease_instance() == instance) return &record;
  }
  return nullptr;
}

absl::StatusOr<JobRecord> Coordinator::Leased(absl::string_view instance,
                                              const v1::LeaseId& lease) const {
  if (Holds(instance, lease)) return *Find(JobIdOf(lease.job()));
  return WithReason("LEASE_LOST",
                    absl::AbortedError(absl::StrCat(lease.job(), ": lease ", lease.incarnation(),
                                                    " is no longer this pool's")));
}

absl::StatusOr<AttachDecision> Coordinator::Attach(const v1::Attach& request, Now now) {
  if (request.instance().empty() || request.ranks().empty()) {
    return absl::InvalidArgumentError("attach: expected an instance and at least one rank");
  }
  AttachDecision decision;
  const bool valid = Holds(request.instance(), request.lease());
  // The same run of the pool came back without a lease that was offered to it: the
  // offer was lost on the way, so nobody works on it.
  if (const JobRecord* held = HeldBy(request.instance()); held != nullptr && !valid) {
    Release(*held, "the pool never got the offer", std::nullopt, now, decision.change);
  }
  Session session;
  session.pool = request.pool();
  session.ranks.assign(request.ranks().begin(), request.ranks().end());
  session.heard_ms.assign(session.ranks.size(), now.steady_ms);
  session.last_heard_ms = now.steady_ms;
  sessions_[request.instance()] = std::move(session);
  if (valid) {
    lease_end_ms_[std::string(JobIdOf(request.lease().job()))] =
        now.steady_ms + options_.lease_ttl_ms;
  }
  decision.attached.set_lease_ttl_ms(options_.lease_ttl_ms);
  decision.attached.set_heartbeat_interval_ms(options_.heartbeat_interval_ms);
  decision.attached.set_lease_valid(valid);
  return decision;
}

Change Coordinator::Detach(absl::string_view instance, bool goodbye, Now now) {
  Change change;
  const auto found = sessions_.find(std::string(instance));
  if (found == sessions_.end()) return change;
  found->second.connected = false;
  found->second.idle = false;
  if (!goodbye) return change;
  if (const JobRecord* held = HeldBy(instance); held != nullptr) {
    Release(*held, "the pool said goodbye", std::nullopt, now, change);
  }
  sessions_.erase(found);
  return change;
}

std::vector<int> Coordinator::SilentRanks(const Session& session, Now now) const {
  std::vector<int> silent;
  for (size_t r = 0; r < session.heard_ms.size(); ++r) {
    if (session.heard_ms[r] + options_.rank_silence_ms < now.steady_ms) {
      silent.push_back(static_cast<int>(r));
    }
  }
  return silent;
}

absl::StatusOr<HeartbeatDecision> Coordinator::Beat(absl::string_view instance,
                                                    const v1::Heartbeat& heartbeat, Now now) {
  const auto found = sessions_.find(std::string(instance));
  if (found == sessions_.end()) return absl::NotFoundError("heartbeat: the pool is not attached");
  Session& session = found->second;
  session.last_heard_ms = session.heard_ms[0] = now.steady_ms;
  session.idle = heartbeat.idle();
  session.draining = heartbeat.draining();
  HeartbeatDecision decision;
  decision.ack.set_number(heartbeat.number());
  for (int rank : SilentRanks(session, now)) decision.ack.add_silent_ranks(rank);
  if (!Holds(instance, heartbeat.lease())) {
    if (heartbeat.has_lease()) decision.ack.set_stop(v1::STOP_REASON_LEASE_LOST);
    return decision;
  }
  const std::string id(JobIdOf(heartbeat.lease().job()));
  lease_end_ms_[id] = now.steady_ms + options_.lease_ttl_ms;
  JobRecord record = *Find(id);
  decision.ack.set_lease_valid(true);
  decision.ack.set_stop(StopReasonOf(record.job().state()));
  if (record.job().state() == v1::JOB_STATE_LEASED) Start(record, now, decision.change);
  return decision;
}

absl::StatusOr<v1::ReportRankResponse> Coordinator::BeatRank(const v1::ReportRankRequest& request,
                                                             Now now) {
  const auto found = sessions_.find(request.instance());
  if (found == sessions_.end()) return absl::NotFoundError("the pool is not attached");
  Session& session = found->second;
  if (request.rank() < 0 || request.rank() >= static_cast<int>(session.ranks.size())) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", request.rank(), ": expected one of ",
                                                   session.ranks.size(), " ranks"));
  }
  session.heard_ms[request.rank()] = now.steady_ms;
  session.ranks[request.rank()].set_rss_bytes(request.rss_bytes());
  if (request.has_counters()) {
    *session.ranks[request.rank()].mutable_counters() = request.counters();
  }
  v1::ReportRankResponse response;
  for (int rank : SilentRanks(session, now)) response.add_silent_ranks(rank);
  if (Holds(request.instance(), request.lease())) {
    // Not renewed here: only rank 0 holds the lease. This rank may go on as long as
    // the lease does.
    response.set_lease_valid(true);
    response.set_lease_ttl_ms(lease_end_ms_.at(std::string(JobIdOf(request.lease().job()))) -
                              now.steady_ms);
  }
  return response;
}

namespace {

// Bytes that one of `world_size` ranks needs: the plan's figure for the next smaller
// world that it knows.
int64_t RankMemory(const v1::PlanSummary& plan, int world_size) {
  int64_t bytes = 0;
  int best = 0;
  for (const auto& [ranks, need] : plan.rank_memory_bytes()) {
    if (ranks > world_size || ranks <= best) continue;
    best = ranks;
    bytes = need;
  }
  return bytes;
}

bool HasDevice(const v1::PoolRank& rank, const std::string& device) {
  return device != "cuda" || absl::StartsWith(rank.device(), "cuda");
}

// "1.5 GiB", for people.
std::string GibiBytes(int64_t bytes) {
  return absl::StrFormat("%.1f GiB", static_cast<double>(bytes) / (1 << 30));
}

}  // namespace

std::string Coordinator::Misfit(const v1::Job& job, const Session& session) {
  const int world_size = static_cast<int>(session.ranks.size());
  if (world_size < job.min_ranks()) {
    return absl::StrCat("has ", world_size, " rank(s), ", job.min_ranks(), " are asked for");
  }
  const int64_t bytes = RankMemory(job.plan(), world_size);
  for (const v1::PoolRank& rank : session.ranks) {
    if (!HasDevice(rank, job.spec().device())) {
      return absl::StrCat("rank ", rank.rank(), " has no ", job.spec().device());
    }
    if (rank.memory_bytes() != 0 && rank.memory_bytes() < bytes) {
      return absl::StrCat("rank ", rank.rank(), " has ", GibiBytes(rank.memory_bytes()), ", ",
                          GibiBytes(bytes), " are needed");
    }
  }
  return "";
}

std::string Coordinator::WaitsFor(const JobRecord& record, Now now) const {
  const std::string id(JobIdOf(record.job().name()));
  if (record.job().state() != v1::JOB_STATE_QUEUED) return "";
  if (const auto time = not_before_ms_.find(id);
      time != not_before_ms_.end() && time->second > now.steady_ms) {
    return absl::StrCat("the next attempt, in ", (time->second - now.steady_ms + 999) / 1000, " s");
  }
  std::string misfits;
  bool any = false;
  for (const auto& [instance, session] : sessions_) {
    if (!session.connected || session.draining) continue;
    any = true;
    const std::string misfit = Misfit(record.job(), session);
    if (misfit.empty()) return "its turn";
    if (misfits.size() < 500) absl::StrAppend(&misfits, "; ", session.pool, ": ", misfit);
  }
  if (!any) return "a pool; none is attached";
  return absl::StrCat("a pool that it fits", misfits);
}

bool Coordinator::IsShunned(const JobRecord& record, const Session& session) const {
  const auto fails = [&record](const std::string& pool) {
    const auto found = record.failures_by_pool().find(pool);
    return found != record.failures_by_pool().end() && found->second >= 2;
  };
  if (!fails(session.pool)) return false;
  return std::any_of(sessions_.begin(), sessions_.end(), [&](const auto& entry) {
    return entry.second.connected && !fails(entry.second.pool) &&
           Misfit(record.job(), entry.second).empty();
  });
}

double Coordinator::Urgency(const JobRecord& record, Now now) const {
  const int priority = record.job().has_priority() ? record.job().priority() : 50;
  const int64_t waited = std::max<int64_t>(0, now.wall_ms - record.queued_millis());
  return priority + static_cast<double>(waited / std::max<int64_t>(1, options_.priority_step_ms));
}

const JobRecord* Coordinator::BestFor(const Session& session, Now now) const {
  // The most urgent; among equals the submitter who was served longest ago, then the
  // oldest.
  using Rank = std::tuple<double, int64_t, int64_t>;
  const JobRecord* best = nullptr;
  Rank best_rank;
  for (const std::string& id : queued_) {
    const auto not_before = not_before_ms_.find(id);
    if (not_before != not_before_ms_.end() && not_before->second > now.steady_ms) continue;
    const JobRecord& record = jobs_.find(id)->second;
    const auto turn = last_turn_.find(record.job().submitter());
    const Rank rank{-Urgency(record, now), turn == last_turn_.end() ? 0 : turn->second,
                    record.create_millis()};
    if (best != nullptr && rank >= best_rank) continue;
    if (!Misfit(record.job(), session).empty() || IsShunned(record, session)) continue;
    best = &record;
    best_rank = rank;
  }
  return best;
}

std::optional<LeaseDecision> Coordinator::NextLease(absl::string_view instance, Now now) const {
  const auto found = sessions_.find(std::string(instance));
  if (found == sessions_.end()) return std::nullopt;
  const Session& session = found->second;
  const bool wants = session.connected && session.idle && !session.draining;
  if (!wants || HeldBy(instance) != nullptr) return std::nullopt;
  if (!SilentRanks(session, now).empty()) return std::nullopt;
  const JobRecord* best = BestFor(session, now);
  if (best == nullptr) return std::nullopt;
  JobRecord record = *best;
  v1::Job& job = *record.mutable_job();
  job.set_incarnation(job.incarnation() + 1);
  job.set_attempt(job.attempt() + 1);
  job.set_pool(session.pool);
  *job.mutable_partition() = MakePartition(job.plan(), static_cast<int>(session.ranks.size()));
  record.set_lease_instance(std::string(instance));
  record.clear_steps_batches();
  LeaseDecision decision;
  Move(record, v1::JOB_STATE_LEASED, absl::StrCat("leased to pool ", session.pool), now,
       decision.change);
  decision.offer.mutable_lease()->set_job(job.name());
  decision.offer.mutable_lease()->set_incarnation(job.incarnation());
  *decision.offer.mutable_spec() = job.spec();
  *decision.offer.mutable_partition() = job.partition();
  *decision.offer.mutable_plan() = job.plan();
  return decision;
}

absl::StatusOr<Change> Coordinator::ReportSteps(absl::string_view instance,
                                                const v1::ReportSteps& report, Now now) const {
  LLMC_ASSIGN_OR_RETURN(JobRecord record, Leased(instance, report.lease()));
  Change change;
  int64_t& last_batch = (*record.mutable_steps_batches())[report.rank()];
  if (report.batch() <= last_batch) return change;
  if (record.job().state() == v1::JOB_STATE_LEASED) Start(record, now, change);
  last_batch = report.batch();
  if (report.has_progress()) *record.mutable_job()->mutable_progress() = report.progress();
  const int64_t oldest = record.job().sequence() + 1 - options_.max_events_per_job;
  if (oldest > record.first_sequence()) record.set_first_sequence(oldest);
  v1::JobEvent event;
  *event.mutable_steps()->mutable_steps() = report.steps();
  *event.mutable_steps()->mutable_progress() = record.job().progress();
  AppendEvent(record, std::move(event), now, change);
  return change;
}

absl::StatusOr<Decision> Coordinator::AskPublish(absl::string_view instance,
                                                 const v1::LeaseId& lease, Now now,
                                                 bool* granted) const {
  *granted = false;
  LLMC_ASSIGN_OR_RETURN(JobRecord record, Leased(instance, lease));
  Decision decision{{}, std::string(JobIdOf(lease.job()))};
  const v1::JobState state = record.job().state();
  if (state != v1::JOB_STATE_RUNNING && state != v1::JOB_STATE_LEASED) return decision;
  *granted = true;
  if (record.job().publishing()) return decision;
  record.mutable_job()->set_publishing(true);
  if (state == v1::JOB_STATE_LEASED) Start(record, now, decision.change);
  decision.change.jobs[decision.job_id] = record;
  return decision;
}

absl::StatusOr<Change> Coordinator::Finish(absl::string_view instance, const v1::Finished& finished,
                                           Now now) const {
  Change change;
  const std::string id(JobIdOf(finished.lease().job()));
  const JobRecord* ended = Find(id);
  // Sent again, because the acknowledgement was lost.
  if (ended != nullptr && ended->job().incarnation() == finished.lease().incarnation() &&
      !HoldsLease(ended->job().state())) {
    return change;
  }
  LLMC_ASSIGN_OR_RETURN(JobRecord record, Leased(instance, finished.lease()));
  if (!finished.report_json().empty()) change.reports[id] = finished.report_json();
  v1::Job& job = *record.mutable_job();
  if (!finished.output_in_place()) job.set_publishing(false);
  switch (finished.outcome()) {
    case v1::OUTCOME_SUCCEEDED:
      job.clear_error();
      job.mutable_progress()->set_layers_done(job.plan().num_layers());
      job.mutable_progress()->set_num_layers(job.plan().num_layers());
      Move(record, v1::JOB_STATE_SUCCEEDED, "the output is in place and verified", now, change);
      break;
    case v1::OUTCOME_FAILED:
      *job.mutable_error() = finished.error();
      Move(record,
           job.state() == v1::JOB_STATE_CANCELLING ? v1::JOB_STATE_CANCELLED : v1::JOB_STATE_FAILED,
           finished.error().message(), now, change);
      break;
    case v1::OUTCOME_BUSY: {
      record.set_busy_attempts(record.busy_attempts() + 1);
      const int64_t wait = std::min<int64_t>(Backoff(record.busy_attempts()), 60'000);
      Release(std::move(record), finished.error().message(), std::nullopt, now, change);
      change.not_before_ms[id] = now.steady_ms + wait;
      break;
    }
    case v1::OUTCOME_STOPPED:
      Release(std::move(record), "stopped after a layer", std::nullopt, now, change);
      break;
    default:
      Release(std::move(record), finished.error().message(), finished.error(), now, change);
  }
  return change;
}

std::vector<v1::Pool> Coordinator::Pools(Now now) const {
  std::vector<v1::Pool> pools;
  for (const auto& [instance, session] : sessions_) {
    v1::Pool& pool = pools.emplace_back();
    pool.set_name(session.pool);
    for (const v1::PoolRank& rank : session.ranks) *pool.add_ranks() = rank;
    if (const JobRecord* held = HeldBy(instance); held != nullptr) {
      pool.set_job(held->job().name());
    }
    for (int rank : SilentRanks(session, now)) pool.mutable_ranks(rank)->set_silent(true);
    pool.set_draining(session.draining);
    pool.set_connected(session.connected);
  }
  return pools;
}

}  // namespace llmc
