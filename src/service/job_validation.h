// Is a job worth queueing? Everything that can be known without doing it.
#ifndef LLMC_SERVICE_JOB_VALIDATION_H_
#define LLMC_SERVICE_JOB_VALIDATION_H_

#include <string>
#include <vector>

#include "llmc/v1/job.pb.h"
#include "rpc/allowed_roots.h"
#include "rpc/rpc_status.h"

namespace llmc {

struct ValidatedJob {
  std::vector<FieldViolation> violations;  // All of them; empty: it may be queued.
  v1::JobSpec spec;                        // Paths without links.
  v1::PlanSummary plan;
};

// Reads config.json, safetensors headers, the recipe, the tokenizer and the first
// row of every dataset; asks for the free disk. `job`: spec, labels and priority.
ValidatedJob ValidateJob(const v1::Job& job, const AllowedRoots& roots);

// "" or what is wrong with an id that a client chose.
std::string JobIdProblem(const std::string& id);

}  // namespace llmc

#endif  // LLMC_SERVICE_JOB_VALIDATION_H_
