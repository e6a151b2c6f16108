#include "control/coordinator.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "control/transition.h"

namespace llmc {

using store::v1::JobRecord;

void Coordinator::Restore(std::vector<JobRecord> records, Now now) {
  Change all;
  for (JobRecord& record : records) {
    std::string id(JobIdOf(record.job().name()));
    all.jobs.emplace(std::move(id), std::move(record));
  }
  Apply(all, now);
}

void Coordinator::Forget(const std::string& id) {
  const auto found = jobs_.find(id);
  if (found == jobs_.end()) return;
  const JobRecord& record = found->second;
  by_age_.erase({record.create_millis(), id});
  queued_.erase(id);
  leased_.erase(id);
  by_request_.erase(record.request_id());
  const auto output = by_output_.find(record.job().spec().output());
  if (output != by_output_.end() && output->second == id) by_output_.erase(output);
  lease_end_ms_.erase(id);
  not_before_ms_.erase(id);
  jobs_.erase(found);
}

void Coordinator::Apply(const Change& change, Now now) {
  for (const auto& [id, record] : change.jobs) {
    const v1::JobState state = record.job().state();
    const JobRecord* before = Find(id);
    const bool is_new_lease =
        before == nullptr || before->job().incarnation() != record.job().incarnation();
    if (is_new_lease && before != nullptr) last_turn_[record.job().submitter()] = ++num_turns_;
    jobs_[id] = record;
    by_age_.insert({record.create_millis(), id});
    if (!record.request_id().empty()) by_request_[record.request_id()] = id;
    state == v1::JOB_STATE_QUEUED ? (void)queued_.insert(id) : (void)queued_.erase(id);
    if (HoldsLease(state)) {
      leased_.insert(id);
      if (is_new_lease || !lease_end_ms_.contains(id)) {
        lease_end_ms_[id] = now.steady_ms + options_.lease_ttl_ms;
      }
    } else {
      leased_.erase(id);
      lease_end_ms_.erase(id);
    }
    const std::string& output = record.job().spec().output();
    if (!IsEnd(state)) {
      by_output_[output] = id;
    } else if (const auto held = by_output_.find(output);
               held != by_output_.end() && held->second == id) {
      by_output_.erase(held);
    }
  }
  for (const auto& [id, time] : change.not_before_ms) not_before_ms_[id] = time;
  for (const std::string& id : change.deleted) Forget(id);
}

const JobRecord* Coordinator::Find(absl::string_view id) const {
  const auto found = jobs_.find(std::string(id));
  return found == jobs_.end() ? nullptr : &found->second;
}

const JobRecord* Coordinator::FindRequest(absl::string_view request_id) const {
  const auto found = by_request_.find(std::string(request_id));
  return found == by_request_.end() ? nullptr : Find(found->second);
}

const JobRecord* Coordinator::FindOutput(absl::string_view output) const {
  const auto found = by_output_.find(std::string(output));
  return found == by_output_.end() ? nullptr : Find(found->second);
}

void Coordinator::VisitNewestFirst(const std::optional<Position>& after,
                                   const std::function<bool(const JobRecord&)>& visit) const {
  auto it = after ? by_age_.lower_bound(*after) : by_age_.end();
  while (it != by_age_.begin()) {
    --it;
    if (!visit(jobs_.find(it->second)->second)) return;
  }
}

absl::StatusOr<Decision> Coordinator::Create(const NewJob& request, Now now) const {
  if (const JobRecord* first = FindRequest(request.request_id);
      first != nullptr && !request.request_id.empty()) {
    if (first->request_digest() == request.request_digest) {
      return Decision{{}, std::string(JobIdOf(first->job().name()))};
    }
    return WithReason("REQUEST_ID_REUSED",
                      absl::AlreadyExistsError(absl::StrCat("request_id ", request.request_id,
                                                            ": was used with another request")));
  }
  if (Find(request.job_id) != nullptr) {
    return WithReason("JOB_EXISTS",
                      absl::AlreadyExistsError(absl::StrCat("jobs/", request.job_id, ": exists")));
  }
  if (static_cast<int64_t>(by_output_.size()) >= options_.max_jobs) {
    return WithReason("QUEUE_FULL",
                      absl::ResourceExhaustedError(absl::StrCat(
                          "the queue is full: ", by_output_.size(), " jobs have not ended")));
  }
  if (const JobRecord* other = FindOutput(request.job.spec().output()); other != nullptr) {
    return WithReason("OUTPUT_IN_USE", absl::AlreadyExistsError(absl::StrCat(
                                           request.job.spec().output(), ": ", other->job().name(),
                                           " writes this output")));
  }
  JobRecord record;
  v1::Job& job = *record.mutable_job();
  job = request.job;
  job.set_name(absl::StrCat("jobs/", request.job_id));
  *job.mutable_create_time() = ToTimestamp(now.wall_ms);
  record.set_request_id(request.request_id);
  record.set_request_digest(request.request_digest);
  record.set_create_millis(now.wall_ms);
  record.set_first_sequence(1);
  Decision decision;
  decision.job_id = request.job_id;
  Move(record, v1::JOB_STATE_QUEUED, "submitted", now, decision.change);
  return decision;
}

absl::StatusOr<JobRecord> Coordinator::Copy(absl::string_view id, absl::string_view etag) const {
  const JobRecord* record = Find(id);
  if (record == nullptr) {
    return WithReason("JOB_NOT_FOUND",
                      absl::NotFoundError(absl::StrCat("jobs/", id, ": no such job")));
  }
  if (!etag.empty() && etag != record->job().etag()) {
    return WithReason("ETAG_MISMATCH", absl::AbortedError(absl::StrCat(
                                           "jobs/", id, ": etag ", etag, ", expected ",
                                           record->job().etag(), "; the job has changed")));
  }
  return *record;
}

namespace {

absl::Status WrongState(const v1::Job& job, absl::string_view verb) {
  const bool publishing = job.publishing() && !IsEnd(job.state());
  return WithReason(
      publishing ? "JOB_PUBLISHING" : "JOB_STATE",
      absl::FailedPreconditionError(absl::StrCat(
          job.name(), ": is ", StateName(job.state()),
          publishing ? " and its output is being put in place" : "", "; cannot ", verb)));
}

}  // namespace

absl::StatusOr<Decision> Coordinator::Cancel(absl::string_view id, absl::string_view etag,
                                             Now now) const {
  LLMC_ASSIGN_OR_RETURN(JobRecord record, Copy(id, etag));
  const v1::JobState state = record.job().state();
  Decision decision{{}, std::string(id)};
  if (state == v1::JOB_STATE_CANCELLED || state == v1::JOB_STATE_CANCELLING) return decision;
  // An output may lie in place already: only the next attempt can tell.
  if (IsEnd(state) || record.job().publishing()) return WrongState(record.job(), "be cancelled");
  Move(record, HoldsLease(state) ? v1::JOB_STATE_CANCELLING : v1::JOB_STATE_CANCELLED,
       "cancelled by a client", now, decision.change);
  return decision;
}

absl::StatusOr<Decision> Coordinator::Pause(absl::string_view id, absl::string_view etag,
                                            Now now) const {
  LLMC_ASSIGN_OR_RETURN(JobRecord record, Copy(id, etag));
  const v1::JobState state = record.job().state();
  Decision decision{{}, std::string(id)};
  if (state == v1::JOB_STATE_PAUSED || state == v1::JOB_STATE_PAUSING) return decision;
  const v1::JobState to = HoldsLease(state) ? v1::JOB_STATE_PAUSING : v1::JOB_STATE_PAUSED;
  if (!MayMove(state, to) || record.job().publishing()) {
    return WrongState(record.job(), "be paused");
  }
  Move(record, to, "paused by a client", now, decision.change);
  return decision;
}

absl::StatusOr<Decision> Coordinator::Resume(absl::string_view id, absl::string_view etag,
                                             Now now) const {
  LLMC_ASSIGN_OR_RETURN(JobRecord record, Copy(id, etag));
  Decision decision{{}, std::string(id)};
  if (record.job().state() != v1::JOB_STATE_PAUSED) return WrongState(record.job(), "be resumed");
  Move(record, v1::JOB_STATE_QUEUED, "resumed by a client", now, decision.change);
  decision.change.not_before_ms[decision.job_id] = now.steady_ms;
  return decision;
}

absl::StatusOr<Decision> Coordinator::Retry(absl::string_view id, absl::string_view etag,
                                            Now now) const {
  LLMC_ASSIGN_OR_RETURN(JobRecord record, Copy(id, etag));
  const v1::JobState state = record.job().state();
  if (state != v1::JOB_STATE_FAILED && state != v1::JOB_STATE_CANCELLED) {
    return WrongState(record.job(), "be retried");
  }
  if (const JobRecord* other = FindOutput(record.job().spec().output()); other != nullptr) {
    return WithReason("OUTPUT_IN_USE", absl::FailedPreconditionError(absl::StrCat(
                                           record.job().name(), ": ", other->job().name(),
                                           " writes the same output now")));
  }
  record.mutable_job()->clear_error();
  record.clear_failures_by_pool();
  record.clear_failed_attempts();
  record.clear_busy_attempts();
  Decision decision{{}, std::string(id)};
  Move(record, v1::JOB_STATE_QUEUED, "retried by a client", now, decision.change);
  decision.change.not_before_ms[decision.job_id] = now.steady_ms;
  return decision;
}

absl::StatusOr<Decision> Coordinator::Delete(absl::string_view id, absl::string_view etag) const {
  LLMC_ASSIGN_OR_RETURN(const JobRecord record, Copy(id, etag));
  if (!IsEnd(record.job().state())) return WrongState(record.job(), "be deleted");
  Decision decision{{}, std::string(id)};
  decision.change.deleted.emplace_back(id);
  return decision;
}

int64_t Coordinator::Backoff(int attempts) const {
  int64_t wait = options_.backoff_ms;
  for (int i = 1; i < attempts && wait < options_.max_backoff_ms; ++i) wait *= 2;
  return std::min(wait, options_.max_backoff_ms);
}

void Coordinator::Release(JobRecord record, const std::string& reason,
                          const std::optional<v1::JobError>& error, Now now, Change& change) const {
  if (error && record.job().state() != v1::JOB_STATE_CANCELLING) {
    FailOrRetry(std::move(record), *error, now, change);
    return;
  }
  const v1::JobState state = record.job().state();
  const v1::JobState to = state == v1::JOB_STATE_CANCELLING ? v1::JOB_STATE_CANCELLED
                          : state == v1::JOB_STATE_PAUSING  ? v1::JOB_STATE_PAUSED
                                                            : v1::JOB_STATE_QUEUED;
  change.not_before_ms[std::string(JobIdOf(record.job().name()))] = now.steady_ms;
  Move(record, to, reason, now, change);
}

void Coordinator::FailOrRetry(JobRecord record, const v1::JobError& error, Now now,
                              Change& change) const {
  *record.mutable_job()->mutable_error() = error;
  record.set_failed_attempts(record.failed_attempts() + 1);
  ++(*record.mutable_failures_by_pool())[record.job().pool()];
  const std::string id(JobIdOf(record.job().name()));
  if (record.failed_attempts() >= options_.max_attempts) {
    Move(record, v1::JOB_STATE_FAILED,
         absl::StrCat("gave up after ", record.failed_attempts(), " attempts: ", error.message()),
         now, change);
    return;
  }
  const bool pausing = record.job().state() == v1::JOB_STATE_PAUSING;
  change.not_before_ms[id] = now.steady_ms + Backoff(record.failed_attempts());
  Move(record, pausing ? v1::JOB_STATE_PAUSED : v1::JOB_STATE_QUEUED, error.message(), now, change);
}

Change Coordinator::Tick(Now now) {
  Change change;
  for (const std::string& id : leased_) {
    if (lease_end_ms_.at(id) > now.steady_ms) continue;
    JobRecord record = jobs_.find(id)->second;
    v1::JobError error;
    error.set_code("UNAVAILABLE");
    error.set_reason("LEASE_EXPIRED");
    error.set_message(absl::StrCat("pool ", record.job().pool(), " was lost: its lease expired"));
    Release(std::move(record), error.message(), error, now, change);
  }
  for (auto it = by_age_.begin(); it != by_age_.end(); ++it) {
    const JobRecord& record = jobs_.find(it->second)->second;
    const bool old =
        record.end_millis() > 0 && record.end_millis() + options_.retention_ms < now.wall_ms;
    if (old) change.deleted.push_back(it->second);
    if (record.create_millis() + options_.retention_ms >= now.wall_ms) break;
  }
  for (auto it = sessions_.begin(); it != sessions_.end();) {
    const Session& session = it->second;
    const bool gone = !session.connected && HeldBy(it->first) == nullptr &&
                      session.last_heard_ms + options_.lease_ttl_ms < now.steady_ms;
    it = gone ? sessions_.erase(it) : std::next(it);
  }
  return change;
}

}  // namespace llmc
