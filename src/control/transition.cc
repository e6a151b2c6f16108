#include "control/transition.h"

#include <algorithm>
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

namespace {

// Ranks share rows in units of so many, as the solver does.
constexpr int64_t kRowUnit = 64;

int64_t RowEdge(int64_t rows, int rank, int world_size) {
  const int64_t units = (rows + kRowUnit - 1) / kRowUnit;
  return std::min(rows, units * rank / world_size * kRowUnit);
}

}  // namespace

v1::Partition MakePartition(const v1::PlanSummary& plan, int world_size) {
  v1::Partition partition;
  partition.set_world_size(world_size);
  for (int rank = 0; rank < world_size; ++rank) {
    v1::RankShare& share = *partition.add_ranks();
    share.set_rank(rank);
    share.set_first_chunk(rank);
    share.set_row_begin_frac(static_cast<double>(rank) / world_size);
    share.set_row_end_frac(static_cast<double>(rank + 1) / world_size);
    int64_t rows = 0;
    for (const v1::WeightShape& shape : plan.layer_weights()) {
      rows += shape.count() * (RowEdge(shape.out_features(), rank + 1, world_size) -
                               RowEdge(shape.out_features(), rank, world_size));
    }
    share.set_rows_per_layer(rows);
  }
  return partition;
}

}  // namespace llmc
