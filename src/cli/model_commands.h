// The commands of `llmc` that need no LibTorch: plan, inspect, verify, tokenize.
#ifndef LLMC_CLI_MODEL_COMMANDS_H_
#define LLMC_CLI_MODEL_COMMANDS_H_

#include <string>
#include <vector>

#include "cli/job_options.h"
#include "llmc/status.h"
#include "plan/job.h"

namespace llmc {

// What would be done to each tensor; writes nothing. `num_ranks` >= 1.
absl::Status PrintPlan(const Job& job, int num_ranks, const OutputOptions& output);

struct InspectRequest {
  std::string dir;
  bool every_tensor = false;
};
absl::Status PrintInspection(const InspectRequest& request, const OutputOptions& output);

struct VerifyRequest {
  std::string dir;
  std::string against;  // Empty: none.
};
// kDataLoss when the checkpoint is not sound; the problems have been printed.
absl::Status PrintVerification(const VerifyRequest& request, const OutputOptions& output);

// Rows of input_ids as a calibration of `job` would use them, into `file`.
absl::Status TokenizeToFile(const Job& job, const std::string& file, const OutputOptions& output);

}  // namespace llmc

#endif  // LLMC_CLI_MODEL_COMMANDS_H_
