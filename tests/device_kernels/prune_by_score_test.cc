#include "kernels/prune_by_score.h"

#include <cmath>
#include <random>

#include "device_test.h"
#include "linear_algebra_reference.h"

namespace llmc::kernels {
namespace {

struct ScoreCase {
  int64_t rows = 9;
  int64_t columns = 96;
  double sparsity = 0.5;
  MaskStructure structure = {};
  bool has_norms = true;
  bool coarse = false;  // Few different weights: many equal scores.
};

void PrintTo(const ScoreCase& c, std::ostream* out) {
  *out << c.rows << " x " << c.columns << ", " << c.sparsity << ", " << c.structure.prune_count
       << ":" << c.structure.group_size;
}

class PruneByScoreTest : public DeviceTestWithParam<ScoreCase> {};

TEST_P(PruneByScoreTest, Mask_IsTheCpus) {
  const ScoreCase& c = GetParam();
  std::vector<float> weight = ToVector<float>(RandomFloats(c.rows, c.columns, 1));
  std::vector<float> norms(c.columns);
  for (int64_t i = 0; i < c.columns; ++i) norms[i] = 0.25f * static_cast<float>(i % 5);
  for (float& w : weight) w = c.coarse ? std::round(w * 4) / 4 : w;
  float* const device = Upload(weight);
  const DeviceScoredRows rows{device, c.rows, c.columns, c.has_norms ? Upload(norms) : nullptr};
  ASSERT_TRUE(PruneByScore(rows, c.sparsity, c.structure, queue()).ok());
  const std::span<const float> host_norms =
      c.has_norms ? std::span<const float>(norms) : std::span<const float>();
  ASSERT_TRUE(PruneByScore(ScoredRows{weight.data(), c.rows, c.columns, host_norms}, c.sparsity,
                           c.structure)
                  .ok());
  EXPECT_TRUE(SameBits(Download(device, c.rows * c.columns), weight));
}

INSTANTIATE_TEST_SUITE_P(
    Masks, PruneByScoreTest,
    testing::Values(ScoreCase{}, ScoreCase{.rows = 1, .columns = 1},
                    ScoreCase{.columns = 1000, .sparsity = 0.7},
                    ScoreCase{.columns = 700, .has_norms = false, .coarse = true},
                    ScoreCase{.columns = 256, .sparsity = 0.999, .coarse = true},
                    ScoreCase{.sparsity = 0}, ScoreCase{.columns = 257, .sparsity = 0.004},
                    ScoreCase{.structure = {2, 4}},
                    ScoreCase{.rows = 300, .structure = {4, 8}, .coarse = true},
                    ScoreCase{.structure = {1, 3}, .has_norms = false},
                    ScoreCase{.structure = {40, 96}, .coarse = true}));

class PruneByScoreErrorsTest : public DeviceTest {};

TEST_F(PruneByScoreErrorsTest, WhatTheCpuRefuses_IsRefused) {
  float* const weight = Allocate<float>(12);
  const DeviceScoredRows rows{weight, 2, 6, nullptr};
  EXPECT_EQ(PruneByScore(rows, 1, {}, queue()).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(PruneByScore(rows, 0.5, {2, 4}, queue()).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(PruneByScore({nullptr, 2, 6, nullptr}, 0.5, {}, queue()).code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace llmc::kernels
