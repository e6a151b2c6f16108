#include "kernels/cholesky.h"

#include <cmath>

#include "device_test.h"
#include "linear_algebra_reference.h"

namespace llmc::kernels {
namespace {

HostTensor MakeHessian(int64_t n) {
  return ToFloatMatrix(ReferenceGram(CorrelatedTokens(2 * n + 3, n, 17)), n);
}

struct FactorCase {
  int64_t n;
  bool ordered;
  double tolerance;  // Of an entry of U, relative to the largest of its row.
};

void PrintTo(const FactorCase& c, std::ostream* out) { *out << c.n; }

class FactorTest : public DeviceTestWithParam<FactorCase> {
 protected:
  absl::StatusOr<DeviceInverseFactor> Factor(const HostTensor& hessian,
                                             std::span<const int32_t> order,
                                             const InverseFactorOptions& options = {}) {
    return FactorInverseHessian(reinterpret_cast<const float*>(Upload(hessian)), hessian.dim(0),
                                order, options, queue());
  }
};

HostTensor InOrder(const HostTensor& hessian, const std::vector<int32_t>& order) {
  const int64_t n = hessian.dim(0);
  HostTensor ordered(DType::kF32, {n, n});
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t c = 0; c < n; ++c) {
      const int64_t row = order.empty() ? r : order[r];
      const int64_t col = order.empty() ? c : order[c];
      ordered.as<float>()[r * n + c] = hessian.as<float>()[row * n + col];
    }
  }
  return ordered;
}

TEST_P(FactorTest, Upper_MatchesDoublePrecision) {
  const auto [n, ordered, tolerance] = GetParam();
  const HostTensor hessian = MakeHessian(n);
  const std::vector<int32_t> order = ordered ? OrderByDiagonal(hessian) : std::vector<int32_t>{};
  absl::StatusOr<DeviceInverseFactor> factor = Factor(hessian, order);
  ASSERT_TRUE(factor.ok()) << factor.status();
  const absl::StatusOr<InverseFactor> cpu = FactorInverseHessian(hessian, order);
  ASSERT_TRUE(cpu.ok());
  EXPECT_EQ(factor->lambda, cpu->lambda);
  EXPECT_EQ(factor->dampening_frac, cpu->dampening_frac);
  EXPECT_EQ(factor->used_fp64, cpu->used_fp64);
  EXPECT_EQ(factor->num_dead, 0);
  const Doubles expected = ReferenceInverseFactor(InOrder(hessian, order), factor->lambda);
  const std::vector<float> upper = Download(factor->upper.as<float>(), n * n);
  for (int64_t r = 0; r < n; ++r) {
    double largest = 0;
    for (int64_t c = r; c < n; ++c) largest = std::max(largest, std::abs(expected[r * n + c]));
    for (int64_t c = 0; c < n; ++c) {
      ASSERT_NEAR(upper[r * n + c], c < r ? 0 : expected[r * n + c],
                  c < r ? 0 : tolerance * largest)
          << r << ", " << c;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, FactorTest,
                         testing::Values(FactorCase{1, false, 1e-6}, FactorCase{2, true, 1e-6},
                                         FactorCase{31, false, 1e-5}, FactorCase{32, true, 1e-5},
                                         FactorCase{33, false, 1e-5}, FactorCase{100, true, 3e-5},
                                         FactorCase{200, false, 3e-5},
                                         FactorCase{300, true, 3e-5}));

class FactorRetryTest : public FactorTest {};

// Pairs of equal columns and hardly any damping: FP32 fails, FP64 does not.
TEST_P(FactorRetryTest, NearlySingular_IsRepeatedAsOnTheCpu) {
  const int64_t n = GetParam().n;
  HostTensor x = CorrelatedTokens(3 * n, n, 4);
  for (int64_t i = 0; i < x.num_elements(); i += 2) x.as<float>()[i + 1] = x.as<float>()[i];
  const HostTensor hessian = ToFloatMatrix(ReferenceGram(x), n);
  const InverseFactorOptions options{.dampening_frac = 1e-9, .max_dampening_frac = 1};
  const absl::StatusOr<InverseFactor> cpu = FactorInverseHessian(hessian, {}, options);
  ASSERT_TRUE(cpu.ok()) << cpu.status();
  ASSERT_TRUE(cpu->used_fp64);
  const absl::StatusOr<DeviceInverseFactor> factor = Factor(hessian, {}, options);
  ASSERT_TRUE(factor.ok()) << factor.status();
  EXPECT_TRUE(factor->used_fp64);
  EXPECT_EQ(factor->dampening_frac, cpu->dampening_frac);
  EXPECT_EQ(factor->lambda, cpu->lambda);
}

TEST_P(FactorRetryTest, DeadColumns_TakeTheMeanOfTheOthers) {
  const int64_t n = GetParam().n;
  HostTensor x = CorrelatedTokens(3 * n, n, 4);
  for (int64_t t = 0; t < x.dim(0); ++t) x.as<float>()[t * n + 2] = 0;
  const HostTensor hessian = ToFloatMatrix(ReferenceGram(x), n);
  absl::StatusOr<DeviceInverseFactor> factor = Factor(hessian, {});
  ASSERT_TRUE(factor.ok()) << factor.status();
  EXPECT_EQ(factor->num_dead, 1);
  const absl::StatusOr<InverseFactor> cpu = FactorInverseHessian(hessian, {});
  const std::vector<float> upper = Download(factor->upper.as<float>(), n * n);
  EXPECT_FLOAT_EQ(upper[2 * (n + 1)], cpu->upper.as<float>()[2 * (n + 1)]);
}

TEST_P(FactorRetryTest, WhatCannotBeFactored_IsRefusedAsOnTheCpu) {
  const int64_t n = GetParam().n;
  HostTensor hessian(DType::kF32, {n, n});
  std::fill_n(hessian.as<float>(), n * n, 0.0f);
  EXPECT_EQ(Factor(hessian, {}).status(), FactorInverseHessian(hessian, {}).status());
  for (int64_t i = 0; i < n; ++i) hessian.as<float>()[i * (n + 1)] = 1;
  hessian.as<float>()[1] = hessian.as<float>()[n] = 9;  // Not positive definite.
  EXPECT_EQ(Factor(hessian, {}).status(), FactorInverseHessian(hessian, {}).status());
  EXPECT_EQ(Factor(hessian, {}).status().code(), absl::StatusCode::kFailedPrecondition);
  hessian.as<float>()[n + 1] = NAN;
  EXPECT_EQ(Factor(hessian, {}).status().code(), absl::StatusCode::kFailedPrecondition);
  hessian.as<float>()[n + 1] = 1;
  const std::vector<int32_t> order(n, 0);
  EXPECT_EQ(Factor(hessian, order).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Factor(hessian, {}, {.dampening_frac = 0}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(Sizes, FactorRetryTest,
                         testing::Values(FactorCase{8, false, 0}, FactorCase{70, false, 0}));

}  // namespace
}  // namespace llmc::kernels
