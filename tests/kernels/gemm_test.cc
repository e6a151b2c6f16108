#include "kernels/gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "linear_algebra_reference.h"

namespace llmc::kernels {
namespace {

template <typename T>
struct Storage {
  Storage(int64_t rows, int64_t cols, uint64_t seed) : values(rows * (cols + 3)) {
    const HostTensor random = RandomFloats(rows, cols + 3, seed);
    for (size_t i = 0; i < values.size(); ++i) values[i] = random.as<float>()[i];
    matrix = {values.data(), rows, cols, cols + 3};
  }
  std::vector<T> values;
  Matrix<T> matrix;
};

// Lower triangular and well conditioned.
template <typename T>
Storage<T> Lower(int64_t n) {
  Storage<T> l(n, n, 5);
  for (int64_t i = 0; i < n; ++i) l.matrix.at(i, i) = static_cast<T>(n + i);
  return l;
}

template <typename T>
class GemmTest : public ::testing::Test {
 public:
  static constexpr double kTolerance = sizeof(T) == 4 ? 2e-5 : 1e-12;
};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(GemmTest, Types);

TYPED_TEST(GemmTest, EveryTransposition_MatchesDefinition) {
  for (const Transposed t : {Transposed::kNone, Transposed::kFirst, Transposed::kSecond}) {
    const bool first = t == Transposed::kFirst;
    const bool second = t == Transposed::kSecond;
    const Storage<TypeParam> a(first ? 7 : 5, first ? 5 : 7, 1);
    const Storage<TypeParam> b(second ? 9 : 7, second ? 7 : 9, 2);
    const Storage<TypeParam> before(5, 9, 3);
    Storage<TypeParam> c(5, 9, 3);
    Gemm(a.matrix, b.matrix, c.matrix, {.transposed = t, .alpha = -2, .beta = TypeParam(0.5)});
    for (int64_t i = 0; i < 5; ++i) {
      for (int64_t j = 0; j < 9; ++j) {
        double sum = 0.5 * before.matrix.at(i, j);
        for (int64_t k = 0; k < 7; ++k) {
          const double x = first ? a.matrix.at(k, i) : a.matrix.at(i, k);
          sum += -2 * x * (second ? b.matrix.at(j, k) : b.matrix.at(k, j));
        }
        EXPECT_NEAR(c.matrix.at(i, j), sum, this->kTolerance);
      }
    }
  }
}

TYPED_TEST(GemmTest, CholeskyOfLTimesLTransposed_IsL) {
  const int64_t n = 13;
  const Storage<TypeParam> l = Lower<TypeParam>(n);
  Storage<TypeParam> a(n, n, 4);
  const TypeParam above = a.matrix.at(0, n - 1);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (int64_t k = 0; k <= j; ++k) sum += l.matrix.at(i, k) * l.matrix.at(j, k);
      a.matrix.at(i, j) = static_cast<TypeParam>(sum);
    }
  }
  ASSERT_TRUE(CholeskyLower(a.matrix));
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      EXPECT_NEAR(a.matrix.at(i, j), l.matrix.at(i, j), this->kTolerance);
    }
  }
  EXPECT_EQ(a.matrix.at(0, n - 1), above);
}

TYPED_TEST(GemmTest, CholeskyOfIndefiniteOrNaN_IsFalse) {
  Storage<TypeParam> a = Lower<TypeParam>(4);
  a.matrix.at(2, 2) = -1;
  EXPECT_FALSE(CholeskyLower(a.matrix));
  Storage<TypeParam> b = Lower<TypeParam>(4);
  b.matrix.at(3, 3) = std::numeric_limits<TypeParam>::quiet_NaN();
  EXPECT_FALSE(CholeskyLower(b.matrix));
}

}  // namespace
}  // namespace llmc::kernels
