#include "control/partition.h"

#include "plan/partition.h"

namespace llmc {
namespace {

void AddRows(const v1::PlanSummary& plan, int world_size, v1::RankShare& share) {
  int64_t rows = 0;
  for (const v1::WeightShape& shape : plan.layer_weights()) {
    const RowRange range = RowsOfRank(shape.out_features(), share.rank(), world_size);
    v1::RowRange& added = *share.add_rows();
    added.set_begin(range.begin);
    added.set_end(range.end);
    rows += shape.count() * range.count();
  }
  share.set_rows_per_layer(rows);
}

}  // namespace

v1::Partition MakePartition(const v1::PlanSummary& plan, int world_size) {
  v1::Partition partition;
  partition.set_world_size(world_size);
  partition.set_num_layers(plan.num_layers());
  partition.set_shares_tensors(!plan.calibrated());
  for (int rank = 0; rank < world_size; ++rank) {
    v1::RankShare& share = *partition.add_ranks();
    share.set_rank(rank);
    share.set_first_piece(PiecesOfRank(rank + 1, rank, world_size).front());
    if (plan.calibrated()) AddRows(plan, world_size, share);
  }
  return partition;
}

}  // namespace llmc
