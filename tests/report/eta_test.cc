#include "report/eta.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

TEST(EtaEstimator, NoLayerFinished_KnowsNothing) {
  EtaEstimator eta;
  EXPECT_FALSE(eta.SecondsPerLayer().has_value());
  eta.Start(3);
  EXPECT_FALSE(eta.Remaining(5, 4).has_value());
}

TEST(EtaEstimator, EvenLayers_GivesTheirTime) {
  EtaEstimator eta;
  eta.Start(10);
  for (int layer = 1; layer <= 5; ++layer) eta.Finish(10 + 4.0 * layer);
  EXPECT_DOUBLE_EQ(*eta.SecondsPerLayer(), 4);
  EXPECT_DOUBLE_EQ(*eta.Remaining(3, 30), 12);
  EXPECT_DOUBLE_EQ(*eta.Remaining(3, 31.5), 10.5);
}

TEST(EtaEstimator, CurrentLayerTakesLonger_TakesOffOneLayerAtMost) {
  EtaEstimator eta;
  eta.Start(0);
  eta.Finish(4);
  EXPECT_DOUBLE_EQ(*eta.Remaining(1, 100), 0);
  EXPECT_DOUBLE_EQ(*eta.Remaining(3, 100), 8);
}

TEST(EtaEstimator, OneLayerStalls_IsNotMoved) {
  EtaEstimator eta;
  eta.Start(0);
  double now = 0;
  for (int layer = 0; layer < 12; ++layer) {
    now += layer == 5 ? 500 : 2;
    eta.Finish(now);
  }
  EXPECT_NEAR(*eta.SecondsPerLayer(), 2, 1e-9);
}

TEST(EtaEstimator, LayersFinishInBursts_GivesTheMeanRate) {
  EtaEstimator eta;
  eta.Start(0);
  for (int burst = 1; burst <= 8; ++burst) {
    for (int i = 0; i < 4; ++i) eta.Finish(burst * 10.0);
  }
  EXPECT_NEAR(*eta.SecondsPerLayer(), 2.5, 0.35);
}

TEST(EtaEstimator, RunChangesSpeed_FollowsTheNewestHalf) {
  EtaEstimator eta;
  eta.Start(0);
  double now = 0;
  for (int layer = 0; layer < 80; ++layer) eta.Finish(now += layer < 40 ? 1.0 : 3.0);
  EXPECT_NEAR(*eta.SecondsPerLayer(), 3, 1e-9);
}

TEST(EtaEstimator, ManyLayers_StaysExactForEvenTimes) {
  EtaEstimator eta;
  eta.Start(0);
  for (int layer = 1; layer <= 5000; ++layer) eta.Finish(0.5 * layer);
  EXPECT_NEAR(*eta.SecondsPerLayer(), 0.5, 1e-9);
}

TEST(EtaEstimator, NothingRemains_GivesZero) {
  EtaEstimator eta;
  eta.Start(0);
  eta.Finish(4);
  EXPECT_DOUBLE_EQ(*eta.Remaining(0, 5), 0);
}

TEST(EtaEstimator, TimeGoesBackwards_IsClamped) {
  EtaEstimator eta;
  eta.Start(10);
  eta.Finish(5);
  EXPECT_DOUBLE_EQ(*eta.SecondsPerLayer(), 0);
}

}  // namespace
}  // namespace llmc
