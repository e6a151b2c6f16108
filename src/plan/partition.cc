#include "plan/partition.h"

#include <algorithm>

namespace llmc {
namespace {

constexpr int64_t kRowUnit = 64;

}  // namespace

RowRange RowsOfRank(int64_t rows, int rank, int world_size) {
  const int64_t units = (rows + kRowUnit - 1) / kRowUnit;
  const auto edge = [&](int64_t r) { return std::min(rows, units * r / world_size * kRowUnit); };
  return {edge(rank), edge(rank + 1)};
}

std::vector<int64_t> PiecesOfRank(int64_t count, int rank, int world_size) {
  std::vector<int64_t> pieces;
  for (int64_t piece = rank; piece < count; piece += world_size) pieces.push_back(piece);
  return pieces;
}

}  // namespace llmc
