// Shell completion: the shell asks `llmc __complete WORDS...` what may follow.
#ifndef LLMC_CLIENT_COMPLETION_H_
#define LLMC_CLIENT_COMPLETION_H_

#include <string>
#include <vector>

#include "CLI/CLI.hpp"

namespace llmc {

inline constexpr char kCompleteCommand[] = "__complete";

// Adds `completion bash|zsh|fish`.
void AddCompletion(CLI::App& app);
// After `completion` was parsed: prints the script to source; returns the exit code.
int PrintCompletionScript(const CLI::App& app);

// Prints the commands or flags that begin with the last word, one a line. Returns 0.
int PrintCompletions(const CLI::App& app, const std::vector<std::string>& words);

}  // namespace llmc

#endif  // LLMC_CLIENT_COMPLETION_H_
