#include "cli/worker_launch.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "llmc/file.h"

namespace llmc {
namespace {

std::vector<std::string> MpirunCommand(int num_ranks) {
  // Open MPI refuses root unless told; inside containers everything is root.
  if (geteuid() == 0) {
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 0);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 0);
  }
  return {"mpirun",
          "--oversubscribe",
          "--bind-to",
          "none",
          "--mca",
          "odls_base_sigkill_timeout",
          "30",
          "-np",
          absl::StrCat(num_ranks)};
}

}  // namespace

absl::Status LaunchWorker(const std::vector<std::string>& arguments, int num_ranks) {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::filesystem::path worker = self.parent_path() / "llmc-worker";
  if (!std::filesystem::exists(worker, error)) {
    return absl::NotFoundError(absl::StrCat(worker.string(), ": not found, expected beside llmc"));
  }
  std::vector<std::string> command;
  if (num_ranks > 1) command = MpirunCommand(num_ranks);
  command.push_back(worker.string());
  command.insert(command.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : command) argv.push_back(word.data());
  argv.push_back(nullptr);
  ::execvp(argv[0], argv.data());
  return ErrnoStatus(errno, command[0], "start");
}

}  // namespace llmc
