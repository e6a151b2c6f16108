#include "kernels/cholesky.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "linear_algebra_reference.h"

namespace llmc::kernels {
namespace {

using ::testing::HasSubstr;

HostTensor SampleHessian(int64_t n, uint64_t seed) {
  return ToFloatMatrix(ReferenceGram(CorrelatedTokens(2 * n, n, seed)), n);
}

std::vector<float> Elements(const HostTensor& tensor) {
  return {tensor.as<float>(), tensor.as<float>() + tensor.num_elements()};
}

HostTensor Permuted(const HostTensor& h, const std::vector<int32_t>& order) {
  const int64_t n = h.dim(0);
  HostTensor out(DType::kF32, {n, n});
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      out.as<float>()[i * n + j] = h.as<float>()[order[i] * n + order[j]];
    }
  }
  return out;
}

double MeanDiagonal(const HostTensor& h) {
  double sum = 0;
  for (int64_t i = 0; i < h.dim(0); ++i) sum += h.as<float>()[i * (h.dim(0) + 1)];
  return sum / h.dim(0);
}

class FactorSizes : public ::testing::TestWithParam<int64_t> {};

TEST_P(FactorSizes, RandomHessian_MatchesDoublePrecisionByThePapersRoute) {
  const int64_t n = GetParam();
  const HostTensor h = SampleHessian(n, 1);
  const std::vector<int32_t> order = OrderByDiagonal(h);
  const auto factor = FactorInverseHessian(h, order, {.dampening_frac = 0.01});
  ASSERT_TRUE(factor.ok()) << factor.status();
  EXPECT_FALSE(factor->used_fp64);
  EXPECT_EQ(factor->dampening_frac, 0.01);
  EXPECT_NEAR(factor->lambda, 0.01 * MeanDiagonal(h), 1e-6 * factor->lambda);
  const Doubles expected = ReferenceInverseFactor(Permuted(h, order), factor->lambda);
  double largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      const double actual = factor->upper.as<float>()[i * n + j];
      ASSERT_TRUE(j >= i || actual == 0) << i << " " << j;
      const double error = std::abs(actual - expected[i * n + j]);
      largest = std::max(largest, error / expected[i * (n + 1)]);
    }
  }
  EXPECT_LT(largest, 1e-4);
}
INSTANTIATE_TEST_SUITE_P(All, FactorSizes, ::testing::Values(1, 2, 31, 256, 257, 520));

TEST(OrderByDiagonal, EqualEntries_KeepTheirOrder) {
  HostTensor h(DType::kF32, {4, 4});
  std::memset(h.bytes().data(), 0, h.num_bytes());
  const float diagonal[] = {1, 5, 1, 7};
  for (int i = 0; i < 4; ++i) h.as<float>()[i * 5] = diagonal[i];
  EXPECT_EQ(OrderByDiagonal(h), (std::vector<int32_t>{3, 1, 0, 2}));
}

TEST(FactorInverseHessian, AnyNumberOfThreads_GivesEqualBits) {
  const HostTensor h = SampleHessian(600, 2);
  const auto run = [&] { return Elements(FactorInverseHessian(h, {})->upper); };
  const std::vector<float> one = WithThreads(1, run);
  EXPECT_EQ(one, WithThreads(2, run));
  EXPECT_EQ(one, WithThreads(3, run));
}

TEST(FactorInverseHessian, DeadColumns_AreUncorrelatedAndDoNotMoveTheOthers) {
  const HostTensor live = SampleHessian(40, 3);
  HostTensor h(DType::kF32, {42, 42});
  std::memset(h.bytes().data(), 0, h.num_bytes());
  const auto place = [](int64_t i) { return i < 10 ? i : i < 30 ? i + 1 : i + 2; };
  for (int64_t i = 0; i < 40; ++i) {
    for (int64_t j = 0; j < 40; ++j) {
      h.as<float>()[place(i) * 42 + place(j)] = live.as<float>()[i * 40 + j];
    }
  }
  const auto with_dead = FactorInverseHessian(h, {});
  const auto without = FactorInverseHessian(live, {});
  ASSERT_TRUE(with_dead.ok() && without.ok());
  EXPECT_EQ(with_dead->num_dead, 2);
  EXPECT_EQ(with_dead->lambda, without->lambda);
  for (int64_t i = 0; i < 40; ++i) {
    EXPECT_EQ(with_dead->upper.as<float>()[place(i) * 42 + 10], 0);
    for (int64_t j = 0; j < 40; ++j) {
      EXPECT_NEAR(with_dead->upper.as<float>()[place(i) * 42 + place(j)],
                  without->upper.as<float>()[i * 40 + j], 1e-5);
    }
  }
}

TEST(FactorInverseHessian, FailsInFp32_IsRepeatedInFp64) {
  // Two equal columns, damped by less than FP32 can see.
  HostTensor h(DType::kF32, {2, 2});
  std::fill_n(h.as<float>(), 4, 1.0f);
  const auto factor = FactorInverseHessian(h, {}, {.dampening_frac = 1e-9});
  ASSERT_TRUE(factor.ok()) << factor.status();
  EXPECT_TRUE(factor->used_fp64);
  EXPECT_EQ(factor->dampening_frac, 1e-9);
}

TEST(FactorInverseHessian, IndefiniteMatrix_IsDampedMore) {
  HostTensor h(DType::kF32, {2, 2});
  std::fill_n(h.as<float>(), 4, 1.0f);
  h.as<float>()[1] = h.as<float>()[2] = 1.05f;
  const auto factor = FactorInverseHessian(h, {}, {.dampening_frac = 0.01});
  ASSERT_TRUE(factor.ok()) << factor.status();
  EXPECT_NEAR(factor->dampening_frac, 0.1, 1e-12);
  EXPECT_NEAR(factor->lambda, 0.1, 1e-12);
}

TEST(FactorInverseHessian, HopelessMatrix_IsFailedPrecondition) {
  HostTensor h(DType::kF32, {2, 2});
  std::fill_n(h.as<float>(), 4, 0.0f);
  EXPECT_TRUE(absl::IsFailedPrecondition(FactorInverseHessian(h, {}).status()));
  std::fill_n(h.as<float>(), 4, 1.0f);
  h.as<float>()[1] = h.as<float>()[2] = 50.0f;
  const absl::Status singular = FactorInverseHessian(h, {}).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(singular));
  EXPECT_THAT(std::string(singular.message()), HasSubstr("dampening_frac 1"));
  h.as<float>()[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(absl::IsFailedPrecondition(FactorInverseHessian(h, {}).status()));
}

TEST(FactorInverseHessian, NaNOffTheDiagonal_IsFailedPrecondition) {
  HostTensor h = SampleHessian(5, 1);
  h.as<float>()[7] = h.as<float>()[11] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(absl::IsFailedPrecondition(FactorInverseHessian(h, {}).status()));
}

TEST(FactorInverseHessian, BadArguments_AreRefused) {
  const HostTensor h = SampleHessian(3, 1);
  EXPECT_TRUE(absl::IsInvalidArgument(FactorInverseHessian(RandomFloats(2, 3, 1), {}).status()));
  EXPECT_TRUE(
      absl::IsInvalidArgument(FactorInverseHessian(h, std::vector<int32_t>{0, 1, 1}).status()));
  EXPECT_TRUE(
      absl::IsInvalidArgument(FactorInverseHessian(h, std::vector<int32_t>{0, 1}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(FactorInverseHessian(h, {}, {.dampening_frac = 0}).status()));
}

}  // namespace
}  // namespace llmc::kernels
