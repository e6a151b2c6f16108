#include "control/transition.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace llmc {

google::protobuf::Timestamp ToTimestamp(int64_t millis) {
  google::protobuf::Timestamp time;
  time.set_seconds(millis / 1000);
  time.set_nanos(static_cast<int32_t>(millis % 1000) * 1'000'000);
  return time;
}

absl::string_view JobIdOf(absl::string_view name) {
  constexpr absl::string_view kPrefix = "jobs/";
  return name.substr(0, kPrefix.size()) == kPrefix ? name.substr(kPrefix.size()) : "";
}

void AppendEvent(store::v1::JobRecord& record, v1::JobEvent event, Now now, Change& change) {
  v1::Job& job = *record.mutable_job();
  job.set_sequence(job.sequence() + 1);
  *job.mutable_update_time() = ToTimestamp(now.wall_ms);
  event.set_sequence(job.sequence());
  event.set_attempt(job.attempt());
  *event.mutable_time() = ToTimestamp(now.wall_ms);
  const std::string id(JobIdOf(job.name()));
  change.events.emplace_back(id, std::move(event));
  change.jobs[id] = record;
}

void Move(store::v1::JobRecord& record, v1::JobState to, const std::string& reason, Now now,
          Change& change) {
  v1::Job& job = *record.mutable_job();
  v1::JobEvent event;
  v1::StateChange& moved = *event.mutable_state_change();
  moved.set_from(job.state());
  moved.set_to(to);
  moved.set_reason(reason);
  moved.set_pool(job.pool());
  moved.set_incarnation(job.incarnation());
  if (job.has_error()) *moved.mutable_error() = job.error();
  job.set_state(to);
  job.set_etag(absl::StrCat("v", job.sequence() + 1));
  if (to == v1::JOB_STATE_QUEUED) record.set_queued_millis(now.wall_ms);
  if (!HoldsLease(to)) record.clear_lease_instance();
  if (IsEnd(to)) {
    *job.mutable_end_time() = ToTimestamp(now.wall_ms);
    record.set_end_millis(now.wall_ms);
  } else {
    job.clear_end_time();
    record.clear_end_millis();
  }
  AppendEvent(record, std::move(event), now, change);
}

}  // namespace llmc
