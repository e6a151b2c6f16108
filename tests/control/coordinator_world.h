// A coordinator with jobs and pools, and a clock that tests set.
#ifndef LLMC_TESTS_CONTROL_COORDINATOR_WORLD_H_
#define LLMC_TESTS_CONTROL_COORDINATOR_WORLD_H_

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "control/coordinator.h"

namespace llmc {

inline constexpr int64_t kTtl = 30'000;

class CoordinatorWorld {
 public:
  explicit CoordinatorWorld(CoordinatorOptions options = {}) : coordinator(options) {}

  // Applies a Change as the control plane does, and checks what must always hold.
  void Apply(const Change& change) {
    for (const auto& [id, event] : change.events) {
      EXPECT_EQ(event.sequence(), ++last_sequence[id]) << id << ": a gap";
      if (!event.has_state_change()) continue;
      EXPECT_TRUE(MayMove(event.state_change().from(), event.state_change().to()))
          << event.ShortDebugString();
    }
    for (const auto& [id, record] : change.jobs) {
      EXPECT_GE(record.job().incarnation(), last_incarnation[id]);
      last_incarnation[id] = record.job().incarnation();
      EXPECT_EQ(record.job().sequence(), last_sequence[id]);
    }
    coordinator.Apply(change, now);
  }
  absl::Status Apply(const absl::StatusOr<Decision>& decision) {
    if (decision.ok()) Apply(decision->change);
    return decision.status();
  }

  NewJob Request(const std::string& id) {
    NewJob request;
    request.job_id = id;
    request.job.mutable_spec()->set_output("/out/" + id);
    request.job.mutable_plan()->set_num_layers(4);
    request.job.set_submitter("ann");
    return request;
  }
  void Submit(const std::string& id) {
    ASSERT_TRUE(Apply(coordinator.Create(Request(id), now)).ok());
  }

  void AttachPool(const std::string& pool, const v1::LeaseId* lease = nullptr, int ranks = 1) {
    v1::Attach attach;
    attach.set_pool(pool);
    attach.set_instance(pool + "-instance");
    for (int r = 0; r < ranks; ++r) attach.add_ranks()->set_rank(r);
    if (lease != nullptr) *attach.mutable_lease() = *lease;
    auto decision = coordinator.Attach(attach, now);
    ASSERT_TRUE(decision.ok());
    Apply(decision->change);
    lease_kept = decision->attached.lease_valid();
  }
  v1::HeartbeatAck Beat(const std::string& pool, const v1::LeaseId* lease) {
    v1::Heartbeat beat;
    beat.set_idle(lease == nullptr);
    if (lease != nullptr) *beat.mutable_lease() = *lease;
    auto decision = coordinator.Beat(pool + "-instance", beat, now);
    EXPECT_TRUE(decision.ok()) << decision.status();
    if (!decision.ok()) return {};
    Apply(decision->change);
    return decision->ack;
  }
  // The lease that the idle pool gets; empty job: none.
  v1::LeaseId Lease(const std::string& pool) {
    Beat(pool, nullptr);
    const auto decision = coordinator.NextLease(pool + "-instance", now);
    if (!decision) return {};
    Apply(decision->change);
    return decision->offer.lease();
  }
  absl::Status Finish(const std::string& pool, const v1::LeaseId& lease, v1::Outcome outcome) {
    v1::Finished finished;
    *finished.mutable_lease() = lease;
    finished.set_outcome(outcome);
    finished.mutable_error()->set_message("it broke");
    auto change = coordinator.Finish(pool + "-instance", finished, now);
    if (change.ok()) Apply(*change);
    return change.status();
  }
  bool AskPublish(const std::string& pool, const v1::LeaseId& lease) {
    bool granted = false;
    (void)Apply(coordinator.AskPublish(pool + "-instance", lease, now, &granted));
    return granted;
  }
  void Wait(int64_t millis) {
    now.steady_ms += millis;
    now.wall_ms += millis;
    Apply(coordinator.Tick(now));
  }
  v1::JobState StateOf(const std::string& id) const {
    const auto* record = coordinator.Find(id);
    return record == nullptr ? v1::JOB_STATE_UNSPECIFIED : record->job().state();
  }

  Coordinator coordinator;
  Now now{1'000'000, 1'700'000'000'000};
  std::map<std::string, int64_t> last_sequence;
  std::map<std::string, int64_t> last_incarnation;
  bool lease_kept = false;
};

}  // namespace llmc

#endif  // LLMC_TESTS_CONTROL_COORDINATOR_WORLD_H_
