#include "collective/collective.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <thread>

#include "contract.h"

namespace llmc {
namespace {

using ::testing::HasSubstr;
using ::testing::TestWithParam;
using ::testing::Values;

// Runs `rank_main` on one thread a rank and returns each rank's status.
std::vector<absl::Status> RunRanks(int world_size, const CollectiveOptions& options,
                                   const std::function<absl::Status(Collective&)>& rank_main) {
  std::vector<std::unique_ptr<Collective>> ranks = MakeThreadCollectives(world_size, options);
  std::vector<absl::Status> statuses(world_size);
  std::vector<std::thread> threads;
  for (int r = 0; r < world_size; ++r) {
    threads.emplace_back([&, r] { statuses[r] = rank_main(*ranks[r]); });
  }
  for (std::thread& thread : threads) thread.join();
  return statuses;
}

TEST(SelfCollective, Contract_Holds) {
  const std::unique_ptr<Collective> self = MakeSelfCollective();
  EXPECT_EQ(self->world_size(), 1);
  EXPECT_EQ(CheckCollectiveContract(*self), absl::OkStatus());
}

class ThreadCollectives : public TestWithParam<int> {};

TEST_P(ThreadCollectives, Contract_Holds) {
  for (const absl::Status& status : RunRanks(GetParam(), {}, CheckCollectiveContract)) {
    EXPECT_EQ(status, absl::OkStatus());
  }
}
INSTANTIATE_TEST_SUITE_P(WorldSizes, ThreadCollectives, Values(1, 2, 3, 4));

TEST(ThreadCollective, PeerThatNeverArrives_IsUnavailableAndNamed) {
  const CollectiveOptions options{.timeout = std::chrono::milliseconds(20)};
  const auto statuses = RunRanks(2, options, [](Collective& world) {
    return world.rank() == 0 ? world.Barrier() : absl::OkStatus();
  });
  EXPECT_EQ(statuses[0].code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(statuses[0].message()), HasSubstr("Barrier: rank 1 did not arrive"));
}

TEST(ThreadCollective, CallAfterFailure_FailsAtOnce) {
  const CollectiveOptions options{.timeout = std::chrono::milliseconds(20)};
  const auto statuses = RunRanks(2, options, [](Collective& world) {
    if (world.rank() == 1) return absl::OkStatus();
    (void)world.Barrier();
    return world.AgreeOnStatus(absl::OkStatus());
  });
  EXPECT_EQ(statuses[0].code(), absl::StatusCode::kUnavailable);
}

TEST(ThreadCollective, PeerThatAborts_EndsTheWaitOfOthers) {
  const auto statuses = RunRanks(3, {}, [](Collective& world) {
    if (world.rank() == 2) world.Abort("disk on fire");
    return world.Barrier();
  });
  for (const absl::Status& status : statuses) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(status.message()), HasSubstr("rank 2 aborted: disk on fire"));
  }
}

TEST(ThreadCollective, PeerThatIsDestroyed_EndsTheWaitOfOthers) {
  std::vector<std::unique_ptr<Collective>> ranks = MakeThreadCollectives(2);
  std::thread peer([&] { ranks[1].reset(); });
  EXPECT_EQ(ranks[0]->Barrier().code(), absl::StatusCode::kUnavailable);
  peer.join();
}

TEST(ThreadCollective, RanksThatCallDifferentOperations_AreToldSo) {
  const auto statuses = RunRanks(2, {}, [](Collective& world) {
    std::vector<int64_t> values(2 + world.rank());
    return world.AllReduceSum(values);
  });
  for (const absl::Status& status : statuses) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_THAT(std::string(status.message()), HasSubstr("rank 1 called AllReduceSum of 3"));
  }
}

}  // namespace
}  // namespace llmc
