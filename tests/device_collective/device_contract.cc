#include "device_contract.h"

#include <algorithm>
#include <limits>
#include <thread>

#include "absl/strings/str_cat.h"

namespace llmc {
namespace {

using kernels::DeviceBuffer;
using kernels::DeviceQueue;

absl::Status Expect(bool holds, absl::string_view what) {
  return holds ? absl::OkStatus() : absl::InternalError(absl::StrCat("violated: ", what));
}

// Numbers in device memory.
struct DeviceNumbers {
  DeviceBuffer buffer;
  int64_t count = 0;

  static absl::StatusOr<DeviceNumbers> From(DeviceQueue& queue,
                                            const std::vector<int64_t>& values) {
    DeviceNumbers numbers;
    numbers.count = std::ssize(values);
    LLMC_ASSIGN_OR_RETURN(numbers.buffer,
                          DeviceBuffer::Allocate(queue, std::max<int64_t>(8, 8 * numbers.count)));
    LLMC_RETURN_IF_ERROR(queue.CopyToDevice(values.data(), 8 * numbers.count, numbers.data()));
    return numbers;
  }
  int64_t* data() { return buffer.as<int64_t>(); }
  absl::StatusOr<std::vector<int64_t>> Read(DeviceQueue& queue) {
    std::vector<int64_t> values(count);
    LLMC_RETURN_IF_ERROR(queue.CopyToHost(data(), 8 * count, values.data()));
    LLMC_RETURN_IF_ERROR(queue.Synchronize());
    return values;
  }
};

absl::Status CheckSums(DeviceCollective& world, DeviceQueue& queue) {
  const int64_t n = world.world_size();
  // Longer than a piece of any transport, and not a multiple of one.
  for (const int64_t size : {int64_t{0}, int64_t{1}, int64_t{4'200'001}}) {
    std::vector<int64_t> given(size);
    for (int64_t i = 0; i < size; ++i) given[i] = (i << 20) + world.rank();
    LLMC_ASSIGN_OR_RETURN(DeviceNumbers numbers, DeviceNumbers::From(queue, given));
    LLMC_RETURN_IF_ERROR(world.AllReduceSum(queue, numbers.data(), size));
    LLMC_RETURN_IF_ERROR(world.Join(queue));
    LLMC_ASSIGN_OR_RETURN(const std::vector<int64_t> sums, numbers.Read(queue));
    for (int64_t i = 0; i < size; ++i) {
      if (sums[i] != n * (i << 20) + n * (n - 1) / 2) return Expect(false, "AllReduceSum");
    }
  }
  return absl::OkStatus();
}

// Many operations before one wait, each with another root.
absl::Status CheckReducesToEveryRoot(DeviceCollective& world, DeviceQueue& queue) {
  const int64_t n = world.world_size();
  std::vector<DeviceNumbers> all;
  for (int root = 0; root < n; ++root) {
    const std::vector<int64_t> given = {world.rank() + 1, std::numeric_limits<int64_t>::max(),
                                        10 * root};
    LLMC_ASSIGN_OR_RETURN(DeviceNumbers numbers, DeviceNumbers::From(queue, given));
    LLMC_RETURN_IF_ERROR(world.ReduceSum(queue, numbers.data(), numbers.count, root));
    all.push_back(std::move(numbers));
  }
  LLMC_RETURN_IF_ERROR(world.Finish());
  const auto wrapped = static_cast<int64_t>(
      static_cast<uint64_t>(n) * static_cast<uint64_t>(std::numeric_limits<int64_t>::max()));
  for (int root = 0; root < n; ++root) {
    LLMC_ASSIGN_OR_RETURN(const std::vector<int64_t> got, all[root].Read(queue));
    const bool is_root = world.rank() == root;
    const std::vector<int64_t> expected = {is_root ? n * (n + 1) / 2 : world.rank() + 1,
                                           is_root ? wrapped : std::numeric_limits<int64_t>::max(),
                                           10 * root * (is_root ? n : 1)};
    LLMC_RETURN_IF_ERROR(Expect(got == expected, "ReduceSum changes the root only, mod 2^64"));
  }
  return absl::OkStatus();
}

absl::Status CheckBroadcast(DeviceCollective& world, DeviceQueue& queue) {
  for (int root = 0; root < world.world_size(); ++root) {
    LLMC_ASSIGN_OR_RETURN(
        DeviceNumbers numbers,
        DeviceNumbers::From(queue, std::vector<int64_t>(1'300'001, world.rank())));
    // All but the last byte, which is 0 on every rank: not a multiple of any word.
    LLMC_RETURN_IF_ERROR(world.Broadcast(queue, numbers.data(), 8 * numbers.count - 1, root));
    LLMC_RETURN_IF_ERROR(world.Join(queue));
    LLMC_ASSIGN_OR_RETURN(const std::vector<int64_t> got, numbers.Read(queue));
    const auto is_roots = [root](int64_t value) { return value == root; };
    LLMC_RETURN_IF_ERROR(Expect(std::all_of(got.begin(), got.end(), is_roots), "Broadcast"));
  }
  return world.Broadcast(queue, nullptr, 0, 0);
}

// Rank r gives r * `step` numbers r, so rank 0 gives none.
absl::Status CheckGather(DeviceCollective& world, DeviceQueue& queue, int64_t step) {
  std::vector<int64_t> offsets = {0};
  std::vector<int64_t> expected;
  for (int r = 0; r < world.world_size(); ++r) {
    expected.insert(expected.end(), r * step, r);
    offsets.push_back(std::ssize(expected) * 8);
  }
  std::vector<int64_t> given(expected.size(), -1);
  const auto mine = given.begin() + offsets[world.rank()] / 8;
  std::fill(mine, mine + world.rank() * step, world.rank());
  LLMC_ASSIGN_OR_RETURN(DeviceNumbers numbers, DeviceNumbers::From(queue, given));
  LLMC_RETURN_IF_ERROR(world.AllGather(queue, numbers.data(), offsets));
  LLMC_RETURN_IF_ERROR(world.Join(queue));
  LLMC_ASSIGN_OR_RETURN(const std::vector<int64_t> got, numbers.Read(queue));
  return Expect(got == expected, "AllGather");
}

// A sum on one queue, passed on by another.
absl::Status CheckTwoQueues(DeviceCollective& world, DeviceQueue& first, int device) {
  LLMC_ASSIGN_OR_RETURN(const std::unique_ptr<DeviceQueue> second, DeviceQueue::Create(device));
  LLMC_ASSIGN_OR_RETURN(DeviceNumbers numbers, DeviceNumbers::From(first, {1}));
  const int last = world.world_size() - 1;
  LLMC_RETURN_IF_ERROR(world.ReduceSum(first, numbers.data(), 1, last));
  LLMC_RETURN_IF_ERROR(world.Join(*second));
  LLMC_RETURN_IF_ERROR(world.Broadcast(*second, numbers.data(), 8, last));
  LLMC_RETURN_IF_ERROR(world.Join(first));
  LLMC_ASSIGN_OR_RETURN(const std::vector<int64_t> got, numbers.Read(first));
  return Expect(got[0] == world.world_size(), "operations of two queues keep their order");
}

absl::Status CheckBadArguments(DeviceCollective& world, DeviceQueue& queue) {
  int64_t* const none = nullptr;
  const std::vector<int64_t> no_offsets;
  const std::vector<int64_t> falling(world.world_size() + 1, -1);
  LLMC_RETURN_IF_ERROR(
      Expect(absl::IsInvalidArgument(world.Broadcast(queue, none, 8, -1)) &&
                 absl::IsInvalidArgument(world.ReduceSum(queue, none, 1, world.world_size())),
             "a root outside the world"));
  return Expect(absl::IsInvalidArgument(world.AllGather(queue, none, no_offsets)) &&
                    absl::IsInvalidArgument(world.AllGather(queue, none, falling)),
                "offsets of another world");
}

}  // namespace

absl::Status CheckDeviceCollectiveContract(DeviceCollective& world, int device) {
  LLMC_ASSIGN_OR_RETURN(const std::unique_ptr<DeviceQueue> queue, DeviceQueue::Create(device));
  LLMC_RETURN_IF_ERROR(CheckSums(world, *queue));
  LLMC_RETURN_IF_ERROR(CheckReducesToEveryRoot(world, *queue));
  LLMC_RETURN_IF_ERROR(CheckBroadcast(world, *queue));
  LLMC_RETURN_IF_ERROR(CheckGather(world, *queue, 3));
  LLMC_RETURN_IF_ERROR(CheckGather(world, *queue, 700'001));
  LLMC_RETURN_IF_ERROR(CheckTwoQueues(world, *queue, device));
  LLMC_RETURN_IF_ERROR(CheckBadArguments(world, *queue));
  return world.Finish();
}

std::vector<absl::Status> RunDeviceRanks(
    int world_size, int num_devices, const MakeOnDevice& make,
    const std::function<absl::Status(DeviceCollective&, int device)>& rank_main) {
  std::vector<std::unique_ptr<Collective>> hosts = MakeThreadCollectives(world_size);
  std::vector<absl::Status> statuses(world_size);
  std::vector<std::thread> threads;
  for (int r = 0; r < world_size; ++r) {
    threads.emplace_back([&, r] {
      const int device = DeviceOfRank(*hosts[r], num_devices);
      const auto world = make(*hosts[r], device);
      statuses[r] = world.ok() ? rank_main(**world, device) : world.status();
    });
  }
  for (std::thread& thread : threads) thread.join();
  return statuses;
}

}  // namespace llmc
