// Starting llmc-worker, which lies beside this program.
#ifndef LLMC_CLI_WORKER_LAUNCH_H_
#define LLMC_CLI_WORKER_LAUNCH_H_

#include <string>
#include <vector>

#include "llmc/status.h"

namespace llmc {

// Replaces this process by `llmc-worker arguments...`, under mpirun when
// `num_ranks` > 1 (each rank then gets its share of the CPUs). Returns only on
// failure.
absl::Status LaunchWorker(const std::vector<std::string>& arguments, int num_ranks);

}  // namespace llmc

#endif  // LLMC_CLI_WORKER_LAUNCH_H_
