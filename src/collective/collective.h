// Communication between the ranks of one job: reduce, broadcast, gather,
// barrier, and agreement on errors.
//
// All ranks call the same operations in the same order with equal sizes and
// roots. Sums are of integers, and maxima and minima are compared as integers,
// so a result has the same bits on every rank and for every way the terms were
// spread over ranks.
//
// Errors: a peer that does not arrive within the timeout, or has left, gives
// kUnavailable naming the operation; peers that call different operations give
// kInternal where that can be seen. There is no recovery inside: after an error
// every later call fails at once with the same status, and the job layer starts
// a new world. An operation that failed leaves its arguments unspecified, but
// never touches them after it has returned.
//
// Thread-safety: one call at a time per object; any thread may make it.
#ifndef LLMC_COLLECTIVE_COLLECTIVE_H_
#define LLMC_COLLECTIVE_COLLECTIVE_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "llmc/status.h"

namespace llmc {

class Collective {
 public:
  virtual ~Collective() = default;
  Collective(const Collective&) = delete;
  Collective& operator=(const Collective&) = delete;

  virtual int rank() const = 0;
  virtual int world_size() const = 0;

  // Ranks that share this host's memory and cores, and this rank's place among
  // them: what a thread count, a memory budget or a GPU is divided by.
  virtual int ranks_on_host() const = 0;
  virtual int rank_on_host() const = 0;

  // Element-wise sums over ranks, modulo 2^64. Any length, also 0.
  absl::Status AllReduceSum(std::span<int64_t> values);
  // Only `root`'s values become the sums; the others keep theirs.
  absl::Status ReduceSum(std::span<int64_t> values, int root);

  // Element-wise extrema over ranks. A NaN on any rank gives NaN; -0 < +0.
  absl::Status AllReduceMax(std::span<int64_t> values);
  absl::Status AllReduceMin(std::span<int64_t> values);
  absl::Status AllReduceMax(std::span<double> values);
  absl::Status AllReduceMin(std::span<double> values);
  absl::Status AllReduceMax(std::span<float> values);
  absl::Status AllReduceMin(std::span<float> values);

  // Copies `root`'s bytes to the other ranks.
  absl::Status Broadcast(std::span<std::byte> bytes, int root);

  // Concatenates the ranks' bytes in `out`, rank r's at [offsets[r],
  // offsets[r + 1]). `offsets` (world_size + 1 of them, rising, last =
  // out.size()) is the same on all ranks and `mine` has this rank's length;
  // `mine` may be its own place in `out`. kInvalidArgument otherwise.
  absl::Status AllGather(std::span<const std::byte> mine, std::span<const int64_t> offsets,
                         std::span<std::byte> out);
  // The same, on `root` only; the others may pass an empty `out`.
  absl::Status Gather(std::span<const std::byte> mine, std::span<const int64_t> offsets,
                      std::span<std::byte> out, int root);

  // Every rank's string, in rank order; empty on ranks other than `root`.
  absl::StatusOr<std::vector<std::string>> GatherStrings(absl::string_view mine, int root);
  absl::StatusOr<std::vector<std::string>> AllGatherStrings(absl::string_view mine);

  // Returns on no rank before every rank has called it.
  absl::Status Barrier();

  // Ends a step on which ranks may have failed separately: all ranks return OK
  // when all passed OK, else all return one rank's status, "rank r: message" (a
  // world of one: the message as it is).
  // A cause goes before its consequences (kAborted, kUnavailable, kCancelled),
  // then the lower rank.
  absl::Status AgreeOnStatus(const absl::Status& mine);

  // Ends the work of every rank within seconds, for errors on which a rank
  // cannot go on. Under MPI the whole world is killed and this does not return;
  // thread peers get kUnavailable from what they wait for. Any thread, any time.
  virtual void Abort(absl::string_view why) = 0;

 protected:
  enum class Op : uint8_t { kSum, kMax, kMin };
  static constexpr int kAllRanks = -1;

  Collective() = default;

  // What a transport implements; arguments have been checked. `name` is the
  // public operation, for messages.
  virtual absl::Status DoReduce(absl::string_view name, std::span<int64_t> values, Op op,
                                int root) = 0;
  virtual absl::Status DoBroadcast(absl::string_view name, std::span<std::byte> bytes,
                                   int root) = 0;
  virtual absl::Status DoGather(absl::string_view name, std::span<const std::byte> mine,
                                std::span<const int64_t> offsets, std::span<std::byte> out,
                                int root) = 0;
  virtual absl::Status DoBarrier() = 0;

 private:
  template <typename T>
  absl::Status ReduceExtrema(absl::string_view name, std::span<T> values, Op op);
  absl::Status CheckRoot(absl::string_view name, int root) const;
  absl::Status CheckOffsets(absl::string_view name, std::span<const std::byte> mine,
                            std::span<const int64_t> offsets) const;
  absl::StatusOr<std::vector<std::string>> GatherStringsTo(absl::string_view name,
                                                           absl::string_view mine, int root);
};

// A world of one rank.
std::unique_ptr<Collective> MakeSelfCollective();

struct CollectiveOptions {
  // How long a rank waits for its peers in one operation. Longer than any step
  // between two operations may take; a dead peer is found sooner by mpirun.
  std::chrono::milliseconds timeout = std::chrono::minutes(30);
};

// A world of `world_size` threads of this process; element r belongs to the
// thread that plays rank r. Destroying one makes its peers' calls fail.
std::vector<std::unique_ptr<Collective>> MakeThreadCollectives(
    int world_size, const CollectiveOptions& options = {});

// True when this process was started by mpirun or an MPI-aware launcher.
bool LaunchedByMpi();

// The world of mpirun. Initialises MPI; at most once in a process. Destroying it
// finalises MPI, unless an operation has failed: then MPI is left as it is and
// the launcher ends the peers when this process exits. kUnavailable when MPI
// cannot start, kFailedPrecondition on a second call.
absl::StatusOr<std::unique_ptr<Collective>> MakeMpiCollective(
    const CollectiveOptions& options = {});

}  // namespace llmc

#endif  // LLMC_COLLECTIVE_COLLECTIVE_H_
