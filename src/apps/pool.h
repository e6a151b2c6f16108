// `llmc-worker pool`: ranks that lease jobs from a coordinator.
#ifndef LLMC_APPS_POOL_H_
#define LLMC_APPS_POOL_H_

#include <atomic>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "client/channel.h"
#include "collective/collective.h"

namespace llmc {

// What mpirun and schedulers see.
inline constexpr int kExitDrained = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitCoordinatorLost = 69;
inline constexpr int kExitTryAgain = 75;
inline constexpr int kExitBadConfiguration = 78;

struct PoolOptions {
  ChannelOptions channel;
  std::string name;                      // Empty: slurm-JOBID, or host-PID of rank 0.
  bool once = false;                     // End after one job.
  std::vector<std::string> allow_roots;  // Empty: any path.
  double give_up_s = 0;                  // Without a word of the coordinator; 0: never.
  int64_t beat_interval_ms = 2000;
};

void AddPoolOptions(CLI::App& app, PoolOptions& options);

// Every rank calls it. Returns the exit code. `stop`: set by a signal; the layer is
// finished, the job given back, and the pool ends.
int RunPool(const PoolOptions& options, Collective& collective, const std::atomic<bool>& stop);

}  // namespace llmc

#endif  // LLMC_APPS_POOL_H_
