#include "calibration/exact_sums.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <thread>
#include <vector>

namespace llmc {
namespace {

std::vector<double> Values(int64_t count) {
  std::mt19937 random(11);
  std::uniform_real_distribution<double> exponent(-30.0, 30.0);
  std::vector<double> values(count);
  for (double& v : values) v = std::exp2(exponent(random)) * (random() % 2 == 0 ? 1 : -1);
  return values;
}

TEST(ExactSums, AnyOrder_SameBits) {
  std::vector<double> values = Values(1000);
  ExactSums forward(1), backward(1);
  long double expected = 0;
  for (const double v : values) {
    forward.Add({&v, 1});
    expected += v;
  }
  std::reverse(values.begin(), values.end());
  for (const double v : values) backward.Add({&v, 1});
  EXPECT_EQ(forward.Get(0), backward.Get(0));
  EXPECT_NEAR(forward.Get(0), static_cast<double>(expected), 1e-12 * std::exp2(30));
}

TEST(ExactSums, AnyNumberOfRanks_SameBits) {
  const std::vector<double> values = Values(60);
  ExactSums alone(2);
  for (const double v : values) alone.Add(std::vector<double>{v, -v});
  for (const int ranks : {2, 3}) {
    auto world = MakeThreadCollectives(ranks);
    std::vector<std::vector<double>> sums(ranks);
    std::vector<std::thread> threads;
    for (int r = 0; r < ranks; ++r) {
      threads.emplace_back([&, r] {
        ExactSums mine(2);
        for (size_t i = r; i < values.size(); i += ranks) {
          mine.Add(std::vector<double>{values[i], -values[i]});
        }
        ASSERT_TRUE(mine.Reduce(*world[r]).ok());
        sums[r] = {mine.Get(0), mine.Get(1)};
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const std::vector<double>& sum : sums) {
      EXPECT_EQ(sum, (std::vector<double>{alone.Get(0), alone.Get(1)}));
    }
  }
}

TEST(ExactSums, ValuesThatDoNotFit_MakeTheSumInfinite) {
  for (const double bad :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), 1e300}) {
    ExactSums sums(2);
    sums.Add(std::vector<double>{1.0, bad});
    sums.Add(std::vector<double>{2.0, 1.0});
    EXPECT_EQ(sums.Get(0), 3.0);
    EXPECT_TRUE(std::isinf(sums.Get(1)));
  }
}

}  // namespace
}  // namespace llmc
