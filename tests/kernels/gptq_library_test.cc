// FactorInverseHessian and GptqSolve against llmcompressor itself.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "case_file.h"
#include "kernels/cholesky.h"
#include "kernels/gptq_solve.h"

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

Solution Solve(const TensorFile& file, const nlohmann::json& record) {
  const std::string prefix = record["name"].get<std::string>() + "/";
  const QuantizationArgs args = ArgsFromJson(record["weights"]);
  const HostTensor hessian = CopyOf(file.At(prefix + "hessian"));
  std::vector<int32_t> order;
  if (!record["weights"]["actorder"].is_null()) order = OrderByDiagonal(hessian);
  const InverseFactor factor = FactorInverseHessian(hessian, order).value();
  const TensorView& scale = file.At(prefix + "scale");
  Solution solution{.weight = CopyOf(file.At(prefix + "weight"))};
  GptqProblem problem;
  problem.rows = solution.weight.dim(0);
  problem.in_features = solution.weight.dim(1);
  problem.weight = solution.weight.as<float>();
  problem.inverse_factor = factor.upper.as<float>();
  problem.order = order.empty() ? nullptr : order.data();
  SolveGrid& grid = problem.grid;
  grid.type = args.type;
  grid.num_bits = args.num_bits;
  grid.scale = scale.as<float>();
  if (!args.symmetric) grid.zero_point = file.At(prefix + "zero_point").as<float>();
  grid.num_groups = scale.shape.size() == 2 ? scale.shape[1] : 1;
  grid.rows_per_scale = args.block_structure                 ? (*args.block_structure)[0]
                        : args.strategy == Strategy::kTensor ? problem.rows
                                                             : 1;
  grid.group_size = problem.in_features / grid.num_groups;
  grid.scale_dtype = DTypeFromSafetensors(record["scale_dtype"].get<std::string>()).value();
  const auto result = GptqSolve(problem);
  EXPECT_TRUE(result.ok()) << result.status();
  if (result.ok()) solution.loss = result->loss;
  return solution;
}

double FractionEqual(const HostTensor& got, const TensorView& want) {
  int64_t equal = 0;
  for (int64_t i = 0; i < got.num_elements(); ++i) {
    equal += got.as<float>()[i] == want.as<float>()[i];
  }
  return static_cast<double>(equal) / static_cast<double>(got.num_elements());
}

TEST(GptqLibrary, RandomLayers_GiveTheCodesAndLossOfLlmCompressor) {
  const std::filesystem::path folder =
      std::filesystem::path(testing::TempDir()) / ("llmc_gptq_library_" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  const std::string command = LLMC_SOURCE_DIR "/.venv/bin/python " LLMC_SOURCE_DIR
                                              "/tests/kernels/make_gptq_cases.py " +
                              folder.string() + " > " + (folder / "log").string() + " 2>&1";
  ASSERT_EQ(std::system(command.c_str()), 0) << ReadFile(folder / "log").value();
  const TensorFile file(folder / "gptq.safetensors");
  const nlohmann::json records = ReadCases(folder / "gptq.json");
  EXPECT_GE(records.size(), 60u);
  double sum = 0;
  for (const nlohmann::json& record : records) {
    SCOPED_TRACE(record.dump());
    const Solution solution = Solve(file, record);
    const double loss = record["loss"];
    const double equal =
        FractionEqual(solution.weight, file.At(record["name"].get<std::string>() + "/solved"));
    // The factors' last bits, which differ between CPUs, decide a near tie, and the columns
    // behind it in its row follow.
    EXPECT_GE(equal, 0.99);
    EXPECT_NEAR(solution.loss, loss, 1e-3 * loss);
    sum += equal;
  }
  EXPECT_GE(sum / static_cast<double>(records.size()), 0.999);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace llmc::kernels
