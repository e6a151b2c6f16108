// The flags of `compress`, `plan` and `submit`, the same in every program.
#ifndef LLMC_CLI_JOB_OPTIONS_H_
#define LLMC_CLI_JOB_OPTIONS_H_

#include <string>

#include "CLI/CLI.hpp"
#include "llmc/status.h"
#include "plan/job.h"

namespace llmc {

// How results and progress are shown.
struct OutputOptions {
  bool json = false;  // One JSON object on stdout; progress stays on stderr.
  bool quiet = false;
  bool all_ranks = false;      // Progress of every rank, not of rank 0 only.
  std::string color = "auto";  // auto, always, never.
};

// Adds the job's flags to `app`; parsing fills `job`. Every flag also reads
// LLMC_<NAME> from the environment.
void AddJobOptions(CLI::App& app, Job& job);
void AddOutputOptions(CLI::App& app, OutputOptions& output);

// Adds --config FILE. After parsing, call ApplyConfigFile: it sets the options
// that neither a flag nor the environment gave. kInvalidArgument for an unknown or repeated
// key or a bad value, kNotFound for an absent file.
void AddConfigOption(CLI::App& app);
absl::Status ApplyConfigFile(CLI::App& app);

}  // namespace llmc

#endif  // LLMC_CLI_JOB_OPTIONS_H_
