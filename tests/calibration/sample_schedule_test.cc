#include "calibration/sample_schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

namespace llmc {
namespace {

int64_t Sum(const std::vector<int64_t>& values) {
  return std::accumulate(values.begin(), values.end(), int64_t{0});
}

// Lengths in [1, longest], the same on every run.
std::vector<int64_t> RandomLengths(int64_t count, int64_t longest, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int64_t> lengths(count);
  for (int64_t& length : lengths) length = 1 + static_cast<int64_t>(random()) % longest;
  return lengths;
}

// Every sample is in exactly one pack, in order, and the counts add up.
void ExpectPartition(const std::vector<Chunk>& chunks, const std::vector<int64_t>& lengths) {
  int64_t next = 0;
  for (const Chunk& chunk : chunks) {
    int64_t chunk_tokens = 0;
    for (const Pack& pack : chunk.packs) {
      ASSERT_EQ(pack.begin, next);
      ASSERT_GT(pack.end, pack.begin);
      ASSERT_LE(pack.end, static_cast<int64_t>(lengths.size()));
      ASSERT_EQ(pack.tokens,
                std::accumulate(&lengths[pack.begin], lengths.data() + pack.end, int64_t{0}));
      next = pack.end;
      chunk_tokens += pack.tokens;
    }
    ASSERT_EQ(chunk.tokens, chunk_tokens);
  }
  ASSERT_EQ(next, static_cast<int64_t>(lengths.size()));
}

TEST(CutIntoChunks, LengthsOfManyKinds_EverySampleIsInOnePack) {
  for (uint32_t seed = 0; seed < 40; ++seed) {
    const int64_t longest = int64_t{1} << (seed % 14);
    const std::vector<int64_t> lengths = RandomLengths(1 + 37 * seed, longest, seed);
    ExpectPartition(CutIntoChunks(lengths), lengths);
  }
}

TEST(CutIntoChunks, OneLongSampleAmongShortOnes_EverySampleIsInOnePack) {
  std::vector<int64_t> lengths(50, 1);
  for (size_t place : {0u, 20u, 49u}) {
    std::vector<int64_t> skewed = lengths;
    skewed[place] = 100'000;
    ExpectPartition(CutIntoChunks(skewed), skewed);
  }
}

TEST(CutIntoChunks, NoSamples_NoChunks) { EXPECT_TRUE(CutIntoChunks({}).empty()); }

TEST(CutIntoChunks, FewerTokensThanTwoChunks_OneChunk) {
  EXPECT_EQ(CutIntoChunks({1}).size(), 1u);
  EXPECT_EQ(CutIntoChunks({kMinChunkTokens, kMinChunkTokens - 1}).size(), 1u);
  EXPECT_EQ(CutIntoChunks({kMinChunkTokens, kMinChunkTokens}).size(), 2u);
}

TEST(CutIntoChunks, Packs_AllButTheLastOfAChunkAreFull) {
  for (const Chunk& chunk : CutIntoChunks(RandomLengths(2000, 300, 5))) {
    for (size_t i = 0; i + 1 < chunk.packs.size(); ++i) {
      EXPECT_GE(chunk.packs[i].tokens, kMinPackTokens);
    }
    for (const Pack& pack : chunk.packs) EXPECT_LT(pack.tokens, kMinPackTokens + 300);
  }
}

TEST(CutIntoChunks, Sizes_DifferFromAnEqualShareByLessThanOneSample) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    const std::vector<int64_t> lengths = RandomLengths(600, 2048, seed);
    const std::vector<Chunk> chunks = CutIntoChunks(lengths);
    const int64_t longest = *std::max_element(lengths.begin(), lengths.end());
    const int64_t share = Sum(lengths) / static_cast<int64_t>(chunks.size());
    EXPECT_GE(share, kMinChunkTokens);
    for (const Chunk& chunk : chunks) {
      EXPECT_GT(chunk.tokens, share - longest);
      EXPECT_LE(chunk.tokens, share + longest);
    }
  }
}

TEST(CutIntoChunks, AnyAmountOfText_CommonNumbersOfRanksGetEqualShares) {
  for (int64_t most = 2; most < 400; ++most) {
    const std::vector<int64_t> lengths(most * kMinChunkTokens / 64, 64);
    const int64_t num_chunks = static_cast<int64_t>(CutIntoChunks(lengths).size());
    EXPECT_LE(num_chunks, most);
    // No more is lost to rounding than half.
    EXPECT_GT(2 * num_chunks, most);
    EXPECT_EQ(num_chunks % 2, 0) << most;
    if (most >= 4) {
      EXPECT_EQ(num_chunks % 4, 0) << most;
    }
    if (most >= 24) {
      EXPECT_EQ(num_chunks % 12, 0) << most;
    }
    if (most >= 48) {
      EXPECT_EQ(num_chunks % 24, 0) << most;
    }
  }
}

}  // namespace
}  // namespace llmc
