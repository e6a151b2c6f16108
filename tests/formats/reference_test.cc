// Random cases judged by compressed-tensors itself (reference_cases.py).
#include <gtest/gtest.h>

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "formats/quantization_args.h"
#include "formats/target.h"

namespace llmc {
namespace {

using Json = nlohmann::json;

// Standard output of a Python program of this folder.
Json RunPython(const std::string& program) {
  const std::string source = LLMC_SOURCE_DIR;
  const std::string command =
      source + "/.venv/bin/python " + source + "/tests/formats/" + program + " 2>/dev/null";
  std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), &pclose);
  std::string output;
  char buffer[65536];
  while (const size_t n = fread(buffer, 1, sizeof(buffer), pipe.get())) output.append(buffer, n);
  // Lines of log may come first.
  const size_t start = output.find("{\"args\"");
  return start == std::string::npos ? Json() : Json::parse(output.substr(start));
}

class Reference : public testing::Test {
 protected:
  static void SetUpTestSuite() { cases_ = new Json(RunPython("reference_cases.py")); }
  static void TearDownTestSuite() { delete cases_; }
  void SetUp() override { ASSERT_TRUE(cases_->is_object()) << "reference_cases.py failed"; }

  static Json* cases_;
};
Json* Reference::cases_ = nullptr;

// llmc writes "one scale per channel" as the strategy alone.
Json Normalised(Json dump) {
  if (dump["group_size"] == -1) dump["group_size"] = nullptr;
  return dump;
}

TEST_F(Reference, RandomEntries_AreAcceptedAndReadAlike) {
  int accepted = 0;
  for (const Json& c : (*cases_)["args"]) {
    const absl::StatusOr<QuantizationArgs> args = ParseQuantizationArgs(c["args"]);
    if (c["strict"].get<bool>()) {
      EXPECT_FALSE(args.ok()) << c["args"];
      continue;
    }
    ASSERT_EQ(args.ok(), c["accepted"].get<bool>()) << c["args"] << args.status();
    if (!args.ok()) continue;
    ++accepted;
    EXPECT_EQ(QuantizationArgsToJson(*args), Normalised(c["dump"])) << c["args"];
    if (args->num_bits > 8) continue;
    EXPECT_EQ(ValidateArgsForRole(*args, ArgsRole::kInputActivations).ok(),
              c["as_input"].get<bool>())
        << c["args"];
  }
  EXPECT_GT(accepted, 300);
}

TEST_F(Reference, RandomTargets_MatchTheSameModules) {
  const Json& modules = (*cases_)["modules"];
  for (const Json& c : (*cases_)["matches"]) {
    TargetSet targets, ignore;
    for (size_t g = 0; g < c["groups"].size(); ++g) {
      for (const Json& target : c["groups"][g]) {
        ASSERT_TRUE(targets.Add(target.get<std::string>(), static_cast<int>(g)).ok()) << target;
      }
    }
    for (const Json& target : c["ignore"]) {
      ASSERT_TRUE(ignore.Add(target.get<std::string>(), 0).ok());
    }
    for (size_t i = 0; i < modules.size(); ++i) {
      const std::string name = modules[i][0], class_name = modules[i][1];
      const auto hit = *targets.Find(name, class_name);
      const bool ignored = ignore.Find(name, class_name)->has_value();
      EXPECT_EQ(hit && !ignored ? hit->owner : -1, c["owners"][i].get<int>())
          << name << " " << c.dump();
    }
  }
}

}  // namespace
}  // namespace llmc
