// What a user asks for, before anything was read.
#ifndef LLMC_PLAN_JOB_H_
#define LLMC_PLAN_JOB_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "llmc/scheme.h"

namespace llmc {

// The type in which a layer's matrix products run. kAuto measures float32 and
// bfloat16 once and takes the faster; only a bfloat16 model may use bfloat16.
enum class ComputeDType : uint8_t { kAuto, kFloat32, kBFloat16 };

// One compression job, as flags, environment and config file give it.
struct Job {
  std::string model;                       // Directory, or org/name in the local cache.
  std::string recipe;                      // File, or the name of a preset scheme.
  std::optional<std::string> recipe_text;  // When given, `recipe` only names it in messages.
  std::vector<std::string> datasets;       // Files or directories; none for data-free jobs.
  std::string output;                      // Directory that must not exist.

  int64_t num_calibration_samples = 512;
  int64_t max_seq_length = 2048;  // Tokens.
  std::string text_column = "text";
  uint64_t seed = 42;
  bool shuffle = true;

  std::optional<int64_t> memory_budget_bytes;  // Host memory of one rank.
  // Of the CUDA device of one rank; also bounded by what is free.
  std::optional<int64_t> device_memory_budget_bytes;
  std::string work_dir;                        // Spilled activations; empty: $TMPDIR or /tmp.
  int64_t max_shard_bytes = 5'000'000'000;
  std::string device = "auto";  // "auto", "cpu" or "cuda".
  ComputeDType compute_dtype = ComputeDType::kAuto;
  QuotientRounding quotient_rounding = QuotientRounding::kModelDtype;
  // How zeros of pruned weights are stored in the output; absent: as the recipe says.
  std::optional<SparseFormat> sparse_format;
  bool fresh = false;  // Ignore an earlier unfinished run, replace a finished one.

  std::vector<std::string> eval_datasets;  // Perplexity before and after, when given.
  int64_t eval_num_windows = 64;
};

}  // namespace llmc

#endif  // LLMC_PLAN_JOB_H_
