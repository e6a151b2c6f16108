// The flags of `eval`, the same in llmc and llmc-worker.
#ifndef LLMC_CLI_EVAL_OPTIONS_H_
#define LLMC_CLI_EVAL_OPTIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"

namespace llmc {

struct EvalRequest {
  std::string model;
  std::string against;  // Empty: none.
  std::vector<std::string> datasets;
  std::string text_column = "text";
  int64_t max_seq_length = 2048;  // Tokens of a window.
  int64_t num_windows = 0;        // 0: all.
  std::string compute_dtype = "float32";
};

void AddEvalOptions(CLI::App& app, EvalRequest& request);

}  // namespace llmc

#endif  // LLMC_CLI_EVAL_OPTIONS_H_
