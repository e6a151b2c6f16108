// Who does what: the one rule by which ranks share work. The coordinator stores what
// it gives for a job, and ranks follow it.
#ifndef LLMC_PLAN_PARTITION_H_
#define LLMC_PLAN_PARTITION_H_

#include <cstdint>
#include <vector>

namespace llmc {

// Rows [begin, end); may be empty.
struct RowRange {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t count() const { return end - begin; }
};

// Rows of a linear that `rank` solves: equal shares of whole units of 64 rows, which
// solvers keep together.
RowRange RowsOfRank(int64_t rows, int rank, int world_size);

// Of `count` pieces those that `rank` does: rank, rank + world_size, ... Pieces are
// chunks of calibration samples, or tensors of a job that needs no data.
std::vector<int64_t> PiecesOfRank(int64_t count, int rank, int world_size);

}  // namespace llmc

#endif  // LLMC_PLAN_PARTITION_H_
