// Which states a job may pass through.
#ifndef LLMC_CONTROL_JOB_STATE_H_
#define LLMC_CONTROL_JOB_STATE_H_

#include "absl/strings/string_view.h"
#include "llmc/v1/job.pb.h"

namespace llmc {

// "QUEUED", "RUNNING", ...
absl::string_view StateName(v1::JobState state);

// SUCCEEDED, FAILED, CANCELLED: what only RetryJob leaves.
bool IsEnd(v1::JobState state);

// A pool may be working on it: LEASED, RUNNING, PAUSING, CANCELLING.
bool HoldsLease(v1::JobState state);

// The edges of the state graph. From UNSPECIFIED a job is created.
bool MayMove(v1::JobState from, v1::JobState to);

}  // namespace llmc

#endif  // LLMC_CONTROL_JOB_STATE_H_
