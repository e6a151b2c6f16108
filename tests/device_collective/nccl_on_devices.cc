// The transports of device memory on this machine's GPUs; skipped where there is none.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "device_contract.h"

namespace llmc {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

constexpr auto kTimeout = std::chrono::minutes(2);

absl::StatusOr<std::unique_ptr<DeviceCollective>> Nccl(Collective& host, int device) {
  return MakeNcclDeviceCollective(host, device, kTimeout);
}
absl::StatusOr<std::unique_ptr<DeviceCollective>> Staged(Collective& host, int) {
  return MakeStagedDeviceCollective(host);
}

class OnDevices : public testing::Test {
 protected:
  void SetUp() override {
    if (num_devices_ == 0) GTEST_SKIP() << "no GPU: " << kernels::WhyNoDevice();
  }
  const int num_devices_ = kernels::NumDevices();
};

TEST_F(OnDevices, Nccl_WorldOfOne_ContractHolds) {
  EXPECT_THAT(RunDeviceRanks(1, num_devices_, Nccl, CheckDeviceCollectiveContract),
              Each(absl::OkStatus()));
}

TEST_F(OnDevices, Nccl_ARankOnEachDevice_ContractHolds) {
  if (num_devices_ < 2) GTEST_SKIP() << "one GPU, and NCCL refuses two ranks on it";
  EXPECT_THAT(RunDeviceRanks(num_devices_, num_devices_, Nccl, CheckDeviceCollectiveContract),
              Each(absl::OkStatus()));
}

TEST_F(OnDevices, Nccl_TwoRanksOnOneDevice_AreRefused) {
  for (const absl::Status& status :
       RunDeviceRanks(2, 1, Nccl, [](DeviceCollective&, int) { return absl::OkStatus(); })) {
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr("ranks 0 and 1 are on one device"));
  }
}

TEST_F(OnDevices, Staged_ThreeRanksOnOneDevice_ContractHolds) {
  EXPECT_THAT(RunDeviceRanks(3, 1, Staged, CheckDeviceCollectiveContract), Each(absl::OkStatus()));
}

TEST_F(OnDevices, Nccl_PeerThatNeverArrives_IsUnavailableAndTheQueueGoesOn) {
  if (num_devices_ < 2) GTEST_SKIP() << "one GPU";
  const auto impatient = [](Collective& host, int device) {
    return MakeNcclDeviceCollective(host, device, std::chrono::seconds(10));
  };
  const auto statuses =
      RunDeviceRanks(2, num_devices_, impatient, [](DeviceCollective& world, int device) {
        if (world.rank() == 1) return world.Finish();
        LLMC_ASSIGN_OR_RETURN(const auto queue, kernels::DeviceQueue::Create(device));
        LLMC_ASSIGN_OR_RETURN(auto buffer, kernels::DeviceBuffer::Allocate(*queue, 8));
        LLMC_RETURN_IF_ERROR(world.AllReduceSum(*queue, buffer.as<int64_t>(), 1));
        LLMC_RETURN_IF_ERROR(world.Join(*queue));
        (void)queue->Synchronize();
        return world.Finish();
      });
  EXPECT_EQ(statuses[0].code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace llmc
