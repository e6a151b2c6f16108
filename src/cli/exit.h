// How programs end: messages on stderr, one JSON object on stdout, exit codes.
#ifndef LLMC_CLI_EXIT_H_
#define LLMC_CLI_EXIT_H_

#include "CLI/CLI.hpp"
#include "cli/job_options.h"
#include "llmc/status.h"

namespace llmc {

// Parses and applies the config file, if `app` has --config. OK, or a status
// whose message is fit for the user. `*done` is set when help or version was
// printed and there is nothing left to do.
absl::Status Parse(CLI::App& app, int argc, char** argv, bool* done);

// Prints a failure ("llmc: error: ..."; with --json also an object
// {"error": {"code", "message"}} on stdout) and returns the exit code.
int Finish(const absl::Status& status, const OutputOptions& output);

// The command line as typed, quoted for a shell.
std::string CommandLine(int argc, char** argv);

}  // namespace llmc

#endif  // LLMC_CLI_EXIT_H_
