// One rank of an MPI world that checks the contract, or misbehaves as its
// argument says: tests/CMakeLists.txt starts it under mpirun.
#include <csignal>
#include <cstdio>
#include <string>

#include "contract.h"

namespace llmc {
namespace {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return ExitCode(status);
}

// The others wait for rank 1, which never comes.
int WaitForever(const char* how) {
  const bool is_short = std::string(how) == "timeout";
  CollectiveOptions options;
  options.timeout = is_short ? std::chrono::milliseconds(300) : std::chrono::minutes(10);
  auto world = MakeMpiCollective(options);
  if (!world.ok()) return Fail(world.status());
  if (absl::Status status = (*world)->Barrier(); !status.ok()) return Fail(status);
  if ((*world)->rank() == 1) {
    if (std::string(how) == "kill") raise(SIGKILL);
    if (std::string(how) == "abort") (*world)->Abort("asked to");
    if (std::string(how) == "exit") std::exit(1);
    raise(SIGSTOP);
  }
  const absl::Status status = (*world)->Barrier();
  if (is_short && (*world)->rank() == 0) {
    Fail(status);
    (*world)->Abort(absl::IsUnavailable(status) ? "as expected" : "BUT NOT AS EXPECTED");
  }
  return Fail(status);
}

int CheckContract(int expected_ranks) {
  if (!LaunchedByMpi()) return Fail(absl::InternalError("LaunchedByMpi is false"));
  auto world = MakeMpiCollective();
  if (!world.ok()) return Fail(world.status());
  if ((*world)->world_size() != expected_ranks || (*world)->ranks_on_host() != expected_ranks) {
    return Fail(absl::InternalError("wrong world size"));
  }
  if (!absl::IsFailedPrecondition(MakeMpiCollective().status())) {
    return Fail(absl::InternalError("a second start is refused"));
  }
  const absl::Status mine = CheckCollectiveContract(**world);
  if (const absl::Status all = (*world)->AgreeOnStatus(mine); !all.ok()) return Fail(all);
  if ((*world)->rank() == 0) std::puts("the contract holds");
  return 0;
}

}  // namespace
}  // namespace llmc

int main(int argc, char** argv) {
  const std::string argument = argc == 2 ? argv[1] : "";
  if (argument.size() == 1) return llmc::CheckContract(argument[0] - '0');
  return llmc::WaitForever(argument.c_str());
}
