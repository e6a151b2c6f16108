#include "contract.h"

#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace llmc {
namespace {

absl::Status Expect(bool holds, absl::string_view what) {
  return holds ? absl::OkStatus() : absl::InternalError(absl::StrCat("violated: ", what));
}

std::span<std::byte> Bytes(std::vector<int64_t>& values) {
  return std::as_writable_bytes(std::span(values));
}

absl::Status CheckSums(Collective& world) {
  const int64_t n = world.world_size();
  // Longer than a piece of any transport, and not a multiple of one.
  for (const int64_t size : {int64_t{0}, int64_t{1}, int64_t{2'500'001}}) {
    std::vector<int64_t> values(size);
    for (int64_t i = 0; i < size; ++i) values[i] = (i << 20) + world.rank();
    LLMC_RETURN_IF_ERROR(world.AllReduceSum(values));
    for (int64_t i = 0; i < size; ++i) {
      if (values[i] != n * (i << 20) + n * (n - 1) / 2) return Expect(false, "AllReduceSum");
    }
  }
  std::vector<int64_t> values = {world.rank() + 1, std::numeric_limits<int64_t>::max()};
  const int root = world.world_size() - 1;
  LLMC_RETURN_IF_ERROR(world.ReduceSum(values, root));
  const int64_t expected = world.rank() == root ? n * (n + 1) / 2 : world.rank() + 1;
  return Expect(values[0] == expected, "ReduceSum changes the root only");
}

template <typename T>
absl::Status CheckFloatExtrema(Collective& world) {
  const T last = world.world_size() - 1;
  const T nan = std::numeric_limits<T>::quiet_NaN();
  const T inf = std::numeric_limits<T>::infinity();
  const std::vector<T> given = {static_cast<T>(-1.5) - world.rank(), static_cast<T>(world.rank()),
                                world.rank() == 0 ? nan : T{1}, world.rank() == 0 ? -inf : inf};
  std::vector<T> max = given;
  std::vector<T> min = given;
  LLMC_RETURN_IF_ERROR(world.AllReduceMax(std::span<T>(max)));
  LLMC_RETURN_IF_ERROR(world.AllReduceMin(std::span<T>(min)));
  LLMC_RETURN_IF_ERROR(Expect(max[0] == T{-1.5} && max[1] == last, "AllReduceMax of floats"));
  LLMC_RETURN_IF_ERROR(Expect(min[0] == T{-1.5} - last && min[1] == 0, "AllReduceMin of floats"));
  LLMC_RETURN_IF_ERROR(Expect(std::isnan(max[2]) && std::isnan(min[2]), "NaN wins"));
  return Expect(min[3] == -inf && max[3] == (last > 0 ? inf : -inf), "infinities");
}

absl::Status CheckExtrema(Collective& world) {
  std::vector<int64_t> max = {world.rank(), std::numeric_limits<int64_t>::min()};
  std::vector<int64_t> min = {world.rank(), std::numeric_limits<int64_t>::max()};
  LLMC_RETURN_IF_ERROR(world.AllReduceMax(max));
  LLMC_RETURN_IF_ERROR(world.AllReduceMin(min));
  LLMC_RETURN_IF_ERROR(Expect(max[0] == world.world_size() - 1 && min[0] == 0, "int extrema"));
  LLMC_RETURN_IF_ERROR(CheckFloatExtrema<double>(world));
  return CheckFloatExtrema<float>(world);
}

absl::Status CheckBroadcast(Collective& world) {
  for (int root = 0; root < world.world_size(); ++root) {
    std::vector<int64_t> values(1'300'000, world.rank());
    LLMC_RETURN_IF_ERROR(world.Broadcast(Bytes(values), root));
    const std::vector<int64_t> expected(values.size(), root);
    LLMC_RETURN_IF_ERROR(Expect(values == expected, "Broadcast"));
  }
  return world.Broadcast({}, 0);
}

// Rank r gives r * `step` numbers r, so rank 0 gives none.
absl::Status CheckGathers(Collective& world, int64_t step) {
  std::vector<int64_t> offsets = {0};
  std::vector<int64_t> expected;
  for (int r = 0; r < world.world_size(); ++r) {
    expected.insert(expected.end(), r * step, r);
    offsets.push_back(std::ssize(expected) * 8);
  }
  std::vector<int64_t> mine(world.rank() * step, world.rank());
  std::vector<int64_t> all(expected.size(), -1);
  LLMC_RETURN_IF_ERROR(world.AllGather(Bytes(mine), offsets, Bytes(all)));
  LLMC_RETURN_IF_ERROR(Expect(all == expected, "AllGather"));
  for (int root = 0; root < world.world_size(); ++root) {
    std::vector<int64_t> out(world.rank() == root ? expected.size() : 0, -1);
    LLMC_RETURN_IF_ERROR(world.Gather(Bytes(mine), offsets, Bytes(out), root));
    LLMC_RETURN_IF_ERROR(Expect(world.rank() != root || out == expected, "Gather"));
  }
  const auto in_place = Bytes(all).subspan(offsets[world.rank()], mine.size() * 8);
  LLMC_RETURN_IF_ERROR(world.AllGather(in_place, offsets, Bytes(all)));
  return Expect(all == expected, "AllGather in place");
}

absl::Status CheckStrings(Collective& world) {
  const std::string mine = std::string(world.rank(), 'x');
  LLMC_ASSIGN_OR_RETURN(const auto all, world.AllGatherStrings(mine));
  LLMC_ASSIGN_OR_RETURN(const auto on_root, world.GatherStrings(mine, 0));
  LLMC_RETURN_IF_ERROR(Expect(std::ssize(all) == world.world_size(), "AllGatherStrings count"));
  for (int r = 0; r < world.world_size(); ++r) {
    LLMC_RETURN_IF_ERROR(Expect(all[r] == std::string(r, 'x'), "AllGatherStrings"));
  }
  return Expect(world.rank() == 0 ? on_root == all : on_root.empty(), "GatherStrings");
}

absl::Status CheckAgreement(Collective& world) {
  LLMC_RETURN_IF_ERROR(world.AgreeOnStatus(absl::OkStatus()));
  const int last = world.world_size() - 1;
  const absl::Status mine = world.rank() == last ? absl::DataLossError("shard 3: short")
                                                 : absl::AbortedError("peer failed");
  // A world of one has nobody to name.
  const auto from = [&](int rank) {
    return last == 0 ? std::string() : absl::StrCat("rank ", rank, ": ");
  };
  const absl::Status cause = world.AgreeOnStatus(mine);
  LLMC_RETURN_IF_ERROR(Expect(cause == absl::DataLossError(from(last) + "shard 3: short"),
                              "AgreeOnStatus gives the cause"));
  const absl::Status both = world.AgreeOnStatus(absl::NotFoundError("x"));
  return Expect(both == absl::NotFoundError(from(0) + "x"), "AgreeOnStatus prefers the lower rank");
}

absl::Status CheckBadArguments(Collective& world) {
  std::vector<int64_t> values(3);
  const std::vector<int64_t> no_offsets;
  LLMC_RETURN_IF_ERROR(
      Expect(absl::IsInvalidArgument(world.Broadcast(Bytes(values), -1)) &&
                 absl::IsInvalidArgument(world.ReduceSum(values, world.world_size())),
             "a root outside the world"));
  return Expect(absl::IsInvalidArgument(world.AllGather(Bytes(values), no_offsets, {})),
                "offsets of another world");
}

}  // namespace

absl::Status CheckCollectiveContract(Collective& world) {
  LLMC_RETURN_IF_ERROR(CheckSums(world));
  LLMC_RETURN_IF_ERROR(CheckExtrema(world));
  LLMC_RETURN_IF_ERROR(CheckBroadcast(world));
  LLMC_RETURN_IF_ERROR(CheckGathers(world, 3));
  LLMC_RETURN_IF_ERROR(CheckGathers(world, 700'001));
  LLMC_RETURN_IF_ERROR(CheckStrings(world));
  LLMC_RETURN_IF_ERROR(CheckAgreement(world));
  LLMC_RETURN_IF_ERROR(CheckBadArguments(world));
  return world.Barrier();
}

}  // namespace llmc
