// The commands of `llmc` that talk to a coordinator.
#ifndef LLMC_CLIENT_JOB_COMMANDS_H_
#define LLMC_CLIENT_JOB_COMMANDS_H_

#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "cli/job_options.h"
#include "client/channel.h"
#include "plan/job.h"

namespace llmc {

// What scripts see. Differs from the exit codes of local commands, which have no
// server to lose: see docs/operations.md.
inline constexpr int kExitJobFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitNotFound = 3;
inline constexpr int kExitNotAllowed = 4;
inline constexpr int kExitUnreachable = 5;
inline constexpr int kExitRefused = 6;
inline constexpr int kExitJobCancelled = 7;
inline constexpr int kExitInternal = 70;
inline constexpr int kExitInterrupted = 130;

int ClientExitCode(const absl::Status& status);

// submit, get, list, watch, cancel, pause, resume, retry, delete, report, pools,
// backup.
class JobCommands {
 public:
  JobCommands();
  ~JobCommands();

  void Add(CLI::App& app, OutputOptions& output);
  bool Has(const std::string& command) const;
  // Runs the command that was parsed; returns the exit code.
  int Run(const std::string& command);

 private:
  class Client;
  struct Flags {
    ChannelOptions channel;
    Job job;
    std::string name;
    std::string job_id;
    std::string request_id;
    std::string filter;
    std::string report_file;
    std::string backup_file;
    std::vector<std::string> labels;
    int priority = 50;
    int min_ranks = 0;
    bool wait = false;
    bool validate_only = false;
  };

  CLI::App* AddCommand(CLI::App& app, const std::string& name, const std::string& description);
  void AddSubmit(CLI::App& app);

  Flags flags_;
  OutputOptions* output_ = nullptr;
};

}  // namespace llmc

#endif  // LLMC_CLIENT_JOB_COMMANDS_H_
