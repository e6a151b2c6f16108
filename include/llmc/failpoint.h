// Named places where a test makes a run fail.
//
// LLMC_FAILPOINTS="write.before_sync=kill@2;solve.layer=error" : the action is
// `kill` (SIGKILL to this process), `error` (the call returns kInternal),
// `enospc` (kResourceExhausted), `term` (SIGTERM to this process) or
// `sleep(MS)`; `@n` limits it to the n-th hit (1-based), `/r` to rank r.
#ifndef LLMC_FAILPOINT_H_
#define LLMC_FAILPOINT_H_

#include <vector>

#include "absl/strings/string_view.h"
#include "llmc/status.h"

namespace llmc {

// Acts as LLMC_FAILPOINTS says for `name`; OK when nothing is set for it.
absl::Status Failpoint(absl::string_view name);

// The rank that `/r` is compared with. Default 0.
void SetFailpointRank(int rank);

}  // namespace llmc

#endif  // LLMC_FAILPOINT_H_
