// What this rank has done, for metrics.
#ifndef LLMC_APPS_RANK_COUNTERS_H_
#define LLMC_APPS_RANK_COUNTERS_H_

#include "llmc/v1/job_service.pb.h"

namespace llmc {

// Since this process began.
v1::RankCounters ReadRankCounters();

}  // namespace llmc

#endif  // LLMC_APPS_RANK_COUNTERS_H_
