#include "kernels/hessian.h"

#include <gtest/gtest.h>

#include <vector>

#include "linear_algebra_reference.h"

namespace llmc::kernels {
namespace {

constexpr GramMethod kMethods[] = {GramMethod::kBest, GramMethod::kBf16Dot, GramMethod::kFma,
                                   GramMethod::kBlas};

TokenRows Rows(const HostTensor& x) {
  return {x.bytes().data(), x.dtype(), x.dim(0), x.dim(1), x.dim(1)};
}

absl::StatusOr<std::vector<float>> Gram(const TokenRows& rows, GramMethod method) {
  std::vector<float> gram(Triangle(rows.features).num_elements(), 0.0f);
  LLMC_RETURN_IF_ERROR(AddGram(rows, gram, method));
  return gram;
}

TEST(Triangle, Tiles_CoverUpperTriangleWithoutOverlap) {
  for (const int64_t n : {1, 16, 255, 256, 257, 700}) {
    const Triangle triangle(n);
    int64_t next = 0;
    for (int64_t t = 0; t < triangle.num_tiles(); ++t) {
      const TriangleTile tile = triangle.tile(t);
      EXPECT_EQ(tile.offset, next);
      EXPECT_EQ(tile.offset % 16, 0);
      EXPECT_EQ(triangle.offset(tile.row, std::max(tile.col, tile.row)), tile.offset);
      next += tile.rows * tile.cols;
    }
    EXPECT_EQ(next, triangle.num_elements());
  }
}

class AddGramShapes : public ::testing::TestWithParam<std::pair<int64_t, int64_t>> {};

TEST_P(AddGramShapes, EveryMethod_MatchesDoublePrecision) {
  const auto [tokens, features] = GetParam();
  const HostTensor narrow = ToBf16(CorrelatedTokens(tokens, features, 3));
  const HostTensor wide = ToFloat(narrow);
  const Doubles expected = ReferenceGram(wide);
  for (const HostTensor* x : {&narrow, &wide}) {
    for (const GramMethod method : kMethods) {
      const auto gram = Gram(Rows(*x), method);
      if (absl::IsUnimplemented(gram.status())) continue;
      ASSERT_TRUE(gram.ok()) << gram.status();
      EXPECT_LT(LargestGramError(*gram, expected, features), 3e-6)
          << SafetensorsName(x->dtype()) << " method " << static_cast<int>(method);
    }
  }
}
INSTANTIATE_TEST_SUITE_P(All, AddGramShapes,
                         ::testing::Values(std::pair{1, 1}, std::pair{3, 17}, std::pair{65, 40},
                                           std::pair{700, 300}, std::pair{2055, 37}));

TEST(AddGram, RowsWithStride_ReadsOnlyTheFeatures) {
  const HostTensor x = RandomFloats(33, 40, 1);
  HostTensor part(DType::kF32, {33, 30});
  for (int64_t t = 0; t < 33; ++t) {
    for (int64_t f = 0; f < 30; ++f) part.as<float>()[t * 30 + f] = x.as<float>()[t * 40 + f];
  }
  const TokenRows strided{x.bytes().data(), DType::kF32, 33, 30, 40};
  for (const GramMethod method : kMethods) {
    EXPECT_EQ(*Gram(strided, GramMethod::kBest), *Gram(Rows(part), GramMethod::kBest))
        << static_cast<int>(method);
  }
}

TEST(AddGram, SecondCall_AddsToTheFirst) {
  const HostTensor x = RandomFloats(64, 20, 9);
  std::vector<float> twice = *Gram(Rows(x), GramMethod::kBest);
  ASSERT_TRUE(AddGram(Rows(x), twice).ok());
  Doubles expected = ReferenceGram(x);
  for (double& value : expected) value *= 2;
  EXPECT_LT(LargestGramError(twice, expected, 20), 1e-6);
}

TEST(AddGram, AnyNumberOfThreads_GivesEqualBits) {
  const HostTensor narrow = ToBf16(CorrelatedTokens(130, 600, 4));
  const HostTensor wide = ToFloat(narrow);
  for (const HostTensor* x : {&narrow, &wide}) {
    for (const GramMethod method : kMethods) {
      const auto run = [&] { return Gram(Rows(*x), method); };
      const auto one = WithThreads(1, run);
      if (!one.ok()) continue;
      EXPECT_EQ(*one, *WithThreads(2, run));
      EXPECT_EQ(*one, *WithThreads(3, run));
    }
  }
}

TEST(AddGram, BadArguments_AreRefused) {
  const HostTensor x = RandomFloats(4, 8, 1);
  std::vector<float> gram(Triangle(8).num_elements());
  TokenRows rows = Rows(x);
  rows.stride = 7;
  EXPECT_TRUE(absl::IsInvalidArgument(AddGram(rows, gram)));
  rows = Rows(x);
  rows.dtype = DType::kF16;
  EXPECT_TRUE(absl::IsInvalidArgument(AddGram(rows, gram)));
  gram.pop_back();
  EXPECT_TRUE(absl::IsInvalidArgument(AddGram(Rows(x), gram)));
}

}  // namespace
}  // namespace llmc::kernels
