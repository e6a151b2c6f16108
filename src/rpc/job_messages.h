// The job as users, the wire and the pipeline name it.
#ifndef LLMC_RPC_JOB_MESSAGES_H_
#define LLMC_RPC_JOB_MESSAGES_H_

#include <string>

#include "absl/strings/string_view.h"
#include "llmc/step.h"
#include "llmc/v1/job.pb.h"
#include "plan/job.h"

namespace llmc {

// Fields that are not given take the defaults of `Job`.
Job ToJob(const v1::JobSpec& spec);

// A recipe file's text must be in job.recipe_text; else job.recipe is a preset.
v1::JobSpec ToJobSpec(const Job& job);

// For a proto string, which must be UTF-8: at most 2000 bytes, '?' for what is not
// printable ASCII.
std::string ToProtoText(absl::string_view text);

v1::StepRecord ToStepRecord(const StepEvent& event);
// A step or kind of a newer version becomes a warning that names it.
StepEvent ToStepEvent(const v1::StepRecord& record);

}  // namespace llmc

#endif  // LLMC_RPC_JOB_MESSAGES_H_
