#include "llmc/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <vector>

namespace llmc {
namespace {

TEST(ParallelFor, ManyUnits_EachRunsOnce) {
  SetNumThreads(4);
  for (int round = 0; round < 100; ++round) {
    std::vector<std::atomic<int>> runs(1000);
    ParallelFor(1000, [&](int64_t i) { ++runs[i]; });
    for (const auto& count : runs) ASSERT_EQ(count, 1);
  }
}

TEST(ParallelFor, Nested_RunsSerially) {
  std::atomic<int> total{0};
  ParallelFor(8, [&](int64_t) { ParallelFor(8, [&](int64_t) { ++total; }); });
  EXPECT_EQ(total, 64);
}

TEST(ParallelFor, UnitThrows_CallerGetsTheException) {
  EXPECT_THROW(ParallelFor(100,
                           [](int64_t i) {
                             if (i == 7) throw std::runtime_error("seven");
                           }),
               std::runtime_error);
  std::atomic<int> total{0};
  ParallelFor(10, [&](int64_t) { ++total; });
  EXPECT_EQ(total, 10);
}

}  // namespace
}  // namespace llmc
