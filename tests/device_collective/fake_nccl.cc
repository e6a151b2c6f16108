// NCCL among the threads of one process. As with the real one: calls do not wait, a
// communicator comes up when all ranks have asked for it, the device's part of an
// operation waits for the peers' parts, and only an abort ends that wait.
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "fake_cuda.h"

namespace {

// One rank's part in an operation on the device.
struct Part {
  enum class Kind { kReduce, kBroadcast } kind;
  const void* give;
  void* take;
  size_t count;
  int root;  // -1: all.
};

struct World {
  int num_ranks = 0;
  std::set<int> present;
  std::map<int64_t, std::map<int, Part>> meetings;  // By number of operation.
  std::set<int64_t> done;
};

std::mutex mutex;  // Of everything here.
std::condition_variable changed;
std::map<int64_t, std::shared_ptr<World>> worlds;
std::map<ncclComm_t, std::shared_ptr<ncclComm>> live;
int64_t next_id = 1;
int held_rank = -1;
std::map<int, ncclResult_t> failures;

}  // namespace

struct ncclComm {
  std::shared_ptr<World> world;
  int rank = 0;
  int64_t num_enqueued = 0;
  // Looks at the state until the host's part of a call is over.
  int looks_left = 0;
  ncclResult_t failure = ncclSuccess;
  bool is_aborted = false;
};

namespace {

// Calls inside ncclGroupStart and ncclGroupEnd.
struct Group {
  int depth = 0;
  std::vector<std::function<void()>> calls;
  ncclComm_t communicator = nullptr;
};
thread_local Group group;

void CheckLive(ncclComm_t communicator) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (live.contains(communicator)) return;
  std::fputs("a communicator is used after its end\n", stderr);
  std::abort();
}

void Operate(const std::map<int, Part>& parts) {
  const Part& first = parts.begin()->second;
  if (first.kind == Part::Kind::kBroadcast) {
    for (const auto& [rank, part] : parts) {
      if (rank != part.root) std::memcpy(part.take, parts.at(part.root).give, part.count);
    }
    return;
  }
  std::vector<uint64_t> sums(first.count, 0);
  for (const auto& [rank, part] : parts) {
    const auto* values = static_cast<const uint64_t*>(part.give);
    for (size_t i = 0; i < sums.size(); ++i) sums[i] += values[i];
  }
  for (const auto& [rank, part] : parts) {
    if (part.root == -1 || part.root == rank) std::memcpy(part.take, sums.data(), 8 * sums.size());
  }
}

bool AreOneOperation(const std::map<int, Part>& parts) {
  const Part& first = parts.begin()->second;
  for (const auto& [rank, part] : parts) {
    if (part.kind != first.kind || part.count != first.count || part.root != first.root) {
      return false;
    }
  }
  return true;
}

// What runs on the stream.
void Meet(ncclComm& mine, int64_t number, const Part& part) {
  std::unique_lock<std::mutex> lock(mutex);
  if (mine.is_aborted) return;
  if (const auto fault = failures.find(mine.rank); fault != failures.end()) {
    mine.failure = fault->second;
    failures.erase(fault);
    changed.wait(lock, [&] { return mine.is_aborted; });
    return;
  }
  World& world = *mine.world;
  std::map<int, Part>& parts = world.meetings[number];
  parts.emplace(mine.rank, part);
  if (static_cast<int>(parts.size()) == world.num_ranks) {
    if (AreOneOperation(parts)) {
      Operate(parts);
      world.done.insert(number);
    } else {
      mine.failure = ncclInvalidUsage;
    }
    changed.notify_all();
  }
  changed.wait(lock, [&] { return mine.is_aborted || world.done.contains(number); });
  // Its memory is the caller's again.
  parts.erase(mine.rank);
}

ncclResult_t Enqueue(ncclComm_t communicator, cudaStream_t stream, const Part& part) {
  CheckLive(communicator);
  const auto add = [=] {
    const std::lock_guard<std::mutex> lock(mutex);
    const int64_t number = communicator->num_enqueued++;
    llmc::fake::Enqueue(
        stream, [mine = live.at(communicator), number, part] { Meet(*mine, number, part); });
  };
  if (group.depth > 0) {
    group.calls.push_back(add);
    group.communicator = communicator;
    return ncclSuccess;
  }
  add();
  const std::lock_guard<std::mutex> lock(mutex);
  communicator->looks_left = 3;
  return ncclInProgress;
}

void End(ncclComm_t communicator) {
  CheckLive(communicator);
  const std::lock_guard<std::mutex> lock(mutex);
  communicator->is_aborted = true;
  changed.notify_all();
  live.erase(communicator);
}

}  // namespace

namespace llmc::fake {

void ResetNccl() {
  const std::lock_guard<std::mutex> lock(mutex);
  held_rank = -1;
  failures.clear();
  worlds.clear();
}
void HoldStart(int rank) {
  const std::lock_guard<std::mutex> lock(mutex);
  held_rank = rank;
}
void FailNextOperation(int rank, ncclResult_t why) {
  const std::lock_guard<std::mutex> lock(mutex);
  failures[rank] = why;
}
int NumLiveCommunicators() {
  const std::lock_guard<std::mutex> lock(mutex);
  return static_cast<int>(live.size());
}

}  // namespace llmc::fake

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
  *version = 22809;
  return ncclSuccess;
}
const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclRemoteError ? "remote process exited" : "an error";
}
const char* ncclGetLastError(ncclComm_t) { return "of the fake"; }

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  const std::lock_guard<std::mutex> lock(mutex);
  std::memset(id, 0, sizeof(*id));
  std::memcpy(id->internal, &next_id, sizeof(next_id));
  ++next_id;
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* communicator, int num_ranks, ncclUniqueId id,
                                    int rank, ncclConfig_t* config) {
  if (config->blocking != 0) return ncclInvalidArgument;
  int64_t key = 0;
  std::memcpy(&key, id.internal, sizeof(key));
  const std::lock_guard<std::mutex> lock(mutex);
  std::shared_ptr<World>& world = worlds[key];
  if (world == nullptr) world = std::make_shared<World>();
  world->num_ranks = num_ranks;
  if (rank != held_rank) world->present.insert(rank);
  const auto made = std::make_shared<ncclComm>();
  made->world = world;
  made->rank = rank;
  live[made.get()] = made;
  *communicator = made.get();
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t communicator, ncclResult_t* state) {
  CheckLive(communicator);
  const std::lock_guard<std::mutex> lock(mutex);
  const World& world = *communicator->world;
  const bool is_up = static_cast<int>(world.present.size()) == world.num_ranks;
  *state = communicator->failure;
  if (*state == ncclSuccess && (!is_up || communicator->looks_left > 0)) *state = ncclInProgress;
  if (communicator->looks_left > 0) --communicator->looks_left;
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
  ++group.depth;
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
  if (--group.depth > 0 || group.calls.empty()) return ncclSuccess;
  for (const auto& call : group.calls) call();
  group.calls.clear();
  const std::lock_guard<std::mutex> lock(mutex);
  group.communicator->looks_left = 3;
  return ncclInProgress;
}

ncclResult_t ncclAllReduce(const void* give, void* take, size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t communicator, cudaStream_t stream) {
  if (type != ncclInt64 || op != ncclSum) return ncclInvalidArgument;
  return Enqueue(communicator, stream, {Part::Kind::kReduce, give, take, count, -1});
}
ncclResult_t ncclReduce(const void* give, void* take, size_t count, ncclDataType_t type,
                        ncclRedOp_t op, int root, ncclComm_t communicator, cudaStream_t stream) {
  if (type != ncclInt64 || op != ncclSum) return ncclInvalidArgument;
  return Enqueue(communicator, stream, {Part::Kind::kReduce, give, take, count, root});
}
ncclResult_t ncclBroadcast(const void* give, void* take, size_t count, ncclDataType_t type,
                           int root, ncclComm_t communicator, cudaStream_t stream) {
  if (type != ncclUint8) return ncclInvalidArgument;
  return Enqueue(communicator, stream, {Part::Kind::kBroadcast, give, take, count, root});
}

ncclResult_t ncclCommFinalize(ncclComm_t communicator) {
  CheckLive(communicator);
  const std::lock_guard<std::mutex> lock(mutex);
  communicator->looks_left = 3;
  return ncclInProgress;
}
ncclResult_t ncclCommDestroy(ncclComm_t communicator) {
  End(communicator);
  return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t communicator) {
  End(communicator);
  return ncclSuccess;
}

}  // extern "C"
