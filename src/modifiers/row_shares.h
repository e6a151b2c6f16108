// One matrix on several ranks: each works on its share of the rows.
#ifndef LLMC_MODIFIERS_ROW_SHARES_H_
#define LLMC_MODIFIERS_ROW_SHARES_H_

#include <cstdint>

#include "collective/collective.h"
#include "llmc/status.h"
#include "llmc/tensor.h"

namespace llmc {

// Rows [begin, end); may be empty.
struct RowRange {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t count() const { return end - begin; }
};

// Equal shares of whole units of 64 rows, which solvers keep together.
RowRange RowsOfRank(int64_t rows, const Collective& collective);
RowRange RowsOfRank(int64_t rows, int rank, int world_size);

// Collective: every rank's rows of `weight`, [rows, columns], to every rank.
absl::Status GatherRows(Collective& collective, HostTensor& weight);

// Collective: the sum of every rank's number, added in rank order.
absl::StatusOr<double> SumOverRanks(Collective& collective, double mine);

}  // namespace llmc

#endif  // LLMC_MODIFIERS_ROW_SHARES_H_
