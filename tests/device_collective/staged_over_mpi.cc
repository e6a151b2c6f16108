// One rank of an MPI world that checks the staged transport: tests/CMakeLists.txt starts
// it under mpirun.
#include <cstdio>

#include "device_contract.h"

namespace llmc {
namespace {

absl::Status CheckRank(Collective& host) {
  const std::unique_ptr<DeviceCollective> world = MakeStagedDeviceCollective(host);
  return host.AgreeOnStatus(CheckDeviceCollectiveContract(*world, 0));
}

int Run() {
  const auto host = MakeMpiCollective();
  const absl::Status status = host.ok() ? CheckRank(**host) : host.status();
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    return ExitCode(status);
  }
  if ((*host)->rank() == 0) std::printf("the contract holds on %d ranks\n", (*host)->world_size());
  return 0;
}

}  // namespace
}  // namespace llmc

int main() { return llmc::Run(); }
