// Every operation in every state, against a table written from the design.

#include <functional>
#include <map>
#include <optional>

#include "coordinator_world.h"

namespace llmc {
namespace {

using enum v1::JobState;

constexpr char kJob[] = "a";

const v1::JobState kStates[] = {JOB_STATE_QUEUED,    JOB_STATE_LEASED, JOB_STATE_RUNNING,
                                JOB_STATE_PAUSING,   JOB_STATE_PAUSED, JOB_STATE_CANCELLING,
                                JOB_STATE_SUCCEEDED, JOB_STATE_FAILED, JOB_STATE_CANCELLED};

// A world whose job is in `state`, and the lease that it has or last had.
struct Scene {
  CoordinatorWorld world;
  v1::LeaseId lease;
};

void Prepare(Scene& scene, v1::JobState state) {
  CoordinatorWorld& world = scene.world;
  world.Submit(kJob);
  world.AttachPool("p");
  const Coordinator& coordinator = world.coordinator;
  if (state == JOB_STATE_QUEUED) return;
  if (state == JOB_STATE_PAUSED) {
    (void)world.Apply(coordinator.Pause(kJob, "", world.now));
  } else if (state == JOB_STATE_CANCELLED) {
    (void)world.Apply(coordinator.Cancel(kJob, "", world.now));
  } else {
    scene.lease = world.Lease("p");
    if (state != JOB_STATE_LEASED) world.Beat("p", &scene.lease);
    if (state == JOB_STATE_PAUSING) (void)world.Apply(coordinator.Pause(kJob, "", world.now));
    if (state == JOB_STATE_CANCELLING) (void)world.Apply(coordinator.Cancel(kJob, "", world.now));
    if (state == JOB_STATE_SUCCEEDED) (void)world.Finish("p", scene.lease, v1::OUTCOME_SUCCEEDED);
    if (state == JOB_STATE_FAILED) (void)world.Finish("p", scene.lease, v1::OUTCOME_FAILED);
  }
  ASSERT_EQ(world.StateOf(kJob), state);
}

using Operation = std::function<void(Scene&)>;

const std::map<std::string, Operation>& Operations() {
  static const auto* operations = new std::map<std::string, Operation>{
      {"cancel",
       [](Scene& s) { (void)s.world.Apply(s.world.coordinator.Cancel(kJob, "", s.world.now)); }},
      {"pause",
       [](Scene& s) { (void)s.world.Apply(s.world.coordinator.Pause(kJob, "", s.world.now)); }},
      {"resume",
       [](Scene& s) { (void)s.world.Apply(s.world.coordinator.Resume(kJob, "", s.world.now)); }},
      {"retry",
       [](Scene& s) { (void)s.world.Apply(s.world.coordinator.Retry(kJob, "", s.world.now)); }},
      {"delete", [](Scene& s) { (void)s.world.Apply(s.world.coordinator.Delete(kJob, "")); }},
      {"beat", [](Scene& s) { s.world.Beat("p", &s.lease); }},
      {"lease", [](Scene& s) { s.world.Lease("p"); }},
      {"succeed", [](Scene& s) { (void)s.world.Finish("p", s.lease, v1::OUTCOME_SUCCEEDED); }},
      {"fail", [](Scene& s) { (void)s.world.Finish("p", s.lease, v1::OUTCOME_FAILED); }},
      {"retryable", [](Scene& s) { (void)s.world.Finish("p", s.lease, v1::OUTCOME_RETRY); }},
      {"stopped", [](Scene& s) { (void)s.world.Finish("p", s.lease, v1::OUTCOME_STOPPED); }},
      {"busy", [](Scene& s) { (void)s.world.Finish("p", s.lease, v1::OUTCOME_BUSY); }},
      {"expire", [](Scene& s) { s.world.Wait(kTtl + 1); }},
      {"goodbye",
       [](Scene& s) {
         s.world.Apply(s.world.coordinator.Detach("p-instance", true, s.world.now));
       }},
      {"break",
       [](Scene& s) {
         s.world.Apply(s.world.coordinator.Detach("p-instance", false, s.world.now));
       }},
      {"reattach", [](Scene& s) { s.world.AttachPool("p", &s.lease); }},
      {"forgot", [](Scene& s) { s.world.AttachPool("p"); }},
      {"publish", [](Scene& s) { s.world.AskPublish("p", s.lease); }},
  };
  return *operations;
}

constexpr v1::JobState kGone = JOB_STATE_UNSPECIFIED;

// Where an operation leads; states that are not named stay as they are.
const std::map<std::string, std::map<v1::JobState, v1::JobState>> kExpected = {
    {"cancel",
     {{JOB_STATE_QUEUED, JOB_STATE_CANCELLED},
      {JOB_STATE_PAUSED, JOB_STATE_CANCELLED},
      {JOB_STATE_LEASED, JOB_STATE_CANCELLING},
      {JOB_STATE_RUNNING, JOB_STATE_CANCELLING},
      {JOB_STATE_PAUSING, JOB_STATE_CANCELLING}}},
    {"pause",
     {{JOB_STATE_QUEUED, JOB_STATE_PAUSED},
      {JOB_STATE_LEASED, JOB_STATE_PAUSING},
      {JOB_STATE_RUNNING, JOB_STATE_PAUSING}}},
    {"resume", {{JOB_STATE_PAUSED, JOB_STATE_QUEUED}}},
    {"retry", {{JOB_STATE_FAILED, JOB_STATE_QUEUED}, {JOB_STATE_CANCELLED, JOB_STATE_QUEUED}}},
    {"delete",
     {{JOB_STATE_SUCCEEDED, kGone}, {JOB_STATE_FAILED, kGone}, {JOB_STATE_CANCELLED, kGone}}},
    {"beat", {{JOB_STATE_LEASED, JOB_STATE_RUNNING}}},
    {"lease", {{JOB_STATE_QUEUED, JOB_STATE_LEASED}}},
    {"succeed",
     {{JOB_STATE_LEASED, JOB_STATE_SUCCEEDED},
      {JOB_STATE_RUNNING, JOB_STATE_SUCCEEDED},
      {JOB_STATE_PAUSING, JOB_STATE_SUCCEEDED},
      {JOB_STATE_CANCELLING, JOB_STATE_SUCCEEDED}}},
    {"fail",
     {{JOB_STATE_LEASED, JOB_STATE_FAILED},
      {JOB_STATE_RUNNING, JOB_STATE_FAILED},
      {JOB_STATE_PAUSING, JOB_STATE_FAILED},
      {JOB_STATE_CANCELLING, JOB_STATE_CANCELLED}}},
    {"publish", {{JOB_STATE_LEASED, JOB_STATE_RUNNING}}},
};

// What brings a leased job back, in any of these ways.
const std::map<v1::JobState, v1::JobState> kReleased = {
    {JOB_STATE_LEASED, JOB_STATE_QUEUED},
    {JOB_STATE_RUNNING, JOB_STATE_QUEUED},
    {JOB_STATE_PAUSING, JOB_STATE_PAUSED},
    {JOB_STATE_CANCELLING, JOB_STATE_CANCELLED}};
const char* const kReleasing[] = {"retryable", "stopped", "busy", "expire", "goodbye", "forgot"};

v1::JobState Expected(const std::string& operation, v1::JobState from) {
  const bool releases =
      std::find(std::begin(kReleasing), std::end(kReleasing), operation) != std::end(kReleasing);
  const auto table = kExpected.find(operation);
  const std::map<v1::JobState, v1::JobState> none;
  const auto& moves = releases ? kReleased : table == kExpected.end() ? none : table->second;
  const auto to = moves.find(from);
  return to == moves.end() ? from : to->second;
}

TEST(Transition, EveryOperationInEveryState_EndsWhereTheTableSays) {
  for (const auto& [name, operation] : Operations()) {
    for (v1::JobState from : kStates) {
      Scene scene;
      Prepare(scene, from);
      operation(scene);
      EXPECT_EQ(StateName(scene.world.StateOf(kJob)), StateName(Expected(name, from)))
          << name << " of " << StateName(from);
    }
  }
}

// Two operations one after the other never break a rule that the world checks.
TEST(Transition, EveryPairOfOperations_KeepsTheInvariants) {
  for (const auto& [first_name, first] : Operations()) {
    for (const auto& [second_name, second] : Operations()) {
      for (v1::JobState from : kStates) {
        Scene scene;
        Prepare(scene, from);
        first(scene);
        if (scene.world.StateOf(kJob) == kGone) continue;
        // A pool that said goodbye cannot beat.
        if (first_name == "goodbye" && (second_name == "beat" || second_name == "lease")) continue;
        second(scene);
      }
    }
  }
}

TEST(Transition, AStaleLease_ChangesNothing) {
  for (const char* name : {"succeed", "fail", "retryable", "stopped", "busy", "publish", "beat"}) {
    Scene scene;
    Prepare(scene, JOB_STATE_RUNNING);
    scene.world.Wait(kTtl + 1);
    scene.world.Wait(20'000);
    scene.world.AttachPool("q");
    const v1::LeaseId newer = scene.world.Lease("q");
    ASSERT_GT(newer.incarnation(), scene.lease.incarnation());
    scene.world.Beat("q", &newer);
    const int64_t sequence = scene.world.last_sequence[kJob];
    Operations().at(name)(scene);
    EXPECT_EQ(scene.world.StateOf(kJob), JOB_STATE_RUNNING) << name;
    EXPECT_EQ(scene.world.last_sequence[kJob], sequence) << name;
  }
}

TEST(Transition, APublishingJob_CanBeNeitherCancelledNorPaused) {
  Scene scene;
  Prepare(scene, JOB_STATE_RUNNING);
  ASSERT_TRUE(scene.world.AskPublish("p", scene.lease));
  const auto cancelled = scene.world.coordinator.Cancel(kJob, "", scene.world.now);
  EXPECT_EQ(ReasonOf(cancelled.status()), "JOB_PUBLISHING");
  EXPECT_FALSE(scene.world.coordinator.Pause(kJob, "", scene.world.now).ok());
  ASSERT_TRUE(scene.world.Finish("p", scene.lease, v1::OUTCOME_SUCCEEDED).ok());
  EXPECT_EQ(scene.world.StateOf(kJob), JOB_STATE_SUCCEEDED);
}

TEST(Transition, ACancellingOrPausingJob_MayNotPublish) {
  for (v1::JobState state : {JOB_STATE_CANCELLING, JOB_STATE_PAUSING}) {
    Scene scene;
    Prepare(scene, state);
    EXPECT_FALSE(scene.world.AskPublish("p", scene.lease));
  }
}

}  // namespace
}  // namespace llmc
