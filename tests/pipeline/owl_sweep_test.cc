#include "pipeline/owl_sweep.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

namespace llmc {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;

// By hand: ratios 1, 2, 5 are stretched to 0, 0.05, 0.2 (lambda 0.1), mean 1/12.
TEST(OwlSparsities, Ratios_AreStretchedAroundTheAsked) {
  const std::vector<double> ratios = {1, 2, 5};
  EXPECT_THAT(OwlSparsities(ratios, 0.5, 0.1),
              ElementsAre(DoubleNear(0.5 + 1.0 / 12, 1e-12), DoubleNear(0.5 + 1.0 / 30, 1e-12),
                          DoubleNear(0.5 - 7.0 / 60, 1e-12)));
}

TEST(OwlSparsities, Mean_IsTheAsked) {
  const std::vector<double> ratios = {3.1, 0.2, 8, 4.4, 2};
  const std::vector<double> found = OwlSparsities(ratios, 0.7, 0.08);
  EXPECT_NEAR(std::accumulate(found.begin(), found.end(), 0.0) / 5, 0.7, 1e-12);
}

TEST(OwlSparsities, EqualRatios_GiveTheAskedEverywhere) {
  const std::vector<double> ratios = {2, 2};
  EXPECT_THAT(OwlSparsities(ratios, 0.6, 0.1), ElementsAre(0.6, 0.6));
}

}  // namespace
}  // namespace llmc
