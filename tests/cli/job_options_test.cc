#include "cli/job_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_replace.h"
#include "cli/exit.h"

namespace llmc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A variable of the environment for as long as it lives.
class Variable {
 public:
  Variable(std::string name, const std::string& value) : name_(std::move(name)) {
    ::setenv(name_.c_str(), value.c_str(), 1);
  }
  ~Variable() { ::unsetenv(name_.c_str()); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  std::string name_;
};

// One command line, parsed as the programs parse theirs.
class JobOptionsTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "llmc_cli_XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  absl::Status ParseLine(std::vector<std::string> words) {
    job_ = Job();
    output_ = OutputOptions();
    CLI::App app("test");
    CLI::App* command = app.add_subcommand("compress");
    AddJobOptions(*command, job_);
    AddOutputOptions(*command, output_);
    AddConfigOption(*command);
    words.insert(words.begin(), {"llmc", "compress"});
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    bool done = false;
    return Parse(app, static_cast<int>(argv.size()), argv.data(), &done);
  }

  // The command line with a config file of this text, and further flags.
  absl::Status ParseConfig(const std::string& text, std::vector<std::string> flags = {}) {
    const std::filesystem::path path = dir_ / "job.toml";
    std::ofstream(path) << text;
    flags.insert(flags.end(), {"--config", path.string()});
    return ParseLine(flags);
  }

  void ExpectRefused(const absl::Status& status, const std::string& part) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  }

  std::filesystem::path dir_;
  Job job_;
  OutputOptions output_;
};

TEST_F(JobOptionsTest, NoFlags_JobKeepsItsDefaults) {
  ASSERT_TRUE(ParseLine({}).ok());
  const Job fresh;
  EXPECT_EQ(job_.model, "");
  EXPECT_EQ(job_.num_calibration_samples, fresh.num_calibration_samples);
  EXPECT_EQ(job_.max_seq_length, fresh.max_seq_length);
  EXPECT_EQ(job_.max_shard_bytes, fresh.max_shard_bytes);
  EXPECT_EQ(job_.shuffle, fresh.shuffle);
  EXPECT_EQ(job_.compute_dtype, fresh.compute_dtype);
  EXPECT_EQ(job_.quotient_rounding, fresh.quotient_rounding);
  EXPECT_FALSE(job_.memory_budget_bytes.has_value());
}

TEST_F(JobOptionsTest, EveryFlag_FillsItsField) {
  const absl::Status status = ParseLine({"--model",
                                         "m",
                                         "--recipe",
                                         "W4A16",
                                         "--output",
                                         "o",
                                         "--dataset",
                                         "a",
                                         "b",
                                         "--num-calibration-samples",
                                         "7",
                                         "--max-seq-length",
                                         "33",
                                         "--text-column",
                                         "body",
                                         "--seed",
                                         "18446744073709551615",
                                         "--no-shuffle",
                                         "--memory-budget",
                                         "24GiB",
                                         "--work-dir",
                                         "w",
                                         "--max-shard-size",
                                         "2GB",
                                         "--device",
                                         "cpu",
                                         "--compute-dtype",
                                         "bfloat16",
                                         "--quotient-rounding",
                                         "float32",
                                         "--fresh",
                                         "--eval-dataset",
                                         "e",
                                         "--eval-num-windows",
                                         "9",
                                         "--json",
                                         "--quiet",
                                         "--all-ranks",
                                         "--color",
                                         "never"});
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(job_.model, "m");
  EXPECT_EQ(job_.recipe, "W4A16");
  EXPECT_EQ(job_.output, "o");
  EXPECT_THAT(job_.datasets, ElementsAre("a", "b"));
  EXPECT_EQ(job_.num_calibration_samples, 7);
  EXPECT_EQ(job_.max_seq_length, 33);
  EXPECT_EQ(job_.text_column, "body");
  EXPECT_EQ(job_.seed, UINT64_MAX);
  EXPECT_FALSE(job_.shuffle);
  EXPECT_EQ(job_.memory_budget_bytes, int64_t{24} << 30);
  EXPECT_EQ(job_.work_dir, "w");
  EXPECT_EQ(job_.max_shard_bytes, 2'000'000'000);
  EXPECT_EQ(job_.device, "cpu");
  EXPECT_EQ(job_.compute_dtype, ComputeDType::kBFloat16);
  EXPECT_EQ(job_.quotient_rounding, QuotientRounding::kFloat32);
  EXPECT_TRUE(job_.fresh);
  EXPECT_THAT(job_.eval_datasets, ElementsAre("e"));
  EXPECT_EQ(job_.eval_num_windows, 9);
  EXPECT_TRUE(output_.json && output_.quiet && output_.all_ranks);
  EXPECT_EQ(output_.color, "never");
}

TEST_F(JobOptionsTest, EveryJobFlag_NamesItsVariable) {
  CLI::App app("test");
  AddJobOptions(app, job_);
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_name() == "--help") continue;
    const std::string flag = option->get_lnames().front();
    EXPECT_EQ(option->get_envname(),
              "LLMC_" + absl::AsciiStrToUpper(absl::StrReplaceAll(flag, {{"-", "_"}})));
  }
}

TEST_F(JobOptionsTest, WrongValues_RefusedNamingTheFlag) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"--num-calibration-samples", "0"},
      {"--num-calibration-samples", "many"},
      {"--max-seq-length", "-1"},
      {"--max-seq-length", "16777217"},
      {"--seed", "-1"},
      {"--seed", "18446744073709551616"},
      {"--memory-budget", "lots"},
      {"--memory-budget", "0"},
      {"--max-shard-size", "5 parsecs"},
      {"--device", "tpu"},
      {"--compute-dtype", "float8"},
      {"--quotient-rounding", "up"},
      {"--color", "blue"}};
  for (const auto& [flag, value] : cases) {
    SCOPED_TRACE(flag + " " + value);
    ExpectRefused(ParseLine({flag + "=" + value}), flag);
  }
}

TEST_F(JobOptionsTest, UnknownFlag_Refused) {
  ExpectRefused(ParseLine({"--modle", "m"}), "--modle");
}

TEST_F(JobOptionsTest, Environment_FillsWhatNoFlagGave) {
  const Variable model("LLMC_MODEL", "from-environment");
  const Variable seed("LLMC_SEED", "5");
  const Variable shuffle("LLMC_SHUFFLE", "false");
  const Variable budget("LLMC_MEMORY_BUDGET", "3GB");
  const Variable dtype("LLMC_COMPUTE_DTYPE", "float32");
  const Variable fresh("LLMC_FRESH", "true");
  ASSERT_TRUE(ParseLine({"--seed", "6"}).ok());
  EXPECT_EQ(job_.model, "from-environment");
  EXPECT_EQ(job_.seed, 6u);
  EXPECT_FALSE(job_.shuffle);
  EXPECT_EQ(job_.memory_budget_bytes, 3'000'000'000);
  EXPECT_EQ(job_.compute_dtype, ComputeDType::kFloat32);
  EXPECT_TRUE(job_.fresh);
}

TEST_F(JobOptionsTest, EnvironmentWithWrongValue_Refused) {
  const Variable device("LLMC_DEVICE", "tpu");
  ExpectRefused(ParseLine({}), "--device");
}

TEST_F(JobOptionsTest, ConfigFile_SetsEveryKindOfOption) {
  const absl::Status status = ParseConfig(
      "# a job\nmodel = \"m\"\nnum_calibration_samples = 7\nmax-seq-length = 33\n"
      "dataset = [\"a\", \"b\"]\nshuffle = false\nmemory-budget = \"24GiB\"\n"
      "compute-dtype = \"bfloat16\"\nfresh = true\njson = true\n");
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(job_.model, "m");
  EXPECT_EQ(job_.num_calibration_samples, 7);
  EXPECT_EQ(job_.max_seq_length, 33);
  EXPECT_THAT(job_.datasets, ElementsAre("a", "b"));
  EXPECT_FALSE(job_.shuffle);
  EXPECT_EQ(job_.memory_budget_bytes, int64_t{24} << 30);
  EXPECT_EQ(job_.compute_dtype, ComputeDType::kBFloat16);
  EXPECT_TRUE(job_.fresh);
  EXPECT_TRUE(output_.json);
}

TEST_F(JobOptionsTest, FlagEnvironmentAndConfig_WinInThatOrder) {
  const Variable seed("LLMC_SEED", "2");
  const Variable column("LLMC_TEXT_COLUMN", "environment");
  ASSERT_TRUE(ParseConfig("seed = 3\ntext-column = \"config\"\nmodel = \"config\"\n"
                          "dataset = [\"config\"]\n",
                          {"--seed", "1", "--dataset", "flag"})
                  .ok());
  EXPECT_EQ(job_.seed, 1u);
  EXPECT_EQ(job_.text_column, "environment");
  EXPECT_EQ(job_.model, "config");
  EXPECT_THAT(job_.datasets, ElementsAre("flag"));
}

TEST_F(JobOptionsTest, ConfigFileFromTheEnvironment_IsRead) {
  std::ofstream(dir_ / "job.toml") << "seed = 11\n";
  const Variable config("LLMC_CONFIG", (dir_ / "job.toml").string());
  ASSERT_TRUE(ParseLine({}).ok());
  EXPECT_EQ(job_.seed, 11u);
}

TEST_F(JobOptionsTest, NegatedFlagInConfig_Negates) {
  const absl::Status off = ParseConfig("no-shuffle = true\n");
  ASSERT_TRUE(off.ok()) << off;
  EXPECT_FALSE(job_.shuffle);
  const absl::Status on = ParseConfig("no-shuffle = false\n");
  ASSERT_TRUE(on.ok()) << on;
  EXPECT_TRUE(job_.shuffle);
}

TEST_F(JobOptionsTest, ConfigWithUnknownKey_RefusedNamingFileAndKey) {
  const absl::Status status = ParseConfig("modle = \"m\"\n");
  ExpectRefused(status, "\"modle\"");
  ExpectRefused(status, "job.toml");
}

TEST_F(JobOptionsTest, ConfigWithSection_RefusedNamingIt) {
  ExpectRefused(ParseConfig("[calibration]\nseed = 3\n"), "calibration");
}

TEST_F(JobOptionsTest, ConfigWithWrongValue_RefusedNamingFileAndFlag) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"seed = \"x\"\n", "--seed"},           {"max-seq-length = 0\n", "--max-seq-length"},
      {"device = \"tpu\"\n", "--device"},     {"memory-budget = \"much\"\n", "--memory-budget"},
      {"shuffle = \"perhaps\"\n", "shuffle"}, {"seed = [1, 2]\n", "--seed"}};
  for (const auto& [text, flag] : cases) {
    SCOPED_TRACE(text);
    const absl::Status status = ParseConfig(text);
    ExpectRefused(status, flag);
    ExpectRefused(status, "job.toml");
  }
}

TEST_F(JobOptionsTest, ConfigWithRepeatedKey_Refused) {
  ExpectRefused(ParseConfig("seed = 1\nseed = 2\n"), "seed");
  ExpectRefused(ParseConfig("seed = 1\nmodel = \"m\"\nseed = 2\n"), "seed");
}

TEST_F(JobOptionsTest, AbsentConfigFile_NotFound) {
  const absl::Status status = ParseLine({"--config", (dir_ / "absent.toml").string()});
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
  EXPECT_EQ(ParseLine({"--config", dir_.string()}).code(), absl::StatusCode::kNotFound);
}

TEST_F(JobOptionsTest, AnyBytesAsConfig_NeverThrow) {
  for (const std::string& text :
       {std::string("[[["), std::string("=\n="), std::string("\0\xff\n", 3),
        std::string("seed = \"1\n"), std::string("dataset = [\"a\","), std::string("]\n[x"),
        std::string(100'000, '['), std::string("a = {b = 1}\n"), std::string("'''")}) {
    const absl::Status status = ParseConfig(text);
    EXPECT_TRUE(status.ok() || status.code() == absl::StatusCode::kInvalidArgument) << status;
  }
}

}  // namespace
}  // namespace llmc
