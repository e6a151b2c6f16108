#include "collective/collective.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <limits>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "llmc/counters.h"

namespace llmc {
namespace {

// Floats are compared as integers that sort like them, so that NaN and -0 have
// one answer whatever the order of the comparisons.
int64_t SortKey(double value) {
  const int64_t bits = std::bit_cast<int64_t>(value);
  return bits < 0 ? bits ^ std::numeric_limits<int64_t>::max() : bits;
}
int64_t SortKey(float value) { return SortKey(static_cast<double>(value)); }

template <typename T>
T FromSortKey(int64_t key) {
  const int64_t bits = key < 0 ? key ^ std::numeric_limits<int64_t>::max() : key;
  return static_cast<T>(std::bit_cast<double>(bits));
}

// The key that wins every comparison: what NaN becomes.
int64_t WinningKey(bool is_max) {
  return is_max ? std::numeric_limits<int64_t>::max() : std::numeric_limits<int64_t>::min();
}

std::span<const std::byte> AsBytes(absl::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

bool IsConsequence(absl::StatusCode code) {
  return code == absl::StatusCode::kAborted || code == absl::StatusCode::kUnavailable ||
         code == absl::StatusCode::kCancelled;
}

std::string EncodeStatus(const absl::Status& status) {
  if (status.ok()) return "";
  return absl::StrCat(status.raw_code(), " ", status.message());
}

absl::Status DecodeStatus(absl::string_view text, int rank) {
  const size_t space = text.find(' ');
  int code = 0;
  if (space == absl::string_view::npos || !absl::SimpleAtoi(text.substr(0, space), &code)) {
    code = static_cast<int>(absl::StatusCode::kInternal);
  }
  return absl::Status(static_cast<absl::StatusCode>(code),
                      absl::StrCat("rank ", rank, ": ", text.substr(space + 1)));
}

int64_t NanosecondsSince(std::chrono::steady_clock::time_point begin) {
  return std::chrono::nanoseconds(std::chrono::steady_clock::now() - begin).count();
}

// The status of `operation`, a transport's, counted as `bytes` that this rank passed in
// and the time it took.
template <typename Operation>
absl::Status Counted(Counter bytes_counter, Counter time_counter, int64_t bytes,
                     const Operation& operation) {
  const auto begin = std::chrono::steady_clock::now();
  const absl::Status status = operation();
  Count(bytes_counter, bytes);
  Count(time_counter, NanosecondsSince(begin));
  return status;
}

template <typename Operation>
absl::Status CountedReduce(std::span<const int64_t> values, const Operation& operation) {
  return Counted(Counter::kReduceBytes, Counter::kReduceNanoseconds,
                 std::ssize(std::as_bytes(values)), operation);
}

template <typename Operation>
absl::Status CountedGather(std::span<const std::byte> mine, const Operation& operation) {
  return Counted(Counter::kGatherBytes, Counter::kGatherNanoseconds, std::ssize(mine), operation);
}

}  // namespace

absl::Status Collective::CheckRoot(absl::string_view name, int root) const {
  if (root >= 0 && root < world_size()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name, ": root ", root, ", expected one of ", world_size(), " ranks"));
}

absl::Status Collective::AllReduceSum(std::span<int64_t> values) {
  return CountedReduce(values,
                       [&] { return DoReduce("AllReduceSum", values, Op::kSum, kAllRanks); });
}

absl::Status Collective::ReduceSum(std::span<int64_t> values, int root) {
  LLMC_RETURN_IF_ERROR(CheckRoot("ReduceSum", root));
  return CountedReduce(values, [&] { return DoReduce("ReduceSum", values, Op::kSum, root); });
}

template <typename T>
absl::Status Collective::ReduceExtrema(absl::string_view name, std::span<T> values, Op op) {
  const int64_t winner = WinningKey(op == Op::kMax);
  std::vector<int64_t> keys(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    keys[i] = values[i] != values[i] ? winner : SortKey(values[i]);
  }
  LLMC_RETURN_IF_ERROR(CountedReduce(keys, [&] { return DoReduce(name, keys, op, kAllRanks); }));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = keys[i] == winner ? std::numeric_limits<T>::quiet_NaN() : FromSortKey<T>(keys[i]);
  }
  return absl::OkStatus();
}

absl::Status Collective::AllReduceMax(std::span<int64_t> values) {
  return CountedReduce(values,
                       [&] { return DoReduce("AllReduceMax", values, Op::kMax, kAllRanks); });
}
absl::Status Collective::AllReduceMin(std::span<int64_t> values) {
  return CountedReduce(values,
                       [&] { return DoReduce("AllReduceMin", values, Op::kMin, kAllRanks); });
}
absl::Status Collective::AllReduceMax(std::span<double> values) {
  return ReduceExtrema("AllReduceMax", values, Op::kMax);
}
absl::Status Collective::AllReduceMin(std::span<double> values) {
  return ReduceExtrema("AllReduceMin", values, Op::kMin);
}
absl::Status Collective::AllReduceMax(std::span<float> values) {
  return ReduceExtrema("AllReduceMax", values, Op::kMax);
}
absl::Status Collective::AllReduceMin(std::span<float> values) {
  return ReduceExtrema("AllReduceMin", values, Op::kMin);
}

absl::Status Collective::Broadcast(std::span<std::byte> bytes, int root) {
  LLMC_RETURN_IF_ERROR(CheckRoot("Broadcast", root));
  return Counted(Counter::kBroadcastBytes, Counter::kBroadcastNanoseconds, std::ssize(bytes),
                 [&] { return DoBroadcast("Broadcast", bytes, root); });
}

absl::Status Collective::CheckOffsets(absl::string_view name, std::span<const std::byte> mine,
                                      std::span<const int64_t> offsets) const {
  const bool well_formed = std::ssize(offsets) == world_size() + 1 && offsets.front() == 0 &&
                           std::is_sorted(offsets.begin(), offsets.end());
  if (!well_formed) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": offsets, expected ", world_size() + 1,
                                                   " rising numbers that begin with 0"));
  }
  const int64_t length = offsets[rank() + 1] - offsets[rank()];
  if (std::ssize(mine) == length) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name, ": rank ", rank(), " passed ", mine.size(), " bytes, expected ", length));
}

absl::Status Collective::AllGather(std::span<const std::byte> mine,
                                   std::span<const int64_t> offsets, std::span<std::byte> out) {
  LLMC_RETURN_IF_ERROR(CheckOffsets("AllGather", mine, offsets));
  if (std::ssize(out) != offsets.back()) {
    return absl::InvalidArgumentError(
        absl::StrCat("AllGather: output of ", out.size(), " bytes, expected ", offsets.back()));
  }
  return CountedGather(mine, [&] { return DoGather("AllGather", mine, offsets, out, kAllRanks); });
}

absl::Status Collective::Gather(std::span<const std::byte> mine, std::span<const int64_t> offsets,
                                std::span<std::byte> out, int root) {
  LLMC_RETURN_IF_ERROR(CheckRoot("Gather", root));
  LLMC_RETURN_IF_ERROR(CheckOffsets("Gather", mine, offsets));
  if (rank() == root && std::ssize(out) != offsets.back()) {
    return absl::InvalidArgumentError(
        absl::StrCat("Gather: output of ", out.size(), " bytes, expected ", offsets.back()));
  }
  return CountedGather(mine, [&] { return DoGather("Gather", mine, offsets, out, root); });
}

absl::StatusOr<std::vector<std::string>> Collective::GatherStringsTo(absl::string_view name,
                                                                     absl::string_view mine,
                                                                     int root) {
  std::vector<int64_t> offsets(world_size() + 1, 0);
  offsets[rank() + 1] = std::ssize(mine);
  LLMC_RETURN_IF_ERROR(
      CountedReduce(offsets, [&] { return DoReduce(name, offsets, Op::kSum, kAllRanks); }));
  for (int r = 0; r < world_size(); ++r) offsets[r + 1] += offsets[r];
  const bool receives = root == kAllRanks || root == rank();
  std::string joined(receives ? offsets.back() : 0, '\0');
  LLMC_RETURN_IF_ERROR(CountedGather(AsBytes(mine), [&] {
    return DoGather(name, AsBytes(mine), offsets, std::as_writable_bytes(std::span(joined)), root);
  }));
  std::vector<std::string> strings;
  for (int r = 0; receives && r < world_size(); ++r) {
    strings.push_back(joined.substr(offsets[r], offsets[r + 1] - offsets[r]));
  }
  return strings;
}

absl::StatusOr<std::vector<std::string>> Collective::GatherStrings(absl::string_view mine,
                                                                   int root) {
  LLMC_RETURN_IF_ERROR(CheckRoot("GatherStrings", root));
  return GatherStringsTo("GatherStrings", mine, root);
}

absl::StatusOr<std::vector<std::string>> Collective::AllGatherStrings(absl::string_view mine) {
  return GatherStringsTo("AllGatherStrings", mine, kAllRanks);
}

absl::Status Collective::Barrier() {
  const auto begin = std::chrono::steady_clock::now();
  const absl::Status status = DoBarrier();
  Count(Counter::kBarrierNanoseconds, NanosecondsSince(begin));
  return status;
}

absl::Status Collective::AgreeOnStatus(const absl::Status& mine) {
  if (world_size() == 1) return mine;
  int64_t num_failed[1] = {mine.ok() ? 0 : 1};
  LLMC_RETURN_IF_ERROR(CountedReduce(
      num_failed, [&] { return DoReduce("AgreeOnStatus", num_failed, Op::kSum, kAllRanks); }));
  if (num_failed[0] == 0) return absl::OkStatus();
  LLMC_ASSIGN_OR_RETURN(const std::vector<std::string> all,
                        GatherStringsTo("AgreeOnStatus", EncodeStatus(mine), kAllRanks));
  absl::Status first_consequence;
  for (int r = 0; r < world_size(); ++r) {
    if (all[r].empty()) continue;
    absl::Status status = DecodeStatus(all[r], r);
    if (!IsConsequence(status.code())) return status;
    first_consequence.Update(status);
  }
  return first_consequence;
}

}  // namespace llmc
