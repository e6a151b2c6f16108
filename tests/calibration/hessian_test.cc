#include "calibration/hessian.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <thread>
#include <vector>

namespace llmc {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kFeatures = 37;
constexpr int64_t kSampleTokens = 12;

// `num_chunks` chunks of two samples, F32 [kSampleTokens, kFeatures] each.
struct Job {
  std::vector<HostTensor> samples;
  int64_t num_chunks = 0;
};

Job MakeJob(int64_t num_chunks) {
  Job job;
  job.num_chunks = num_chunks;
  uint32_t state = 1;
  for (int64_t s = 0; s < 2 * num_chunks; ++s) {
    HostTensor& x = job.samples.emplace_back(DType::kF32, Shape{kSampleTokens, kFeatures});
    for (int64_t i = 0; i < x.num_elements(); ++i) {
      state = state * 1664525u + 1013904223u;
      x.as<float>()[i] = std::ldexp(static_cast<float>(state >> 8) / 0x1p23f - 1,
                                    static_cast<int>(i % kFeatures) % 9 - 4);
    }
  }
  return job;
}

// Multiplies one feature of one sample.
void Scale(Job& job, int64_t sample, int64_t feature, float factor) {
  for (int64_t t = 0; t < kSampleTokens; ++t) {
    job.samples[sample].as<float>()[t * kFeatures + feature] *= factor;
  }
}

absl::Status AddChunk(const Job& job, int64_t chunk, HessianAccumulator& hessian) {
  for (int64_t s = 2 * chunk; s < 2 * chunk + 2; ++s) {
    const HostTensor& x = job.samples[s];
    LLMC_RETURN_IF_ERROR(hessian.Add(
        {x.bytes().data(), DType::kF32, kSampleTokens, kFeatures, kFeatures}, /*sequences=*/1));
  }
  return absl::OkStatus();
}

absl::Status Capture(const Job& job, Collective& world, HessianAccumulator& hessian) {
  const int n = world.world_size();
  for (int64_t round = 0; round * n < job.num_chunks; ++round) {
    const int64_t chunk = round * n + world.rank();
    const bool owns_chunk = chunk < job.num_chunks;
    if (owns_chunk) LLMC_RETURN_IF_ERROR(AddChunk(job, chunk, hessian));
    if (round == 0) LLMC_RETURN_IF_ERROR(hessian.ShareExponents(world));
    if (owns_chunk) LLMC_RETURN_IF_ERROR(hessian.EndChunk());
  }
  return absl::OkStatus();
}

std::vector<float> Numbers(const at::Tensor& tensor) {
  const auto* const begin = static_cast<const float*>(tensor.const_data_ptr());
  return {begin, begin + tensor.numel()};
}

struct Outcome {
  absl::Status status;
  HessianSum sum;
  int num_captures = 0;
  std::vector<float> hessian;  // On root.
};

absl::Status CaptureUntilItFits(const Job& job, Collective& world, int root,
                                HessianAccumulator& hessian, Outcome& outcome) {
  do {
    if (outcome.num_captures++ > 0) hessian.Restart();
    LLMC_RETURN_IF_ERROR(Capture(job, world, hessian));
    LLMC_ASSIGN_OR_RETURN(outcome.sum, hessian.Reduce(world, root));
  } while (outcome.sum.needs_rescale && outcome.num_captures < 3);
  return absl::OkStatus();
}

Outcome RunRank(const Job& job, Collective& world, int root) {
  Outcome outcome;
  HessianAccumulator hessian(kFeatures, job.num_chunks);
  outcome.status = CaptureUntilItFits(job, world, root, hessian, outcome);
  if (outcome.status.ok() && (root < 0 || root == world.rank())) {
    const absl::StatusOr<at::Tensor> h = hessian.Finish();
    outcome.status = h.status();
    if (h.ok()) outcome.hessian = Numbers(*h);
  }
  return outcome;
}

std::vector<Outcome> RunWorld(const Job& job, int world_size, int root) {
  std::vector<std::unique_ptr<Collective>> ranks = MakeThreadCollectives(world_size);
  std::vector<Outcome> outcomes(world_size);
  std::vector<std::thread> threads;
  for (int r = 0; r < world_size; ++r) {
    threads.emplace_back([&, r] { outcomes[r] = RunRank(job, *ranks[r], root); });
  }
  for (std::thread& thread : threads) thread.join();
  return outcomes;
}

// 2 / sequences * X^T X in double.
std::vector<double> Reference(const Job& job) {
  std::vector<double> h(kFeatures * kFeatures, 0.0);
  const double factor = 2.0 / static_cast<double>(job.samples.size());
  for (const HostTensor& x : job.samples) {
    for (int64_t t = 0; t < kSampleTokens; ++t) {
      const float* const row = x.as<float>() + t * kFeatures;
      for (int64_t i = 0; i < kFeatures * kFeatures; ++i) {
        h[i] += factor * row[i / kFeatures] * row[i % kFeatures];
      }
    }
  }
  return h;
}

void ExpectNear(const std::vector<float>& actual, const std::vector<double>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (int64_t i = 0; i < kFeatures; ++i) {
    for (int64_t j = 0; j < kFeatures; ++j) {
      const double size = std::sqrt(expected[i * (kFeatures + 1)] * expected[j * (kFeatures + 1)]);
      ASSERT_NEAR(actual[i * kFeatures + j], expected[i * kFeatures + j], 1e-6 * size)
          << i << " " << j;
    }
  }
}

TEST(HessianAccumulator, OneRank_GivesTheNormalisedGramMatrix) {
  const Job job = MakeJob(5);
  const Outcome outcome = RunWorld(job, 1, 0)[0];
  ASSERT_EQ(outcome.status, absl::OkStatus());
  EXPECT_EQ(outcome.num_captures, 1);
  EXPECT_EQ(outcome.sum.tokens, 10 * kSampleTokens);
  EXPECT_EQ(outcome.sum.sequences, 10);
  ExpectNear(outcome.hessian, Reference(job));
}

TEST(HessianAccumulator, AnyNumberOfRanks_GivesEqualBits) {
  const Job job = MakeJob(5);
  const std::vector<float> expected = RunWorld(job, 1, 0)[0].hessian;
  for (const int world_size : {2, 3, 5, 7}) {
    const int root = world_size / 2;
    EXPECT_EQ(RunWorld(job, world_size, root)[root].hessian, expected) << world_size;
    for (const Outcome& outcome : RunWorld(job, world_size, -1)) {
      EXPECT_EQ(outcome.hessian, expected) << world_size;
    }
  }
}

TEST(HessianAccumulator, LaterChunkMuchLarger_IsCapturedAgainWithEqualBits) {
  Job job = MakeJob(4);
  Scale(job, 7, 5, 1e6f);
  const std::vector<float> expected = RunWorld(job, 1, 0)[0].hessian;
  ExpectNear(expected, Reference(job));
  for (const int world_size : {2, 4, 6}) {
    const std::vector<Outcome> outcomes = RunWorld(job, world_size, 0);
    for (const Outcome& outcome : outcomes) {
      EXPECT_EQ(outcome.status, absl::OkStatus());
      EXPECT_EQ(outcome.num_captures, 2);
    }
    EXPECT_EQ(outcomes[0].hessian, expected);
  }
}

TEST(HessianAccumulator, ColumnDeadInChunkZero_KeepsItsPrecision) {
  for (const float factor : {1.0f, 1e-9f, 1e9f}) {
    Job job = MakeJob(3);
    for (int64_t s = 0; s < 6; ++s) Scale(job, s, 8, s < 2 ? 0.0f : factor);
    const Outcome outcome = RunWorld(job, 2, 0)[0];
    ASSERT_EQ(outcome.status, absl::OkStatus());
    EXPECT_EQ(outcome.num_captures, factor == 1 ? 1 : 2);
    ExpectNear(outcome.hessian, Reference(job));
  }
}

TEST(HessianAccumulator, ColumnAlwaysDead_IsZero) {
  Job job = MakeJob(2);
  for (int64_t s = 0; s < 4; ++s) Scale(job, s, 3, 0);
  const Outcome outcome = RunWorld(job, 2, 0)[0];
  EXPECT_EQ(outcome.num_captures, 1);
  EXPECT_EQ(outcome.hessian[3 * kFeatures + 3], 0);
  ExpectNear(outcome.hessian, Reference(job));
}

TEST(HessianAccumulator, NoTokenAtAll_GivesZeros) {
  const auto self = MakeSelfCollective();
  HessianAccumulator hessian(kFeatures, 1);
  ASSERT_TRUE(hessian.ShareExponents(*self).ok());
  ASSERT_TRUE(hessian.EndChunk().ok());
  const auto sum = hessian.Reduce(*self, 0);
  ASSERT_TRUE(sum.ok());
  EXPECT_EQ(sum->tokens, 0);
  EXPECT_FALSE(sum->needs_rescale);
  EXPECT_EQ(Numbers(*hessian.Finish())[kFeatures * kFeatures - 1], 0);
}

TEST(HessianAccumulator, NonFiniteInput_FailsOnEveryRank) {
  for (const float bad :
       {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    for (const int sample : {0, 6}) {
      Job job = MakeJob(4);
      job.samples[sample].as<float>()[2] = bad;
      for (const Outcome& outcome : RunWorld(job, 2, 0)) {
        EXPECT_TRUE(absl::IsFailedPrecondition(outcome.status));
        EXPECT_THAT(std::string(outcome.status.message()), HasSubstr("input feature 2"));
      }
    }
  }
}

TEST(HessianAccumulator, GivenExponents_ReplaceThoseOfChunkZero) {
  const Job job = MakeJob(2);
  const auto self = MakeSelfCollective();
  HessianAccumulator hessian(kFeatures, 2);
  hessian.SetExponents(std::vector<int16_t>(kFeatures, 6));
  ASSERT_TRUE(Capture(job, *self, hessian).ok());
  EXPECT_EQ(hessian.exponents(), std::vector<int16_t>(kFeatures, 6));
  ASSERT_TRUE(hessian.Reduce(*self, 0).ok());
  const std::vector<float> h = Numbers(*hessian.Finish());
  ExpectNear(h, Reference(job));
}

TEST(HessianAccumulator, Misuse_IsRefused) {
  HessianAccumulator hessian(kFeatures, 2);
  EXPECT_TRUE(absl::IsFailedPrecondition(hessian.EndChunk()));
  const float row[4] = {};
  EXPECT_TRUE(absl::IsInvalidArgument(hessian.Add({row, DType::kF32, 1, 4, 4}, 1)));
}

}  // namespace
}  // namespace llmc
