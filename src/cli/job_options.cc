#include "cli/job_options.h"

#include <algorithm>
#include <exception>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "llmc/byte_size.h"

namespace llmc {
namespace {

// "--max-seq-length" -> "LLMC_MAX_SEQ_LENGTH".
std::string EnvironmentName(const std::string& flag) {
  return absl::StrCat("LLMC_",
                      absl::AsciiStrToUpper(absl::StrReplaceAll(flag.substr(2), {{"-", "_"}})));
}

template <typename T>
CLI::Option* AddOption(CLI::App& app, const std::string& flag, T& value,
                       const std::string& description) {
  return app.add_option(flag, value, description)
      ->envname(EnvironmentName(flag))
      ->capture_default_str();
}

// An option whose value is a size; a wrong one ends the parse.
CLI::Option* AddSize(CLI::App& app, const std::string& flag, const std::string& description,
                     std::function<void(int64_t)> set) {
  auto parse = [flag, set = std::move(set)](const std::string& text) {
    absl::StatusOr<int64_t> bytes = ParseByteSize(text);
    if (!bytes.ok()) throw CLI::ValidationError(flag, std::string(bytes.status().message()));
    set(*bytes);
  };
  return app.add_option_function<std::string>(flag, parse, description)
      ->type_name("SIZE")
      ->envname(EnvironmentName(flag));
}

// What is wrong with a seed, or "". The parser's own conversion wraps a minus sign.
std::string SeedProblem(const std::string& text) {
  uint64_t seed = 0;
  const bool is_unsigned = !text.empty() && text[0] != '-' && absl::SimpleAtoi(text, &seed);
  return is_unsigned ? "" : absl::StrCat(text, ": expected a whole number from 0 to 2^64 - 1");
}

void AddCalibrationOptions(CLI::App& app, Job& job) {
  app.add_option("--dataset", job.datasets,
                 "calibration text: .jsonl .json .txt .csv .parquet, also .gz and .zst, or a "
                 "directory of them")
      ->type_name("FILE...")
      ->envname("LLMC_DATASET");
  AddOption(app, "--num-calibration-samples", job.num_calibration_samples, "samples to use")
      ->check(CLI::Range(int64_t{1}, int64_t{100'000'000}));
  AddOption(app, "--max-seq-length", job.max_seq_length, "tokens that are kept of a sample")
      ->check(CLI::Range(int64_t{1}, int64_t{16'777'216}));
  AddOption(app, "--text-column", job.text_column, "column that holds the text");
  AddOption(app, "--seed", job.seed, "seed of the sample choice")
      ->check(CLI::Validator(SeedProblem, "UINT64"));
  app.add_flag("--shuffle,!--no-shuffle", job.shuffle,
               "choose samples at random (seeded), or take the first ones in file order")
      ->envname("LLMC_SHUFFLE");
}

void AddNumericOptions(CLI::App& app, Job& job) {
  static const std::map<std::string, ComputeDType> kComputeDTypes = {
      {"auto", ComputeDType::kAuto},
      {"float32", ComputeDType::kFloat32},
      {"bfloat16", ComputeDType::kBFloat16}};
  static const std::map<std::string, QuotientRounding> kRoundings = {
      {"model-dtype", QuotientRounding::kModelDtype}, {"float32", QuotientRounding::kFloat32}};
  app.add_option("--device", job.device,
                 "where layers are computed; auto takes a CUDA device when there is one")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->envname("LLMC_DEVICE")
      ->capture_default_str();
  app.add_option("--compute-dtype", job.compute_dtype,
                 "type of a layer's matrix products; auto measures and takes the faster")
      ->transform(CLI::CheckedTransformer(kComputeDTypes).description(""))
      ->type_name("auto|float32|bfloat16")
      ->envname("LLMC_COMPUTE_DTYPE");
  app.add_option("--quotient-rounding", job.quotient_rounding,
                 "round weight/scale to the model's dtype (as the reference does on CPU) or keep "
                 "float32 (as it does on GPU)")
      ->transform(CLI::CheckedTransformer(kRoundings).description(""))
      ->type_name("model-dtype|float32")
      ->envname("LLMC_QUOTIENT_ROUNDING");
}

// `seen`: the options that earlier items have named.
absl::Status ApplyItem(CLI::App& app, const CLI::ConfigItem& item,
                       std::set<const CLI::Option*>& seen) {
  const std::string name = absl::StrReplaceAll(item.name, {{"_", "-"}});
  CLI::Option* option = app.get_option_no_throw(absl::StrCat("--", name));
  if (option == nullptr || !item.parents.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("unknown key \"", item.fullname(), "\""));
  }
  if (!seen.insert(option).second) {
    return absl::InvalidArgumentError(absl::StrCat("key \"", item.name, "\" is given twice"));
  }
  if (option->count() > 0) return absl::OkStatus();
  const bool is_flag = option->get_expected_max() == 0;
  for (const std::string& input : item.inputs) {
    option->add_result(is_flag ? option->get_flag_value(name, input) : input);
  }
  option->run_callback();
  return absl::OkStatus();
}

}  // namespace

void AddJobOptions(CLI::App& app, Job& job) {
  AddOption(app, "--model", job.model, "model directory, or org/name in the local hub cache")
      ->type_name("DIR");
  AddOption(app, "--recipe", job.recipe, "recipe file, or a preset such as W4A16")
      ->type_name("FILE|PRESET");
  AddOption(app, "--output", job.output, "directory to write; must not exist")->type_name("DIR");
  AddCalibrationOptions(app, job);
  AddSize(app, "--memory-budget", "host memory that one rank may use, such as 24GiB",
          [&job](int64_t bytes) { job.memory_budget_bytes = bytes; });
  AddSize(app, "--device-memory-budget",
          "memory of a CUDA device that one rank may use (default: what is free)",
          [&job](int64_t bytes) { job.device_memory_budget_bytes = bytes; });
  AddOption(app, "--work-dir", job.work_dir, "where activations spill to (default: $TMPDIR)")
      ->type_name("DIR");
  AddSize(app, "--max-shard-size", "largest output file", [&job](int64_t bytes) {
    job.max_shard_bytes = bytes;
  })->default_str(FormatByteSize(job.max_shard_bytes));
  AddNumericOptions(app, job);
  static const std::map<std::string, SparseFormat> kSparseFormats = {
      {"dense", SparseFormat::kDense},
      {"sparse-24-bitmask", SparseFormat::kSparse24Bitmask},
      {"sparse-bitmask", SparseFormat::kSparseBitmask}};
  app.add_option("--sparse-format", job.sparse_format,
                 "store zeros of pruned weights like other numbers, or leave them out, for "
                 "compressed-tensors before 0.15")
      ->transform(CLI::CheckedTransformer(kSparseFormats).description(""))
      ->type_name("dense|sparse-24-bitmask|sparse-bitmask")
      ->envname("LLMC_SPARSE_FORMAT");
  app.add_flag("--fresh", job.fresh, "ignore an unfinished run and replace a finished output")
      ->envname("LLMC_FRESH");
  app.add_option("--eval-dataset", job.eval_datasets,
                 "text to measure perplexity on, before and after")
      ->type_name("FILE...")
      ->envname("LLMC_EVAL_DATASET");
  AddOption(app, "--eval-num-windows", job.eval_num_windows, "windows of --eval-dataset to use");
}

void AddOutputOptions(CLI::App& app, OutputOptions& output) {
  app.add_flag("--json", output.json, "print one JSON object on stdout")->envname("LLMC_JSON");
  app.add_flag("--quiet", output.quiet, "no progress");
  app.add_flag("--all-ranks", output.all_ranks, "show the progress of every rank");
  app.add_option("--color", output.color, "colour of messages")
      ->check(CLI::IsMember({"auto", "always", "never"}))
      ->capture_default_str();
}

void AddConfigOption(CLI::App& app) {
  app.add_option("--config", "file of flags (TOML: key = value); flags and LLMC_* win over it")
      ->type_name("FILE")
      ->envname("LLMC_CONFIG");
}

absl::Status ApplyConfigFile(CLI::App& app) {
  const CLI::Option* config = app.get_option("--config");
  if (config->count() == 0) return absl::OkStatus();
  const std::string path = config->as<std::string>();
  if (!std::filesystem::is_regular_file(path)) {
    return absl::NotFoundError(absl::StrCat(path, ": no such config file"));
  }
  try {
    std::set<const CLI::Option*> seen;
    for (const CLI::ConfigItem& item : CLI::ConfigTOML().from_file(path)) {
      LLMC_RETURN_IF_ERROR(At(path, ApplyItem(app, item, seen)));
    }
  } catch (const std::exception& error) {  // The parser's own and those of std::stoll in it.
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", error.what()));
  }
  return absl::OkStatus();
}

}  // namespace llmc
