// Holds the folder graph of docs/architecture.md: a folder includes only the
// folders named here, and a few third-party headers belong to one file each.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

using Folders = std::set<std::string>;

// Direct permissions; "llmc" (the core) is allowed everywhere.
const std::map<std::string, Folders> kMayInclude = {
    {"core", {}},
    {"kernels", {}},
    {"formats", {}},
    {"collective", {"kernels"}},
    {"checkpoint", {}},
    {"tokenizer", {}},
    {"recipe", {"formats"}},
    {"dataset", {"tokenizer"}},
    {"architecture", {"checkpoint"}},
    {"plan", {"recipe", "formats", "architecture", "checkpoint"}},
    {"report", {}},
    {"verify", {"architecture", "formats", "checkpoint", "kernels"}},
    {"model", {"architecture", "checkpoint", "formats", "kernels"}},
    {"evaluation", {"model", "architecture", "checkpoint", "collective", "dataset"}},
    {"calibration", {"model", "architecture", "collective", "dataset", "kernels"}},
    {"modifiers",
     {"calibration", "model", "plan", "recipe", "formats", "architecture", "checkpoint",
      "collective", "kernels"}},
    {"pipeline",
     {"modifiers", "evaluation", "calibration", "model", "plan", "recipe", "formats",
      "architecture", "checkpoint", "dataset", "tokenizer", "collective", "kernels", "report",
      "verify"}},
    {"cli",
     {"plan", "recipe", "formats", "architecture", "checkpoint", "dataset", "tokenizer", "report",
      "verify"}},
    {"rpc", {"plan"}},
    {"control", {"plan"}},
    {"service",
     {"control", "rpc", "plan", "recipe", "formats", "architecture", "checkpoint", "dataset",
      "tokenizer", "report"}},
    {"client", {"cli", "rpc", "plan", "report"}},
    {"apps",
     {"client", "rpc", "control", "service", "cli", "pipeline", "evaluation", "calibration",
      "model", "plan", "recipe", "architecture", "checkpoint", "dataset", "tokenizer", "collective",
      "report", "verify"}},
};

// Headers of third parties that one folder hides from the others.
const std::map<std::string, std::string> kOwners = {
    {"mpi.h", "collective"},
    {"nccl.h", "collective"},
    {"c10/cuda/CUDAStream.h", "model"},
    {"cuda_runtime.h", "kernels"},
    {"cuda_runtime_api.h", "collective"},
    {"cuda_pipeline.h", "kernels"},
    {"cublas_v2.h", "kernels"},
    {"cusolverDn.h", "kernels"},
    {"pcre2.h", "tokenizer formats"},
    {"yaml-cpp/yaml.h", "recipe"},
    {"zstd.h", "dataset"},
    {"sqlite3.h", "control"},
    {"httplib.h", "service"},
    {"openssl/evp.h", "service"},
    {"zlib.h", "dataset"},
    {"CLI/CLI.hpp", "cli apps client"},
};

const fs::path kRoot = LLMC_SOURCE_DIR;

std::string FolderOf(const fs::path& file) {
  const fs::path relative = fs::relative(file, kRoot);
  auto part = relative.begin();
  if (*part == "src") ++part;
  return part->string();
}

std::vector<fs::path> SourceFiles() {
  std::vector<fs::path> files;
  for (const char* top : {"src", "kernels"}) {
    for (const auto& entry : fs::recursive_directory_iterator(kRoot / top)) {
      const std::string extension = entry.path().extension();
      if (extension == ".h" || extension == ".cc" || extension == ".cu" || extension == ".cuh") {
        files.push_back(entry.path());
      }
    }
  }
  return files;
}

// Checks one include line; returns what is wrong with it, or "".
std::string Violation(const std::string& folder, const std::string& header) {
  if (auto owner = kOwners.find(header); owner != kOwners.end()) {
    const bool owned = owner->second.find(folder) != std::string::npos;
    return owned ? "" : "only " + owner->second + " may include " + header;
  }
  const bool is_torch =
      header.starts_with("ATen/") || header.starts_with("torch/") || header.starts_with("c10/");
  static const Folders kTorchFolders = {"model",     "evaluation", "calibration",
                                        "modifiers", "pipeline",   "apps"};
  if (is_torch && !kTorchFolders.contains(folder)) return "LibTorch below `model`";
  const std::string target = header.substr(0, header.find('/'));
  if (!kMayInclude.contains(target) || target == folder) return "";
  return kMayInclude.at(folder).contains(target) ? "" : folder + " may not include " + target;
}

TEST(Layering, EveryInclude_FollowsTheFolderGraph) {
  const std::regex include(R"(^\s*#include\s+["<]([^">]+)[">])");
  const std::vector<fs::path> files = SourceFiles();
  ASSERT_GT(files.size(), 10u);
  for (const fs::path& file : files) {
    const std::string folder = FolderOf(file);
    ASSERT_TRUE(kMayInclude.contains(folder)) << file << ": folder is not in the graph";
    std::ifstream in(file);
    std::string line;
    for (int number = 1; std::getline(in, line); ++number) {
      std::smatch match;
      if (!std::regex_search(line, match, include)) continue;
      const std::string violation = Violation(folder, match[1]);
      EXPECT_EQ(violation, "") << fs::relative(file, kRoot).string() << ":" << number;
    }
  }
}

TEST(Layering, TheGraph_HasNoCycle) {
  std::map<std::string, int> depth;
  std::function<int(const std::string&, int)> visit = [&](const std::string& folder, int level) {
    EXPECT_LT(level, 20) << "cycle through " << folder;
    if (level >= 20) return level;
    for (const std::string& below : kMayInclude.at(folder)) visit(below, level + 1);
    return level;
  };
  for (const auto& [folder, unused] : kMayInclude) visit(folder, 0);
}

// The macro that asks for several machine-code versions of a function must be
// empty where the compiler has no such attribute.
const std::set<std::string> kConditionalHeaders = {"cpu_clones.h"};

TEST(Layering, Headers_HaveNoConditionalCode) {
  const std::regex conditional(R"(^\s*#\s*(if|ifdef|elif|else)\b)");
  for (const fs::path& file : SourceFiles()) {
    if (file.extension() != ".h" || kConditionalHeaders.contains(file.filename())) continue;
    std::ifstream in(file);
    std::string line;
    for (int number = 1; std::getline(in, line); ++number) {
      EXPECT_FALSE(std::regex_search(line, conditional))
          << fs::relative(file, kRoot).string() << ":" << number;
    }
  }
}

}  // namespace
