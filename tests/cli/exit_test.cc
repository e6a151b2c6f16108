#include "cli/exit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"

namespace llmc {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string Line(std::vector<std::string> words) {
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  return CommandLine(static_cast<int>(argv.size()), argv.data());
}

// The words that the shell makes of a line.
std::vector<std::string> ShellWords(const std::string& line) {
  FILE* shell = ::popen(("printf '%s\\0' " + line).c_str(), "r");
  std::string bytes;
  for (int c = std::fgetc(shell); c != EOF; c = std::fgetc(shell)) {
    bytes.push_back(static_cast<char>(c));
  }
  ::pclose(shell);
  std::vector<std::string> words;
  for (size_t begin = 0; begin < bytes.size();) {
    const size_t end = bytes.find('\0', begin);
    words.push_back(bytes.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

struct Ended {
  int code = 0;
  std::string out, err;
};
Ended End(const absl::Status& status, const OutputOptions& output) {
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  Ended ended;
  ended.code = Finish(status, output);
  ended.out = testing::internal::GetCapturedStdout();
  ended.err = testing::internal::GetCapturedStderr();
  return ended;
}

TEST(CommandLine, PlainWords_StayAsTheyAre) {
  EXPECT_EQ(Line({"llmc", "compress", "--model=/m/a-b_c.d", "W4A16"}),
            "llmc compress --model=/m/a-b_c.d W4A16");
}

TEST(CommandLine, AnyWords_TheShellReadsThemBack) {
  const std::vector<std::string> words = {
      "llmc",        "",        "two words", "it's",     "'",     "''",    "\"quoted\"",
      "back\\slash", "$HOME",   "`id`",      "*",        "?",     "[a-z]", "{a,b}",
      "(x)",         "<in>out", "a|b",       "a&b",      "a;b",   "#c",    "!x",
      "~",           "a\nb",    "tab\tx",    "\xc3\xa9", "$(id)", "-",     "--x=a b"};
  EXPECT_EQ(ShellWords(Line(words)), words);
}

TEST(CommandLine, EveryByte_TheShellReadsItBack) {
  std::vector<std::string> words = {"x"};
  for (int c = 1; c < 256; ++c) {
    const char byte = static_cast<char>(c);
    words.push_back({byte});
    words.push_back({'a', byte, 'b'});
  }
  EXPECT_EQ(ShellWords(Line(words)), words);
}

TEST(Finish, Success_PrintsNothing) {
  const Ended ended = End(absl::OkStatus(), {.json = true});
  EXPECT_EQ(ended.code, 0);
  EXPECT_THAT(ended.out, IsEmpty());
  EXPECT_THAT(ended.err, IsEmpty());
}

TEST(Finish, Failure_MessageOnStderrOnly) {
  const Ended ended = End(absl::NotFoundError("dir: no model"), {});
  EXPECT_EQ(ended.code, 2);
  EXPECT_THAT(ended.out, IsEmpty());
  EXPECT_EQ(ended.err, "llmc: error: dir: no model\n");
}

TEST(Finish, Cancelled_SaysStopped) {
  const Ended ended = End(absl::CancelledError("after layer 3"), {});
  EXPECT_EQ(ended.code, 3);
  EXPECT_EQ(ended.err, "llmc: stopped: after layer 3\n");
}

TEST(Finish, FailureWithJson_OneObjectOnStdout) {
  const Ended ended = End(absl::DataLossError("shard \"a\": \xff damaged\n"), {.json = true});
  EXPECT_EQ(ended.code, 1);
  const nlohmann::json error = nlohmann::json::parse(ended.out);
  EXPECT_EQ(error["error"]["code"], "DATA_LOSS");
  EXPECT_THAT(error["error"]["message"].get<std::string>(), HasSubstr("shard \"a\": "));
}

TEST(Finish, MessageWithControlBytes_NoneReachTheTerminal) {
  const Ended ended = End(absl::InvalidArgumentError("name \x1b[2J\x07"), {});
  EXPECT_EQ(ended.err.find('\x1b'), std::string::npos);
  EXPECT_EQ(ended.err.find('\x07'), std::string::npos);
}

TEST(Parse, Help_PrintsItAndIsDone) {
  CLI::App app("what it does");
  std::string name = "llmc";
  std::string help = "--help";
  char* argv[] = {name.data(), help.data()};
  bool done = false;
  testing::internal::CaptureStdout();
  EXPECT_TRUE(Parse(app, 2, argv, &done).ok());
  EXPECT_TRUE(done);
  EXPECT_THAT(testing::internal::GetCapturedStdout(), HasSubstr("what it does"));
}

TEST(Parse, WrongFlag_StatusAndNotDone) {
  CLI::App app("what it does");
  std::string name = "llmc";
  std::string flag = "--nonsense";
  char* argv[] = {name.data(), flag.data()};
  bool done = true;
  const absl::Status status = Parse(app, 2, argv, &done);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(done);
}

TEST(Parse, CommandsThatShareAValue_TheEnvironmentOfOneDoesNotReachTheOther) {
  for (const char* given : {"first", "second"}) {
    CLI::App app("", "llmc");
    std::string value;
    for (const char* name : {"first", "second"}) {
      app.add_subcommand(name)->add_option("--value", value)->envname("LLMC_TEST_VALUE");
    }
    ::setenv("LLMC_TEST_VALUE", "of the environment", 1);
    std::vector<std::string> words = {"llmc", given, "--value", "of the flag"};
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    bool done = false;
    EXPECT_TRUE(Parse(app, static_cast<int>(argv.size()), argv.data(), &done).ok());
    EXPECT_EQ(value, "of the flag") << given;
    ::unsetenv("LLMC_TEST_VALUE");
  }
}

}  // namespace
}  // namespace llmc
