// The job as users, the wire and the pipeline name it.
#ifndef LLMC_RPC_JOB_MESSAGES_H_
#define LLMC_RPC_JOB_MESSAGES_H_

#include "llmc/step.h"
#include "llmc/v1/job.pb.h"
#include "plan/job.h"

namespace llmc {

// Fields that are not given take the defaults of `Job`.
Job ToJob(const v1::JobSpec& spec);

// A recipe file's text must be in job.recipe_text; else job.recipe is a preset.
v1::JobSpec ToJobSpec(const Job& job);

v1::StepRecord ToStepRecord(const StepEvent& event);
// A step or kind of a newer version becomes a warning that names it.
StepEvent ToStepEvent(const v1::StepRecord& record);

}  // namespace llmc

#endif  // LLMC_RPC_JOB_MESSAGES_H_
