#include "control/coordinator.h"

#include <random>

#include "coordinator_world.h"

namespace llmc {
namespace {

using enum v1::JobState;

TEST(Coordinator, SameRequestId_GivesTheSameJobOrAnError) {
  CoordinatorWorld world;
  NewJob request = world.Request("a");
  request.request_id = "r";
  request.request_digest = "one";
  ASSERT_TRUE(world.Apply(world.coordinator.Create(request, world.now)).ok());
  request.job_id = "b";
  const auto again = world.coordinator.Create(request, world.now);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->job_id, "a");
  EXPECT_TRUE(again->change.empty());
  request.request_digest = "two";
  EXPECT_EQ(ReasonOf(world.coordinator.Create(request, world.now).status()), "REQUEST_ID_REUSED");
}

TEST(Coordinator, TwoJobsOfOneOutput_AreRefusedUntilTheFirstEnds) {
  CoordinatorWorld world;
  world.Submit("a");
  NewJob other = world.Request("b");
  other.job.mutable_spec()->set_output("/out/a");
  EXPECT_EQ(ReasonOf(world.coordinator.Create(other, world.now).status()), "OUTPUT_IN_USE");
  ASSERT_TRUE(world.Apply(world.coordinator.Cancel("a", "", world.now)).ok());
  ASSERT_TRUE(world.Apply(world.coordinator.Create(other, world.now)).ok());
  EXPECT_EQ(ReasonOf(world.coordinator.Retry("a", "", world.now).status()), "OUTPUT_IN_USE");
}

TEST(Coordinator, FullQueue_IsRefused) {
  CoordinatorOptions options;
  options.max_jobs = 2;
  CoordinatorWorld world(options);
  world.Submit("a");
  world.Submit("b");
  EXPECT_EQ(ReasonOf(world.coordinator.Create(world.Request("c"), world.now).status()),
            "QUEUE_FULL");
}

TEST(Coordinator, AnotherEtag_IsRefused) {
  CoordinatorWorld world;
  world.Submit("a");
  const std::string etag = world.coordinator.Find("a")->job().etag();
  ASSERT_TRUE(world.Apply(world.coordinator.Pause("a", etag, world.now)).ok());
  EXPECT_EQ(ReasonOf(world.coordinator.Resume("a", etag, world.now).status()), "ETAG_MISMATCH");
}

TEST(Coordinator, PoisonJob_FailsAfterFiveAttemptsWithGrowingWaits) {
  CoordinatorWorld world;
  world.Submit("a");
  world.AttachPool("p");
  int64_t wait = 10'000;
  for (int attempt = 1; attempt <= 5; ++attempt) {
    const v1::LeaseId lease = world.Lease("p");
    ASSERT_EQ(lease.incarnation(), attempt);
    world.Beat("p", &lease);
    ASSERT_TRUE(world.Finish("p", lease, v1::OUTCOME_RETRY).ok());
    if (attempt == 5) break;
    EXPECT_EQ(world.StateOf("a"), JOB_STATE_QUEUED);
    world.Wait(wait - 1);
    EXPECT_TRUE(world.Lease("p").job().empty()) << "before its time";
    world.Wait(1);
    wait *= 2;
  }
  EXPECT_EQ(world.StateOf("a"), JOB_STATE_FAILED);
  EXPECT_EQ(world.coordinator.Find("a")->job().error().message(), "it broke");
}

TEST(Coordinator, AHeldOutput_IsWaitedForWithoutCountingAttempts) {
  CoordinatorWorld world;
  world.Submit("a");
  world.AttachPool("p");
  for (int i = 0; i < 20; ++i) {
    const v1::LeaseId lease = world.Lease("p");
    ASSERT_FALSE(lease.job().empty()) << i;
    world.Beat("p", &lease);
    ASSERT_TRUE(world.Finish("p", lease, v1::OUTCOME_BUSY).ok());
    world.Wait(60'000);
  }
  EXPECT_EQ(world.StateOf("a"), JOB_STATE_QUEUED);
}

TEST(Coordinator, HeartbeatsRenewTheLease_SilenceEndsIt) {
  CoordinatorWorld world;
  world.Submit("a");
  world.AttachPool("p");
  const v1::LeaseId lease = world.Lease("p");
  for (int i = 0; i < 10; ++i) {
    world.Wait(kTtl - 1);
    EXPECT_TRUE(world.Beat("p", &lease).lease_valid());
  }
  world.Wait(kTtl - 1);
  EXPECT_EQ(world.StateOf("a"), JOB_STATE_RUNNING);
  world.Wait(1);
  EXPECT_EQ(world.StateOf("a"), JOB_STATE_QUEUED);
  EXPECT_EQ(world.Beat("p", &lease).stop(), v1::STOP_REASON_LEASE_LOST);
}

TEST(Coordinator, Restart_GivesLeasesAFullTermAndKeepsEverything) {
  CoordinatorWorld world;
  world.Submit("a");
  world.Submit("b");
  world.AttachPool("p");
  const v1::LeaseId lease = world.Lease("p");
  world.Beat("p", &lease);
  std::vector<store::v1::JobRecord> records = {*world.coordinator.Find("a"),
                                               *world.coordinator.Find("b")};
  CoordinatorWorld after;
  after.last_sequence = world.last_sequence;
  after.now.steady_ms = 5;  // Another boot.
  after.coordinator.Restore(records, after.now);
  after.Wait(kTtl - 1);
  EXPECT_EQ(after.StateOf("a"), JOB_STATE_RUNNING);
  after.AttachPool("p", &lease);
  EXPECT_TRUE(after.lease_kept);
  after.Wait(kTtl - 1);
  EXPECT_EQ(after.StateOf("a"), JOB_STATE_RUNNING);
  after.Wait(1);
  EXPECT_EQ(after.StateOf("a"), JOB_STATE_QUEUED);
}

TEST(Coordinator, HigherPriorityGoesFirst_AndWaitingRaisesIt) {
  CoordinatorWorld world;
  NewJob low = world.Request("low");
  low.job.set_priority(50);
  ASSERT_TRUE(world.Apply(world.coordinator.Create(low, world.now)).ok());
  world.Wait(4 * 1'800'000);
  NewJob high = world.Request("high");
  high.job.set_priority(53);
  ASSERT_TRUE(world.Apply(world.coordinator.Create(high, world.now)).ok());
  NewJob higher = world.Request("higher");
  higher.job.set_priority(60);
  ASSERT_TRUE(world.Apply(world.coordinator.Create(higher, world.now)).ok());
  std::vector<std::string> order;
  for (const char* pool : {"p", "q", "r"}) {
    world.AttachPool(pool);
    order.push_back(world.Lease(pool).job());
  }
  EXPECT_EQ(order, (std::vector<std::string>{"jobs/higher", "jobs/low", "jobs/high"}));
}

TEST(Coordinator, SubmittersTakeTurns) {
  CoordinatorWorld world;
  for (int i = 0; i < 4; ++i) world.Submit(absl::StrCat("ann", i));
  for (int i = 0; i < 2; ++i) {
    NewJob request = world.Request(absl::StrCat("bob", i));
    request.job.set_submitter("bob");
    ASSERT_TRUE(world.Apply(world.coordinator.Create(request, world.now)).ok());
  }
  int of_bob = 0;
  for (int i = 0; i < 4; ++i) {
    const std::string pool = absl::StrCat("p", i);
    world.AttachPool(pool);
    of_bob += world.Lease(pool).job().find("bob") != std::string::npos ? 1 : 0;
  }
  EXPECT_EQ(of_bob, 2);
}

TEST(Coordinator, AJobGoesOnlyWhereItFits) {
  CoordinatorWorld world;
  NewJob request = world.Request("a");
  (*request.job.mutable_plan()->mutable_rank_memory_bytes())[1] = 100;
  (*request.job.mutable_plan()->mutable_rank_memory_bytes())[2] = 60;
  ASSERT_TRUE(world.Apply(world.coordinator.Create(request, world.now)).ok());
  for (const auto& [ranks, memory, fits] :
       {std::tuple{1, 99, false}, std::tuple{2, 59, false}, std::tuple{3, 60, true}}) {
    v1::Attach attach;
    attach.set_pool("p");
    attach.set_instance("p-instance");
    for (int r = 0; r < ranks; ++r) attach.add_ranks()->set_memory_bytes(memory);
    ASSERT_TRUE(world.coordinator.Attach(attach, world.now).ok());
    world.Beat("p", nullptr);
    EXPECT_EQ(world.coordinator.NextLease("p-instance", world.now).has_value(), fits) << ranks;
  }
}

TEST(Coordinator, RanksAndDevices_MustFitToo) {
  CoordinatorWorld world;
  NewJob request = world.Request("wide");
  request.job.set_min_ranks(2);
  request.job.mutable_spec()->set_device("cuda");
  ASSERT_TRUE(world.Apply(world.coordinator.Create(request, world.now)).ok());
  for (const auto& [ranks, device, fits] :
       {std::tuple{1, "cuda:0", false}, std::tuple{2, "cpu", false},
        std::tuple{2, "cuda:1", true}}) {
    v1::Attach attach;
    attach.set_pool("p");
    attach.set_instance("p-instance");
    for (int r = 0; r < ranks; ++r) attach.add_ranks()->set_device(device);
    ASSERT_TRUE(world.coordinator.Attach(attach, world.now).ok());
    world.Beat("p", nullptr);
    EXPECT_EQ(world.coordinator.NextLease("p-instance", world.now).has_value(), fits) << device;
  }
}

TEST(Coordinator, WaitsFor_SaysWhatIsMissing) {
  CoordinatorWorld world;
  NewJob request = world.Request("a");
  request.job.set_min_ranks(2);
  ASSERT_TRUE(world.Apply(world.coordinator.Create(request, world.now)).ok());
  const auto waits_for = [&] {
    return world.coordinator.WaitsFor(*world.coordinator.Find("a"), world.now);
  };
  EXPECT_EQ(waits_for(), "a pool; none is attached");
  world.AttachPool("small");
  EXPECT_EQ(waits_for(), "a pool that it fits; small: has 1 rank(s), 2 are asked for");
  world.AttachPool("big", nullptr, 2);
  EXPECT_EQ(waits_for(), "its turn");
  const v1::LeaseId lease = world.Lease("big");
  EXPECT_EQ(waits_for(), "") << "it is leased";
  ASSERT_TRUE(world.Finish("big", lease, v1::OUTCOME_RETRY).ok());
  EXPECT_EQ(waits_for(), "the next attempt, in 10 s");
}

// Who was served a hundred times must not wait for a newcomer's hundred jobs.
TEST(Coordinator, ANewcomer_TakesTurnsAndNoMore) {
  CoordinatorWorld world;
  world.AttachPool("p");
  const auto submit_of = [&](const std::string& who, int i) {
    NewJob request = world.Request(absl::StrCat(who, i));
    request.job.set_submitter(who);
    ASSERT_TRUE(world.Apply(world.coordinator.Create(request, world.now)).ok());
  };
  for (int i = 0; i < 110; ++i) submit_of("ann", i);
  const auto serve = [&] {
    const v1::LeaseId lease = world.Lease("p");
    EXPECT_TRUE(world.Finish("p", lease, v1::OUTCOME_SUCCEEDED).ok());
    return lease.job();
  };
  for (int i = 0; i < 100; ++i) serve();
  for (int i = 0; i < 10; ++i) submit_of("bob", i);
  int of_bob = 0;
  for (int i = 0; i < 10; ++i) of_bob += serve().find("bob") != std::string::npos ? 1 : 0;
  EXPECT_EQ(of_bob, 5);
}

TEST(Coordinator, APoolThatFailedAJobTwice_IsPassedOverForAnother) {
  CoordinatorWorld world;
  world.Submit("a");
  world.AttachPool("p");
  for (int i = 0; i < 2; ++i) {
    const v1::LeaseId lease = world.Lease("p");
    world.Beat("p", &lease);
    ASSERT_TRUE(world.Finish("p", lease, v1::OUTCOME_RETRY).ok());
    world.Wait(60'000);
  }
  EXPECT_FALSE(world.Lease("p").job().empty()) << "the only pool there is";
  world.AttachPool("p");  // It forgot the offer; the job is queued again.
  world.AttachPool("q");
  EXPECT_TRUE(world.Lease("p").job().empty());
  EXPECT_EQ(world.Lease("q").job(), "jobs/a");
}

TEST(Coordinator, ARepeatedBatchOfSteps_IsKeptOnce) {
  CoordinatorWorld world;
  world.Submit("a");
  world.AttachPool("p", nullptr, 2);
  v1::ReportSteps report;
  *report.mutable_lease() = world.Lease("p");
  report.set_batch(1);
  for (int rank : {0, 1}) {
    report.set_rank(rank);
    const auto change = world.coordinator.ReportSteps("p-instance", report, world.now);
    ASSERT_TRUE(change.ok());
    world.Apply(*change);
    const auto again = world.coordinator.ReportSteps("p-instance", report, world.now);
    ASSERT_TRUE(again.ok());
    EXPECT_TRUE(again->empty());
  }
}

TEST(Coordinator, SilentRanks_AreNamed) {
  CoordinatorWorld world;
  world.AttachPool("p", nullptr, 3);
  world.Wait(8'001);
  for (int rank : {0, 2}) {
    v1::ReportRankRequest request;
    request.set_instance("p-instance");
    request.set_rank(rank);
    const auto response = world.coordinator.BeatRank(request, world.now);
    ASSERT_TRUE(response.ok());
    if (rank == 2) {
      ASSERT_EQ(response->silent_ranks_size(), 1);
      EXPECT_EQ(response->silent_ranks(0), 1);
    }
  }
  world.Submit("a");
  EXPECT_TRUE(world.Lease("p").job().empty()) << "a pool with a silent rank gets no job";
}

TEST(Coordinator, EndedJobs_AreForgottenAfterTheRetention) {
  CoordinatorWorld world;
  world.Submit("a");
  world.Submit("b");
  ASSERT_TRUE(world.Apply(world.coordinator.Cancel("a", "", world.now)).ok());
  world.Wait(world.coordinator.options().retention_ms - 1);
  EXPECT_NE(world.coordinator.Find("a"), nullptr);
  world.Wait(2);
  EXPECT_EQ(world.coordinator.Find("a"), nullptr);
  EXPECT_NE(world.coordinator.Find("b"), nullptr);
}

TEST(Coordinator, Partition_CoversEveryRowOnce) {
  CoordinatorWorld world;
  NewJob request = world.Request("a");
  request.job.mutable_plan()->set_calibrated(true);
  v1::WeightShape& shape = *request.job.mutable_plan()->add_layer_weights();
  shape.set_out_features(1000);
  shape.set_count(3);
  ASSERT_TRUE(world.Apply(world.coordinator.Create(request, world.now)).ok());
  world.AttachPool("p", nullptr, 7);
  ASSERT_FALSE(world.Lease("p").job().empty());
  const v1::Partition& partition = world.coordinator.Find("a")->job().partition();
  EXPECT_EQ(partition.num_layers(), 4);
  EXPECT_FALSE(partition.shares_tensors());
  int64_t rows = 0;
  int64_t end = 0;
  for (const v1::RankShare& share : partition.ranks()) {
    EXPECT_EQ(share.first_piece(), share.rank());
    ASSERT_EQ(share.rows_size(), 1);
    EXPECT_EQ(share.rows(0).begin(), end);
    end = share.rows(0).end();
    EXPECT_EQ(share.rows_per_layer(), 3 * (end - share.rows(0).begin()));
    rows += share.rows_per_layer();
  }
  EXPECT_EQ(rows, 3000);
  EXPECT_EQ(end, 1000);
}

// Pools, clients and time do random things; the world checks gaps, edges and
// incarnations, and at the end every job can still end.
TEST(Coordinator, RandomHistories_KeepTheInvariantsAndEveryJobEnds) {
  for (unsigned seed = 0; seed < 60; ++seed) {
    std::mt19937 random(seed);
    const auto pick = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
    CoordinatorWorld world;
    std::map<std::string, v1::LeaseId> leases;
    std::map<std::string, int> published;
    for (int i = 0; i < 6; ++i) world.Submit(absl::StrCat("job", i));
    for (const char* pool : {"p", "q"}) world.AttachPool(pool);
    for (int step = 0; step < 300; ++step) {
      const std::string pool = pick(2) == 0 ? "p" : "q";
      const std::string job = absl::StrCat("job", pick(6));
      v1::LeaseId& lease = leases[pool];
      switch (pick(12)) {
        case 0:
          (void)world.Apply(world.coordinator.Cancel(job, "", world.now));
          break;
        case 1:
          (void)world.Apply(world.coordinator.Pause(job, "", world.now));
          break;
        case 2:
          (void)world.Apply(world.coordinator.Resume(job, "", world.now));
          break;
        case 3:
          (void)world.Apply(world.coordinator.Retry(job, "", world.now));
          break;
        case 4:
          world.Wait(pick(40'000));
          break;
        case 5:
          world.AttachPool(pool, lease.job().empty() ? nullptr : &lease);
          break;
        case 6:
          world.Apply(world.coordinator.Detach(pool + "-instance", false, world.now));
          break;
        case 7:
          if (world.AskPublish(pool, lease) &&
              world.Finish(pool, lease, v1::OUTCOME_SUCCEEDED).ok()) {
            EXPECT_EQ(++published[lease.job()], 1) << lease.job() << " published twice";
          }
          lease.Clear();
          break;
        case 8:
          (void)world.Finish(pool, lease, static_cast<v1::Outcome>(2 + pick(4)));
          lease.Clear();
          break;
        default: {
          world.AttachPool(pool, lease.job().empty() ? nullptr : &lease);
          if (!lease.job().empty()) world.Beat(pool, &lease);
          if (lease.job().empty()) lease = world.Lease(pool);
        }
      }
    }
    for (int i = 0; i < 6; ++i) {
      const std::string id = absl::StrCat("job", i);
      (void)world.Apply(world.coordinator.Resume(id, "", world.now));
      (void)world.Apply(world.coordinator.Retry(id, "", world.now));
    }
    world.AttachPool("z");
    for (int i = 0; i < 60; ++i) {
      world.Wait(700'000);
      // A pausing job is paused only when its lease has ended.
      for (int j = 0; j < 6; ++j) {
        (void)world.Apply(world.coordinator.Resume(absl::StrCat("job", j), "", world.now));
      }
      const v1::LeaseId lease = world.Lease("z");
      if (lease.job().empty()) continue;
      world.Beat("z", &lease);
      EXPECT_TRUE(world.Finish("z", lease, v1::OUTCOME_SUCCEEDED).ok());
    }
    for (int i = 0; i < 6; ++i) {
      EXPECT_TRUE(IsEnd(world.StateOf(absl::StrCat("job", i)))) << "seed " << seed << " job " << i;
    }
  }
}

}  // namespace
}  // namespace llmc
