#include "pipeline/run_state.h"

#include "llmc/failpoint.h"

namespace llmc {

absl::Status AgreeToGoOn(RunState& run) {
  int64_t stop[1] = {run.stop != nullptr && run.stop->load() ? 1 : 0};
  LLMC_RETURN_IF_ERROR(run.collective.AllReduceMax(std::span<int64_t>(stop)));
  if (stop[0] == 0) return absl::OkStatus();
  return absl::CancelledError(
      "stopped by a signal after a whole layer; the same command goes on from here");
}

absl::StatusOr<bool> IsUnitDone(RunState& run, const WorkUnit& unit) {
  int64_t done[1] = {run.is_leader() && run.writer->IsDone(unit.name) ? 1 : 0};
  LLMC_RETURN_IF_ERROR(run.collective.AllReduceMax(std::span<int64_t>(done)));
  return done[0] != 0;
}

absl::Status SyncUnit(const RunState& run) {
  LLMC_RETURN_IF_ERROR(Failpoint("unit.before_sync"));
  return run.writer->Sync();
}

absl::Status RecordUnit(RunState& run, const UnitWrites& writes, const absl::Status& synced) {
  LLMC_RETURN_IF_ERROR(run.collective.AgreeOnStatus(synced));
  LLMC_ASSIGN_OR_RETURN(const std::vector<std::string> all,
                        run.collective.GatherStrings(nlohmann::json(writes.hashes).dump(), 0));
  absl::Status local;
  if (run.is_leader()) {
    DoneUnit done;
    done.name = writes.unit->name;
    done.tensors = writes.unit->tensors;
    for (const std::string& text : all) {
      const auto part = nlohmann::json::parse(text).get<std::map<std::string, std::string>>();
      done.hashes.insert(part.begin(), part.end());
    }
    local = run.writer->MarkDone(done);
  }
  if (local.ok()) local = Failpoint("unit.marked");
  return run.collective.AgreeOnStatus(local);
}

absl::Status FinishUnit(RunState& run, const UnitWrites& writes) {
  return RecordUnit(run, writes, SyncUnit(run));
}

}  // namespace llmc
