#include "calibration/extrema.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <random>
#include <thread>
#include <vector>

namespace llmc {
namespace {

std::vector<Extrema> RandomExtrema(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(0.1f, 30.0f);
  std::vector<Extrema> extrema(count);
  for (Extrema& e : extrema) e = {-uniform(random), uniform(random)};
  return extrema;
}

// What every rank of a world finds when sample i belongs to rank i % world_size.
struct Found {
  Extrema running;
  Extrema average;
};
std::vector<Found> Reduced(const std::vector<Extrema>& samples, int world_size) {
  auto world = MakeThreadCollectives(world_size);
  std::vector<Found> found(world_size);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < world_size; ++rank) {
    threads.emplace_back([&, rank] {
      ExtremaStatistic statistic(static_cast<int64_t>(samples.size()));
      for (size_t i = rank; i < samples.size(); i += world_size) statistic.Add(i, {&samples[i], 1});
      EXPECT_TRUE(statistic.Reduce(*world[rank]).ok());
      found[rank] = {statistic.Static()[0], statistic.MovingAverage(0.01f)[0]};
    });
  }
  for (std::thread& thread : threads) thread.join();
  return found;
}

void AddOne(ExtremaStatistic& statistic, int64_t sample, Extrema extrema) {
  statistic.Add(sample, {&extrema, 1});
}

bool SameBits(const Extrema& a, const Extrema& b) {
  return std::bit_cast<uint32_t>(a.min) == std::bit_cast<uint32_t>(b.min) &&
         std::bit_cast<uint32_t>(a.max) == std::bit_cast<uint32_t>(b.max);
}

TEST(ExtremaStatistic, Static_IsTheSmallestAndLargestOfAllSamples) {
  const std::vector<Extrema> samples = RandomExtrema(50, 1);
  ExtremaStatistic statistic(50);
  Extrema expected;
  for (int64_t i = 49; i >= 0; --i) {
    statistic.Add(i, {&samples[i], 1});
    expected = {std::min(expected.min, samples[i].min), std::max(expected.max, samples[i].max)};
  }
  EXPECT_TRUE(SameBits(statistic.Static()[0], expected));
}

TEST(ExtremaStatistic, StaticOfOneSign_RangeHoldsZero) {
  ExtremaStatistic statistic(1);
  AddOne(statistic, 0, {2.0f, 3.0f});
  EXPECT_TRUE(SameBits(statistic.Static()[0], {0.0f, 3.0f}));
}

TEST(ExtremaStatistic, NoSamples_ZeroRange) {
  const ExtremaStatistic statistic(3);
  EXPECT_TRUE(SameBits(statistic.Static()[0], {0.0f, 0.0f}));
  EXPECT_TRUE(SameBits(statistic.MovingAverage(0.5f)[0], {0.0f, 0.0f}));
}

TEST(ExtremaStatistic, MovingAverage_FirstSampleSetsBoth) {
  ExtremaStatistic statistic(3);
  AddOne(statistic, 1, {-3.25f, 7.5f});
  EXPECT_TRUE(SameBits(statistic.MovingAverage(0.01f)[0], {-3.25f, 7.5f}));
}

TEST(ExtremaStatistic, MovingAverageOfOne_IsTheLastSample) {
  ExtremaStatistic statistic(3);
  AddOne(statistic, 0, {-1.0f, 4.0f});
  AddOne(statistic, 2, {-0.5f, 2.0f});
  EXPECT_TRUE(SameBits(statistic.MovingAverage(1.0f)[0], {-0.5f, 2.0f}));
}

TEST(ExtremaStatistic, MovingAverage_FollowsItsRecurrence) {
  const std::vector<Extrema> samples = RandomExtrema(200, 2);
  ExtremaStatistic statistic(200);
  double min = samples[0].min;
  double max = samples[0].max;
  for (int64_t i = 0; i < 200; ++i) {
    statistic.Add(i, {&samples[i], 1});
    min += 0.05 * (samples[i].min - min);
    max += 0.05 * (samples[i].max - max);
  }
  const Extrema average = statistic.MovingAverage(0.05f)[0];
  // Each step rounds three times; older errors fade by 0.95 a step.
  const double tolerance = 3 / 0.05 * 0x1p-24 * 30;
  EXPECT_NEAR(average.min, min, tolerance);
  EXPECT_NEAR(average.max, max, tolerance);
}

TEST(ExtremaStatistic, ReducedOverAnyWorld_SameBitsOnEveryRank) {
  const std::vector<Extrema> samples = RandomExtrema(23, 3);
  ExtremaStatistic all(23);
  for (int64_t i = 0; i < 23; ++i) all.Add(i, {&samples[i], 1});
  for (int world_size : {1, 2, 3, 5}) {
    for (const Found& found : Reduced(samples, world_size)) {
      EXPECT_TRUE(SameBits(found.running, all.Static()[0]));
      EXPECT_TRUE(SameBits(found.average, all.MovingAverage(0.01f)[0]));
    }
  }
}

TEST(ExtremaStatistic, ReducedWithoutSomeSamples_TheyStayOut) {
  ExtremaStatistic statistic(4);
  AddOne(statistic, 1, {-2.0f, 1.0f});
  AddOne(statistic, 3, {-4.0f, 3.0f});
  ASSERT_TRUE(statistic.Reduce(*MakeSelfCollective()).ok());
  EXPECT_TRUE(SameBits(statistic.Static()[0], {-4.0f, 3.0f}));
  EXPECT_TRUE(SameBits(statistic.MovingAverage(0.5f)[0], {-3.0f, 2.0f}));
}

TEST(ExtremaStatistic, SeveralChannels_StayApart) {
  ExtremaStatistic statistic(3, 2);
  const Extrema first[] = {{-1.0f, 2.0f}, {-8.0f, 0.5f}};
  const Extrema last[] = {{-3.0f, 1.0f}, {-4.0f, 0.25f}};
  statistic.Add(0, first);
  statistic.Add(2, last);
  ASSERT_TRUE(statistic.Reduce(*MakeSelfCollective()).ok());
  EXPECT_TRUE(SameBits(statistic.Static()[0], {-3.0f, 2.0f}));
  EXPECT_TRUE(SameBits(statistic.Static()[1], {-8.0f, 0.5f}));
  EXPECT_TRUE(SameBits(statistic.Last()[0], {-3.0f, 1.0f}));
  EXPECT_TRUE(SameBits(statistic.MovingAverage(0.5f)[1], {-6.0f, 0.375f}));
}

}  // namespace
}  // namespace llmc
