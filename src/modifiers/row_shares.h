// One matrix on several ranks: each works on its share of the rows.
#ifndef LLMC_MODIFIERS_ROW_SHARES_H_
#define LLMC_MODIFIERS_ROW_SHARES_H_

#include <cstdint>

#include "collective/collective.h"
#include "llmc/status.h"
#include "llmc/tensor.h"
#include "plan/partition.h"

namespace llmc {

// This rank's share of the rows of a matrix.
RowRange RowsOfRank(int64_t rows, const Collective& collective);

// Collective: every rank's rows of `weight`, [rows, columns], to every rank.
absl::Status GatherRows(Collective& collective, HostTensor& weight);

// Collective: the sum of every rank's number, added in rank order.
absl::StatusOr<double> SumOverRanks(Collective& collective, double mine);

}  // namespace llmc

#endif  // LLMC_MODIFIERS_ROW_SHARES_H_
