#include "kernels/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "llmc/float_formats.h"

namespace llmc::kernels {
namespace {

struct Sizes {
  int64_t tokens, heads, key_value_heads, head_dim, window;
};

std::vector<uint16_t> RandomStates(int64_t count, float spread, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<uint16_t> states(count);
  for (uint16_t& s : states) s = FloatToBf16(normal(random));
  return states;
}

// One row of the definition, in double.
std::vector<double> ReferenceRow(const AttentionCall& call, int64_t head, int64_t token) {
  const int64_t g = head / (call.num_heads / call.num_key_value_heads);
  const int64_t first = call.window > 0 ? std::max<int64_t>(0, token - call.window + 1) : 0;
  std::vector<double> scores;
  for (int64_t s = first; s <= token; ++s) {
    double dot = 0;
    for (int64_t c = 0; c < call.head_dim; ++c) {
      dot += static_cast<double>(Bf16ToFloat(call.query.row(head, token)[c])) *
             Bf16ToFloat(call.key.row(g, s)[c]);
    }
    scores.push_back(dot * call.scale);
  }
  const double largest = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  std::vector<double> out(call.head_dim);
  for (size_t i = 0; i < scores.size(); ++i) {
    const double weight = std::exp(scores[i] - largest);
    sum += weight;
    for (int64_t c = 0; c < call.head_dim; ++c) {
      out[c] += weight * Bf16ToFloat(call.value.row(g, first + static_cast<int64_t>(i))[c]);
    }
  }
  for (double& o : out) o /= sum;
  return out;
}

class AttentionSizes : public ::testing::TestWithParam<Sizes> {
 protected:
  void SetUp() override {
    if (!HasAttentionBf16Dot()) GTEST_SKIP() << "the CPU has no BF16 dot product";
  }
};

TEST_P(AttentionSizes, RandomStates_AgreeWithTheDefinition) {
  const Sizes& n = GetParam();
  const auto query = RandomStates(n.heads * n.tokens * n.head_dim, 2, 1);
  const auto key = RandomStates(n.key_value_heads * n.tokens * n.head_dim, 1, 2);
  const auto value = RandomStates(n.key_value_heads * n.tokens * n.head_dim, 1, 3);
  std::vector<uint16_t> out(n.tokens * n.heads * n.head_dim);
  AttentionCall call;
  // Queries head by head; keys and values token by token, as projections leave them.
  call.query = {query.data(), n.tokens * n.head_dim, n.head_dim};
  call.key = {key.data(), n.head_dim, n.key_value_heads * n.head_dim};
  call.value = {value.data(), n.head_dim, n.key_value_heads * n.head_dim};
  call.num_heads = n.heads;
  call.num_key_value_heads = n.key_value_heads;
  call.tokens = n.tokens;
  call.head_dim = n.head_dim;
  call.scale = 1.0f / std::sqrt(static_cast<float>(n.head_dim));
  call.window = n.window;
  call.out = out.data();
  AttendBf16Dot(call);
  for (int64_t token = 0; token < n.tokens; ++token) {
    for (int64_t head = 0; head < n.heads; ++head) {
      const std::vector<double> expected = ReferenceRow(call, head, token);
      for (int64_t c = 0; c < n.head_dim; ++c) {
        const double found = Bf16ToFloat(out[(token * n.heads + head) * n.head_dim + c]);
        // Weights and the result are rounded to 8 bits; values are below 4.5.
        ASSERT_NEAR(found, expected[c], 4.5 * 0x1p-8 + std::abs(expected[c]) * 0x1p-8)
            << "token " << token << ", head " << head << ", channel " << c;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, AttentionSizes,
                         ::testing::Values(Sizes{1, 1, 1, 2, 0}, Sizes{70, 4, 2, 64, 0},
                                           Sizes{12, 2, 2, 80, 0}, Sizes{133, 3, 1, 32, 0},
                                           Sizes{97, 2, 1, 128, 16}, Sizes{65, 2, 2, 34, 1},
                                           Sizes{40, 4, 4, 16, 1000}));

TEST(Attention, ScoresFarApart_LargestKeyWinsWithoutOverflow) {
  if (!HasAttentionBf16Dot()) GTEST_SKIP() << "the CPU has no BF16 dot product";
  const std::vector<uint16_t> query = {FloatToBf16(1e18f), 0, FloatToBf16(1e18f), 0};
  const std::vector<uint16_t> key = {FloatToBf16(-1e18f), 0, FloatToBf16(1e18f), 0};
  const std::vector<uint16_t> value = {FloatToBf16(3), FloatToBf16(-7), FloatToBf16(5),
                                       FloatToBf16(9)};
  std::vector<uint16_t> out(4);
  AttentionCall call{{query.data(), 4, 2},
                     {key.data(), 4, 2},
                     {value.data(), 4, 2},
                     1,
                     1,
                     2,
                     2,
                     1.0f,
                     0,
                     out.data()};
  AttendBf16Dot(call);
  EXPECT_EQ(out, value);
}

}  // namespace
}  // namespace llmc::kernels
