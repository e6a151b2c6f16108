#include "modifiers/row_shares.h"

#include <cstring>
#include <span>
#include <string>
#include <vector>

namespace llmc {

RowRange RowsOfRank(int64_t rows, const Collective& collective) {
  return RowsOfRank(rows, collective.rank(), collective.world_size());
}

absl::Status GatherRows(Collective& collective, HostTensor& weight) {
  const int64_t row_bytes = weight.dim(1) * ElementSize(weight.dtype());
  std::vector<int64_t> offsets;
  for (int r = 0; r < collective.world_size(); ++r) {
    offsets.push_back(RowsOfRank(weight.dim(0), r, collective.world_size()).begin * row_bytes);
  }
  offsets.push_back(weight.num_bytes());
  const int rank = collective.rank();
  const std::span<const std::byte> mine =
      weight.bytes().subspan(offsets[rank], offsets[rank + 1] - offsets[rank]);
  return collective.AllGather(mine, offsets, weight.bytes());
}

absl::StatusOr<double> SumOverRanks(Collective& collective, double mine) {
  const absl::string_view bytes(reinterpret_cast<const char*>(&mine), sizeof(mine));
  LLMC_ASSIGN_OR_RETURN(const std::vector<std::string> all, collective.AllGatherStrings(bytes));
  double total = 0;
  for (const std::string& text : all) {
    double part = 0;
    std::memcpy(&part, text.data(), sizeof(part));
    total += part;
  }
  return total;
}

}  // namespace llmc
