#include "plan/partition.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

TEST(Partition, AnyWorld_EveryPieceHasOneRank) {
  for (int world_size : {1, 2, 3, 7}) {
    for (int64_t count : {0, 1, 6, 25}) {
      std::vector<int> ranks(count, 0);
      for (int rank = 0; rank < world_size; ++rank) {
        int64_t last = -1;
        for (int64_t piece : PiecesOfRank(count, rank, world_size)) {
          ASSERT_GT(piece, last);
          EXPECT_EQ(piece % world_size, rank);
          ++ranks.at(piece);
          last = piece;
        }
      }
      EXPECT_EQ(ranks, std::vector<int>(count, 1));
    }
  }
}

TEST(Partition, AnyWorld_RowsAreCoveredInOrderByWholeUnits) {
  for (int world_size : {1, 2, 3, 8}) {
    for (int64_t rows : {1, 63, 64, 65, 192, 4096}) {
      int64_t begin = 0;
      for (int rank = 0; rank < world_size; ++rank) {
        const RowRange share = RowsOfRank(rows, rank, world_size);
        EXPECT_EQ(share.begin, begin);
        EXPECT_TRUE(share.end % 64 == 0 || share.end == rows);
        EXPECT_LE(share.count(), (rows + 64 * world_size) / world_size);
        begin = share.end;
      }
      EXPECT_EQ(begin, rows);
    }
  }
}

}  // namespace
}  // namespace llmc
