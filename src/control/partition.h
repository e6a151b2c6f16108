// Who does what of a job on a pool of so many ranks.
#ifndef LLMC_CONTROL_PARTITION_H_
#define LLMC_CONTROL_PARTITION_H_

#include "llmc/v1/job.pb.h"

namespace llmc {

// Pure: by the plan and plan/partition.h, as every rank shares its work.
v1::Partition MakePartition(const v1::PlanSummary& plan, int world_size);

}  // namespace llmc

#endif  // LLMC_CONTROL_PARTITION_H_
