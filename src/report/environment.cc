#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <fstream>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "report/run_report.h"

namespace llmc {
namespace {

// The first "model name" of /proc/cpuinfo; empty where there is none.
std::string CpuModel() {
  std::ifstream cpus("/proc/cpuinfo");
  std::string line;
  for (int i = 0; i < 100 && std::getline(cpus, line); ++i) {
    if (!absl::StartsWith(line, "model name")) continue;
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    return std::string(absl::StripAsciiWhitespace(absl::string_view(line).substr(colon + 1)));
  }
  return "";
}

int UsableCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 0;
  return CPU_COUNT(&set);
}

}  // namespace

EnvironmentFacts DetectEnvironment() {
  EnvironmentFacts facts;
  utsname names{};
  if (uname(&names) == 0) {
    facts.host = names.nodename;
    facts.system = absl::StrCat(names.sysname, " ", names.release, " ", names.machine);
  }
  facts.cpu_model = CpuModel();
  facts.num_cpus = UsableCpus();
  facts.memory_bytes = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
  return facts;
}

}  // namespace llmc
