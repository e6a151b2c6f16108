// What every DeviceCollective must do, run by each rank of a world of any size. Sums
// are exact, so equality is the check.
#ifndef LLMC_TESTS_DEVICE_COLLECTIVE_DEVICE_CONTRACT_H_
#define LLMC_TESTS_DEVICE_COLLECTIVE_DEVICE_CONTRACT_H_

#include <functional>
#include <vector>

#include "collective/device_collective.h"

namespace llmc {

// OK, or what was wrong on this rank. All ranks must call it; queues are of `device`.
absl::Status CheckDeviceCollectiveContract(DeviceCollective& world, int device);

// Makes a rank's collective on its device.
using MakeOnDevice =
    std::function<absl::StatusOr<std::unique_ptr<DeviceCollective>>(Collective& host, int device)>;

// Runs `rank_main` on one thread a rank, rank r on device r modulo `num_devices`;
// each rank's status.
std::vector<absl::Status> RunDeviceRanks(
    int world_size, int num_devices, const MakeOnDevice& make,
    const std::function<absl::Status(DeviceCollective&, int device)>& rank_main);

}  // namespace llmc

#endif  // LLMC_TESTS_DEVICE_COLLECTIVE_DEVICE_CONTRACT_H_
