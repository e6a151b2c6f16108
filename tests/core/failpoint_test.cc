#include "llmc/failpoint.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <functional>

namespace llmc {
namespace {

// Runs `body` in a process of its own, since LLMC_FAILPOINTS is read once. Its
// wait status: `body`'s result as the exit code, or the signal that ended it.
int RunWith(const char* failpoints, const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (failpoints != nullptr) ::setenv("LLMC_FAILPOINTS", failpoints, 1);
    ::_exit(body());
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return status;
}

// Codes of consecutive hits as decimal digits: 0 OK, 8 kResourceExhausted.
int HitTwice() {
  const int first = static_cast<int>(Failpoint("a").code());
  return 10 * (first == 13 ? 1 : first) + (Failpoint("a").ok() ? 0 : 1);
}

bool ExitedWith(int status, int code) { return WIFEXITED(status) && WEXITSTATUS(status) == code; }
bool KilledBy(int status, int signal) { return WIFSIGNALED(status) && WTERMSIG(status) == signal; }

TEST(Failpoint, NothingSet_Ok) {
  EXPECT_TRUE(ExitedWith(RunWith(nullptr, HitTwice), 0));
  EXPECT_TRUE(ExitedWith(RunWith("", HitTwice), 0));
  EXPECT_TRUE(ExitedWith(RunWith("b=error;;c=kill", HitTwice), 0));
}

TEST(Failpoint, Error_EveryHitFails) {
  EXPECT_TRUE(ExitedWith(RunWith("a=error", HitTwice), 11));
  EXPECT_TRUE(ExitedWith(RunWith("b=kill;a=error", HitTwice), 11));
}

TEST(Failpoint, ErrorAtOneHit_OthersPass) {
  EXPECT_TRUE(ExitedWith(RunWith("a=error@1", HitTwice), 10));
  EXPECT_TRUE(ExitedWith(RunWith("a=error@2", HitTwice), 1));
  EXPECT_TRUE(ExitedWith(RunWith("a=error@3", HitTwice), 0));
}

TEST(Failpoint, Enospc_ResourceExhausted) {
  EXPECT_TRUE(ExitedWith(RunWith("a=enospc@1", HitTwice), 80));
}

TEST(Failpoint, Kill_EndsTheProcessAtThatHit) {
  EXPECT_TRUE(KilledBy(RunWith("a=kill", HitTwice), SIGKILL));
  EXPECT_TRUE(KilledBy(RunWith("a=kill@2", HitTwice), SIGKILL));
  EXPECT_TRUE(ExitedWith(RunWith("a=kill@3", HitTwice), 0));
}

TEST(Failpoint, Term_RaisesSigterm) { EXPECT_TRUE(KilledBy(RunWith("a=term", HitTwice), SIGTERM)); }

TEST(Failpoint, ForOneRank_OthersPass) {
  const auto as_rank = [](int rank) {
    return [rank] {
      SetFailpointRank(rank);
      return HitTwice();
    };
  };
  EXPECT_TRUE(ExitedWith(RunWith("a=error/r1", as_rank(1)), 11));
  EXPECT_TRUE(ExitedWith(RunWith("a=error/r1", as_rank(0)), 0));
  EXPECT_TRUE(ExitedWith(RunWith("a=error@2/r1", as_rank(1)), 1));
  EXPECT_TRUE(ExitedWith(RunWith("a=error@2/r12", as_rank(1)), 0));
}

}  // namespace
}  // namespace llmc
