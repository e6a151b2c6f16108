#include "service/access.h"

#include <gtest/gtest.h>

#include "absl/strings/escaping.h"
#include "service/job_filter.h"
#include "service/job_validation.h"

namespace llmc {
namespace {

TEST(Access, Sha256_IsThatOfTheStandard) {
  EXPECT_EQ(absl::BytesToHexString(Sha256("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Access, Loopback_IsTheWholeBlockAndNothingThatLooksLikeIt) {
  for (const char* address : {"127.0.0.1:1", "127.9.9.9:0", "localhost:7", "[::1]:7", "unix:/x"}) {
    EXPECT_TRUE(IsLoopback(address)) << address;
  }
  for (const char* address : {"0.0.0.0:1", "[::]:1", "127.evil.example:1", "10.0.0.1:1",
                              "localhost.example:1", ":7180", ""}) {
    EXPECT_FALSE(IsLoopback(address)) << address;
  }
}

TEST(Access, Roles_IncludeWhatTheyShould) {
  const Principal submitter{"a", {AccessRole::kSubmit}};
  EXPECT_TRUE(submitter.Has(AccessRole::kWatch));
  EXPECT_FALSE(submitter.Has(AccessRole::kWork));
  const Principal admin{"a", {AccessRole::kAdmin}};
  EXPECT_TRUE(admin.Has(AccessRole::kWork));
}

TEST(Access, RateLimit_AllowsABurstThenTheRate) {
  RateLimit limit(10);
  int allowed = 0;
  for (int i = 0; i < 100; ++i) allowed += limit.Allow("a", 5.0) ? 1 : 0;
  EXPECT_EQ(allowed, 20);
  EXPECT_TRUE(limit.Allow("b", 5.0));
  for (int i = 0; i < 100; ++i) allowed += limit.Allow("a", 6.0) ? 1 : 0;
  EXPECT_EQ(allowed, 30);
}

TEST(JobFilter, Terms_AreJoined) {
  v1::Job job;
  job.set_state(v1::JOB_STATE_RUNNING);
  job.set_priority(60);
  (*job.mutable_labels())["team"] = "a b";
  const auto matches = [&job](const std::string& text) {
    const auto filter = ParseJobFilter(text);
    EXPECT_TRUE(filter.ok()) << filter.status();
    return filter.ok() && (*filter)(job);
  };
  EXPECT_TRUE(matches(""));
  EXPECT_TRUE(matches("state = RUNNING AND priority >= 60 AND labels.team = \"a b\""));
  EXPECT_TRUE(matches("state!=QUEUED"));
  EXPECT_FALSE(matches("state = RUNNING AND priority < 60"));
  EXPECT_FALSE(matches("labels.other = x"));
  for (const char* wrong : {"state", "state = NONE", "colour = red", "priority = high", "name < x",
                            "state = RUNNING AND", "= x"}) {
    EXPECT_FALSE(ParseJobFilter(wrong).ok()) << wrong;
  }
}

TEST(JobFilter, ATokenOfAnotherSecretOrScope_IsRefused) {
  const std::string token = SignToken("secret", "list x", "42");
  EXPECT_EQ(*ReadToken("secret", "list x", token), "42");
  EXPECT_FALSE(ReadToken("other", "list x", token).ok());
  EXPECT_FALSE(ReadToken("secret", "list y", token).ok());
  std::string changed = token;
  changed.back() = changed.back() == 'A' ? 'B' : 'A';
  EXPECT_FALSE(ReadToken("secret", "list x", changed).ok());
}

TEST(JobValidation, JobIds_FollowTheGrammar) {
  for (const char* good : {"a", "job-1", "a0"}) EXPECT_EQ(JobIdProblem(good), "") << good;
  for (const std::string& bad :
       {std::string(), std::string("1a"), std::string("A"), std::string("a-"), std::string("a/b"),
        std::string("a.b"), std::string(64, 'a'), std::string("a\0b", 3)}) {
    EXPECT_NE(JobIdProblem(bad), "") << bad;
  }
}

}  // namespace
}  // namespace llmc
