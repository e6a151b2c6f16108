// Jobs and pools as lines for a terminal.
#ifndef LLMC_CLIENT_JOB_TEXT_H_
#define LLMC_CLIENT_JOB_TEXT_H_

#include <cstdint>
#include <string>

#include "llmc/v1/job_service.pb.h"

namespace llmc {

// Everything from other people is escaped. `now_s`: since 1970, UTC.
std::string StateText(v1::JobState state);
std::string ToText(const v1::Job& job, int64_t now_s);
// A table with one line a job.
std::string ToText(const v1::ListJobsResponse& jobs, int64_t now_s);
std::string ToText(const v1::ListPoolsResponse& pools);
// "42 s", "7 min", "3 h", "5 d".
std::string AgeText(int64_t seconds);

}  // namespace llmc

#endif  // LLMC_CLIENT_JOB_TEXT_H_
