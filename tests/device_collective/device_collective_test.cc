// The staged and the NCCL transport over a CUDA runtime and an NCCL of threads.
#include "collective/device_collective.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>

#include "device_contract.h"
#include "fake_cuda.h"

namespace llmc {
namespace {

using kernels::DeviceBuffer;
using kernels::DeviceQueue;
using std::chrono::milliseconds;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::Values;

constexpr auto kLong = std::chrono::minutes(2);

MakeOnDevice Nccl(milliseconds timeout) {
  return [timeout](Collective& host, int device) {
    return MakeNcclDeviceCollective(host, device, timeout);
  };
}
absl::StatusOr<std::unique_ptr<DeviceCollective>> Staged(Collective& host, int) {
  return MakeStagedDeviceCollective(host);
}

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

// One number in device memory and a queue, for operations whose result is not looked at.
struct Number {
  explicit Number(int device)
      : queue(*DeviceQueue::Create(device)), buffer(*DeviceBuffer::Allocate(*queue, 8)) {
    *buffer.as<int64_t>() = 1;
  }
  int64_t* data() { return buffer.as<int64_t>(); }

  std::unique_ptr<DeviceQueue> queue;
  DeviceBuffer buffer;
};

class DeviceCollectives : public testing::TestWithParam<int> {
 protected:
  void SetUp() override { fake::Reset(); }
};

TEST_P(DeviceCollectives, Staged_ContractHolds) {
  for (const absl::Status& status :
       RunDeviceRanks(GetParam(), fake::kNumDevices, Staged, CheckDeviceCollectiveContract)) {
    EXPECT_EQ(status, absl::OkStatus());
  }
}

TEST_P(DeviceCollectives, Nccl_ContractHolds) {
  for (const absl::Status& status :
       RunDeviceRanks(GetParam(), fake::kNumDevices, Nccl(kLong), CheckDeviceCollectiveContract)) {
    EXPECT_EQ(status, absl::OkStatus());
  }
  EXPECT_EQ(fake::NumLiveCommunicators(), 0);
}
INSTANTIATE_TEST_SUITE_P(WorldSizes, DeviceCollectives, Values(1, 2, 3, 4));

class NcclTransport : public testing::Test {
 protected:
  void SetUp() override { fake::Reset(); }
  void TearDown() override { EXPECT_EQ(fake::NumLiveCommunicators(), 0); }
};

TEST_F(NcclTransport, WorldOfOne_NeedsNoneUnlessAskedFor) {
  const std::unique_ptr<Collective> self = MakeSelfCollective();
  EXPECT_EQ((*MakeDeviceCollective(*self, 0))->transport(), "self");
  EXPECT_EQ((*MakeNcclDeviceCollective(*self, 0, kLong))->transport(), "nccl 2.28.9");
}

TEST_F(NcclTransport, MoreRanks_TakeNcclUnlessStagedIsAskedFor) {
  for (const auto& [asked, expected] :
       {std::pair(DeviceTransport::kAuto, "nccl"), std::pair(DeviceTransport::kStaged, "staged")}) {
    const auto make = [asked = asked](Collective& host, int device) {
      return MakeDeviceCollective(host, device, {.transport = asked});
    };
    RunDeviceRanks(2, fake::kNumDevices, make, [&](DeviceCollective& world, int) {
      EXPECT_THAT(world.transport(), HasSubstr(expected));
      return absl::OkStatus();
    });
  }
}

TEST_F(NcclTransport, TwoRanksOnOneDevice_AreRefusedOnAllRanksAndStagedServesThem) {
  fake::PutDevicesInOneSlot();
  const auto statuses = RunDeviceRanks(3, fake::kNumDevices, Nccl(kLong),
                                       [](DeviceCollective&, int) { return absl::OkStatus(); });
  for (const absl::Status& status : statuses) {
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(MessageOf(status),
                AllOf(HasSubstr("ranks 0 and 1 are on one device"), HasSubstr("PCI 0000:00:00.0"),
                      HasSubstr("choose the staged transport")));
  }
  EXPECT_THAT(RunDeviceRanks(3, 1, Staged, CheckDeviceCollectiveContract), Each(absl::OkStatus()));
}

TEST_F(NcclTransport, RankThatDoesNotStart_IsUnavailableOnAllRanks) {
  fake::HoldStart(1);
  const auto statuses = RunDeviceRanks(2, fake::kNumDevices, Nccl(milliseconds(50)),
                                       [](DeviceCollective&, int) { return absl::OkStatus(); });
  for (const absl::Status& status : statuses) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(MessageOf(status), HasSubstr("NCCL: start: a rank did not arrive within 50 ms"));
  }
}

// Rank 0's sum waits for a rank that never asks for it.
TEST_F(NcclTransport, PeerThatNeverArrives_IsUnavailableAndTheQueueGoesOn) {
  std::promise<void> is_over;
  const auto statuses = RunDeviceRanks(
      2, fake::kNumDevices, Nccl(milliseconds(100)), [&](DeviceCollective& world, int device) {
        if (world.rank() == 1) {
          is_over.get_future().wait();
          return absl::OkStatus();
        }
        Number number(device);
        EXPECT_EQ(world.AllReduceSum(*number.queue, number.data(), 1), absl::OkStatus());
        EXPECT_EQ(world.Join(*number.queue), absl::OkStatus());
        // Nobody asks the collective: its watch must free the queue.
        EXPECT_EQ(number.queue->Synchronize(), absl::OkStatus());
        const absl::Status finished = world.Finish();
        EXPECT_EQ(world.Broadcast(*number.queue, number.data(), 8, 0), finished);
        is_over.set_value();
        return finished;
      });
  EXPECT_EQ(statuses[0].code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(MessageOf(statuses[0]),
              HasSubstr("NCCL: AllReduceSum: a rank did not arrive within 100 ms"));
}

TEST_F(NcclTransport, ErrorThatNcclReports_EndsTheWorldOfAllRanks) {
  fake::FailNextOperation(0, ncclRemoteError);
  std::vector<std::unique_ptr<Collective>> hosts = MakeThreadCollectives(2);
  std::vector<absl::Status> statuses(2);
  std::vector<std::thread> threads;
  for (int r = 0; r < 2; ++r) {
    threads.emplace_back([&, r] {
      const auto world = MakeNcclDeviceCollective(*hosts[r], r, kLong);
      ASSERT_EQ(world.status(), absl::OkStatus());
      Number number(r);
      if (r == 0) {
        (void)(*world)->ReduceSum(*number.queue, number.data(), 1, 0);
        statuses[0] = (*world)->Finish();
        return;
      }
      // Rank 1 waits on the host for a rank that failed on the device.
      statuses[1] = hosts[1]->Barrier();
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(statuses[0].code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(MessageOf(statuses[0]),
              AllOf(HasSubstr("NCCL: ReduceSum: remote process exited"), HasSubstr("of the fake")));
  EXPECT_EQ(statuses[1].code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(MessageOf(statuses[1]), HasSubstr("rank 0 aborted: NCCL: ReduceSum"));
}

TEST_F(NcclTransport, DeviceThatFails_GivesItsError) {
  const auto statuses =
      RunDeviceRanks(2, fake::kNumDevices, Nccl(kLong), [&](DeviceCollective& world, int device) {
        Number number(device);
        fake::FailEventQueries(cudaErrorIllegalAddress);
        (void)world.AllReduceSum(*number.queue, number.data(), 1);
        return world.Finish();
      });
  for (const absl::Status& status : statuses) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_THAT(MessageOf(status), HasSubstr("an illegal memory access"));
  }
}

TEST_F(NcclTransport, Abort_EndsAWaitOfAnotherThread) {
  const auto statuses =
      RunDeviceRanks(2, fake::kNumDevices, Nccl(kLong), [&](DeviceCollective& world, int device) {
        Number number(device);
        if (world.rank() == 0) {
          EXPECT_EQ(world.AllReduceSum(*number.queue, number.data(), 1), absl::OkStatus());
        }
        std::thread other([&] { world.Abort("asked to"); });
        const absl::Status status = world.rank() == 0 ? world.Finish() : absl::OkStatus();
        other.join();
        return status;
      });
  EXPECT_EQ(statuses[0].code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(MessageOf(statuses[0]), HasSubstr("rank 0 aborted: asked to"));
}

// The sum of one linear runs while the queue computes the next.
TEST_F(NcclTransport, Operation_FollowsTheQueueAndRunsBesideItsLaterWork) {
  std::promise<void> gate;
  const std::shared_future<void> opened = gate.get_future();
  const auto statuses =
      RunDeviceRanks(2, fake::kNumDevices, Nccl(kLong), [&](DeviceCollective& world, int device) {
        Number number(device);
        int64_t* const value = number.data();
        // Rank 1's earlier work is late, so no rank's sum can be done.
        if (world.rank() == 1) fake::Enqueue(number.queue->stream(), [&] { opened.wait(); });
        fake::Enqueue(number.queue->stream(), [=] { *value = 20; });
        LLMC_RETURN_IF_ERROR(world.AllReduceSum(*number.queue, value, 1));
        std::atomic<bool> later_ran{false};
        fake::Enqueue(number.queue->stream(), [&] { later_ran = true; });
        if (world.rank() == 0) {
          // Were the sum in the way of later work, this would wait for ever.
          LLMC_RETURN_IF_ERROR(number.queue->Synchronize());
          EXPECT_TRUE(later_ran);
          EXPECT_EQ(*value, 20);
          gate.set_value();
        }
        LLMC_RETURN_IF_ERROR(world.Join(*number.queue));
        int64_t sum = 0;
        LLMC_RETURN_IF_ERROR(number.queue->CopyToHost(value, 8, &sum));
        LLMC_RETURN_IF_ERROR(number.queue->Synchronize());
        EXPECT_EQ(sum, 40);
        return world.Finish();
      });
  EXPECT_THAT(statuses, Each(absl::OkStatus()));
}

TEST_F(NcclTransport, Timeout_CountsFromWhenTheOperationCouldBegin) {
  const auto statuses = RunDeviceRanks(
      2, fake::kNumDevices, Nccl(milliseconds(800)), [&](DeviceCollective& world, int device) {
        Number number(device);
        fake::Enqueue(number.queue->stream(),
                      [] { std::this_thread::sleep_for(milliseconds(1200)); });
        LLMC_RETURN_IF_ERROR(world.AllReduceSum(*number.queue, number.data(), 1));
        return world.Finish();
      });
  EXPECT_THAT(statuses, Each(absl::OkStatus()));
}

TEST_F(NcclTransport, Destroyed_WithAnOperationUnderWay_DoesNotWaitForIt) {
  const std::vector<std::unique_ptr<Collective>> hosts = MakeThreadCollectives(2);
  std::vector<std::unique_ptr<Number>> numbers;
  for (int r = 0; r < 2; ++r) numbers.push_back(std::make_unique<Number>(r));
  std::vector<std::thread> threads;
  for (int r = 0; r < 2; ++r) {
    threads.emplace_back([&, r] {
      auto world = MakeNcclDeviceCollective(*hosts[r], r, kLong);
      ASSERT_EQ(world.status(), absl::OkStatus());
      if (r == 1) return;
      EXPECT_EQ((*world)->AllReduceSum(*numbers[0]->queue, numbers[0]->data(), 1),
                absl::OkStatus());
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(DeviceTransport, Names_AreRead) {
  EXPECT_EQ(*ParseDeviceTransport("auto"), DeviceTransport::kAuto);
  EXPECT_EQ(*ParseDeviceTransport("staged"), DeviceTransport::kStaged);
  EXPECT_EQ(ParseDeviceTransport("pigeon").status().message(),
            "device transport: pigeon, expected auto or staged");
}

TEST(StagedTransport, PeerThatIsGone_IsUnavailable) {
  const auto statuses =
      RunDeviceRanks(2, fake::kNumDevices, Staged, [](DeviceCollective& world, int device) {
        if (world.rank() == 1) {
          world.Abort("asked to");
          return absl::OkStatus();
        }
        Number number(device);
        const absl::Status status = world.AllReduceSum(*number.queue, number.data(), 1);
        EXPECT_EQ(world.Finish(), status);
        return status;
      });
  EXPECT_EQ(statuses[0].code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(MessageOf(statuses[0]), HasSubstr("rank 1 aborted: asked to"));
}

}  // namespace
}  // namespace llmc
