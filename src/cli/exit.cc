#include "cli/exit.h"

#include <cstdio>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "report/terminal.h"

namespace llmc {

absl::Status Parse(CLI::App& app, int argc, char** argv, bool* done) {
  *done = false;
  // A command with a callback of its own is evaluated only when it was given. Else the
  // environment of every command would write to what commands share.
  for (CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    command->parse_complete_callback([] {});
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    app.exit(success, std::cout, std::cerr);
    *done = true;
    return absl::OkStatus();
  } catch (const CLI::Error& error) {
    return absl::InvalidArgumentError(absl::StrCat(error.what(), " (--help lists the flags)"));
  }
  for (CLI::App* command : app.get_subcommands()) {
    if (command->get_option_no_throw("--config") != nullptr) return ApplyConfigFile(*command);
  }
  return absl::OkStatus();
}

int Finish(const absl::Status& status, const OutputOptions& output) {
  if (status.ok()) return 0;
  const std::string code = absl::StatusCodeToString(status.code());
  if (output.json) {
    const nlohmann::json error = {
        {"error", {{"code", code}, {"message", std::string(status.message())}}}};
    std::cout << error.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
  }
  const char* kind = status.code() == absl::StatusCode::kCancelled ? "stopped" : "error";
  std::cerr << "llmc: " << kind << ": " << EscapeForTerminal(status.message()) << "\n";
  return ExitCode(status);
}

std::string CommandLine(int argc, char** argv) {
  std::string line;
  for (int i = 0; i < argc; ++i) {
    std::string word = argv[i];
    const bool plain =
        !word.empty() && word.find_first_of(" \t\n'\"\\$`*?[](){}<>|&;#!~") == std::string::npos;
    if (!plain) {
      std::string quoted = "'";
      for (char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
      word = quoted + "'";
    }
    absl::StrAppend(&line, i == 0 ? "" : " ", word);
  }
  return line;
}

}  // namespace llmc
