// SparseGptSolve and PruneByScore against llmcompressor itself.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "case_file.h"
#include "kernels/cholesky.h"
#include "kernels/prune_by_score.h"
#include "kernels/sparsegpt_solve.h"
#include "llmc/float_formats.h"

namespace llmc::kernels {
namespace {

HostTensor CopyOf(const TensorView& view) {
  HostTensor copy(view.dtype, view.shape);
  std::memcpy(copy.bytes().data(), view.bytes.data(), view.bytes.size());
  return copy;
}

struct Solution {
  HostTensor weight;
  double loss = 0;
};

Solution Prune(const TensorFile& file, const nlohmann::json& record) {
  const std::string prefix = record["name"].get<std::string>() + "/";
  Solution solution{.weight = CopyOf(file.At(prefix + "weight"))};
  const MaskStructure structure{record["n"], record["m"]};
  const int64_t rows = solution.weight.dim(0);
  const int64_t columns = solution.weight.dim(1);
  if (record["method"] == "wanda") {
    std::vector<float> norms;
    for (int64_t c = 0; c < columns; ++c) {
      norms.push_back(std::sqrt(file.At(prefix + "statistic").as<float>()[c]));
    }
    EXPECT_TRUE(PruneByScore({solution.weight.as<float>(), rows, columns, norms},
                             record["sparsity"], structure)
                    .ok());
    return solution;
  }
  const InverseFactor factor =
      FactorInverseHessian(CopyOf(file.At(prefix + "hessian")), {}).value();
  SparseGptProblem problem;
  problem.rows = problem.total_rows = rows;
  problem.in_features = columns;
  problem.weight = solution.weight.as<float>();
  problem.inverse_factor = factor.upper.as<float>();
  SparseGptOptions options;
  options.sparsity = record["sparsity"];
  options.structure = structure;
  options.block_size = record["block_size"];
  options.preserve_sparsity_mask = record["preserve_sparsity_mask"];
  const auto result = SparseGptSolve(problem, options);
  EXPECT_TRUE(result.ok()) << result.status();
  if (result.ok()) solution.loss = result->loss;
  return solution;
}

struct Agreement {
  double masks = 0;   // Fraction of weights pruned by both or neither.
  double values = 0;  // Fraction within a unit of the last place of BF16.
};

Agreement Compare(const HostTensor& got, const TensorView& want) {
  int64_t masks = 0;
  int64_t values = 0;
  for (int64_t i = 0; i < got.num_elements(); ++i) {
    const float a = got.as<float>()[i];
    const float b = want.as<float>()[i];
    masks += (a == 0) == (b == 0);
    values += std::fabs(a - b) <= std::fabs(b) / 128 + 1e-5f;
  }
  const auto count = static_cast<double>(got.num_elements());
  return {masks / count, values / count};
}

TEST(PruningLibrary, RandomLayers_GiveTheMasksOfLlmCompressor) {
  const std::filesystem::path folder = std::filesystem::path(testing::TempDir()) /
                                       ("llmc_pruning_library_" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  const std::string command = LLMC_SOURCE_DIR "/.venv/bin/python " LLMC_SOURCE_DIR
                                              "/tests/kernels/make_pruning_cases.py " +
                              folder.string() + " > " + (folder / "log").string() + " 2>&1";
  ASSERT_EQ(std::system(command.c_str()), 0) << ReadFile(folder / "log").value();
  const TensorFile file(folder / "pruning.safetensors");
  const nlohmann::json records = ReadCases(folder / "pruning.json");
  EXPECT_GE(records.size(), 40u);
  for (const nlohmann::json& record : records) {
    SCOPED_TRACE(record.dump());
    const Solution solution = Prune(file, record);
    const Agreement agreement =
        Compare(solution.weight, file.At(record["name"].get<std::string>() + "/pruned"));
    EXPECT_GE(agreement.masks, record["method"] == "wanda" ? 1.0 : 0.9995);
    EXPECT_GE(agreement.values, 0.999);
    const double loss = record["loss"];
    EXPECT_NEAR(solution.loss, loss, 1e-3 * loss);
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace llmc::kernels
