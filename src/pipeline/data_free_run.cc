#include "pipeline/data_free_run.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "checkpoint/content_hash.h"
#include "kernels/compress.h"
#include "llmc/failpoint.h"
#include "llmc/parallel.h"
#include "modifiers/modifier.h"
#include "modifiers/pruning.h"
#include "plan/partition.h"
#include "recipe/resolve.h"

namespace llmc {
namespace {

// Rows of a slice are a multiple of this: packed zero points fill words and
// blocks are whole.
constexpr int64_t kRowMultiple = 128;

bool SearchesWholeWeight(const QuantizationArgs& args) {
  const std::string observer = args.observer.value_or("");
  return args.strategy == Strategy::kTensor || absl::StrContains(observer, "mse");
}

// Writes the slices of one stored tensor one behind the other and hashes them.
struct StoredStream {
  int64_t offset = 0;
  ContentHasher hasher;
};

// Carries out the recipe's prunings of some rows of source tensor `name`; those of a
// job without data look at magnitudes.
absl::Status PruneRows(const Plan& plan, const std::string& name, HostTensor& rows) {
  for (const PlannedTransform& transform : plan.transforms) {
    if (transform.tensors.empty() || transform.tensors[0] != name) continue;
    const PruningFields& fields = *PruningFieldsOf(plan.recipe.modifiers()[transform.modifier]);
    LLMC_RETURN_IF_ERROR(At(name, PruneRowsByMagnitude(fields, transform.sparsity, rows)));
  }
  return absl::OkStatus();
}

// One module on its way from the source to the output.
class ModuleRounder {
 public:
  ModuleRounder(RunState& run, const PlannedModule& module) : run_(run), module_(module) {}

  absl::Status Round() {
    HostTensor member;
    const auto read = [&](const std::string& name) -> absl::StatusOr<TensorView> {
      LLMC_ASSIGN_OR_RETURN(member, run_.plan.source->Read(name));
      return member.view();
    };
    LLMC_ASSIGN_OR_RETURN(grid_options_.fused_absmax, FusedAbsMax(run_.plan, module_, read));
    const Shape& shape = module_.source.shape;
    const int64_t slice = SliceRows();
    for (int64_t row = 0; row < shape[0]; row += slice) {
      LLMC_RETURN_IF_ERROR(RoundRows(row, std::min(slice, shape[0] - row)));
    }
    return absl::OkStatus();
  }

  std::map<std::string, std::string> Hashes() const {
    std::map<std::string, std::string> hashes;
    for (const auto& [name, stream] : streams_) hashes[name] = stream.hasher.Finish();
    return hashes;
  }

  const std::optional<double>& error() const { return error_; }

 private:
  int64_t SliceRows() const {
    const Shape& shape = module_.source.shape;
    if (SearchesWholeWeight(*module_.scheme->weights)) return shape[0];
    const int64_t row_bytes = shape[1] * ElementSize(module_.source.dtype);
    const int64_t rows = kSliceBytes / std::max<int64_t>(1, row_bytes);
    return std::max(kRowMultiple, rows / kRowMultiple * kRowMultiple);
  }

  absl::Status RoundRows(int64_t first_row, int64_t num_rows) {
    LLMC_ASSIGN_OR_RETURN(HostTensor rows,
                          run_.plan.source->ReadRows(module_.source.name, first_row, num_rows));
    LLMC_RETURN_IF_ERROR(PruneRows(run_.plan, module_.source.name, rows));
    kernels::CompressOptions options;
    options.quotient = run_.job.quotient_rounding;
    options.total_rows = module_.source.shape[0];
    absl::StatusOr<std::vector<kernels::StoredTensor>> stored = kernels::CompressRoundToNearest(
        rows.view(), *module_.scheme->weights, module_.scheme->format, grid_options_, options);
    if (!stored.ok()) {
      const std::string where =
          first_row == 0 ? module_.source.name
                         : absl::StrCat(module_.source.name, " (rows from ", first_row, ")");
      return At(where, stored.status());
    }
    if (first_row == 0) LLMC_RETURN_IF_ERROR(MeasureError(rows));
    for (const kernels::StoredTensor& tensor : *stored) {
      LLMC_RETURN_IF_ERROR(WriteSlice(tensor));
    }
    return absl::OkStatus();
  }

  absl::Status MeasureError(const HostTensor& rows) {
    const int64_t row_bytes = rows.dim(1) * ElementSize(rows.dtype());
    int64_t sample = std::min(rows.dim(0), std::max(kRowMultiple, kErrorSampleBytes / row_bytes));
    if (SearchesWholeWeight(*module_.scheme->weights)) sample = rows.dim(0);
    const TensorView view{
        rows.dtype(), {sample, rows.dim(1)}, rows.bytes().first(sample * row_bytes)};
    LLMC_ASSIGN_OR_RETURN(const kernels::WeightGrid grid,
                          GridOf(module_, view, grid_options_.fused_absmax));
    LLMC_ASSIGN_OR_RETURN(error_, WeightError(module_, view, grid));
    return absl::OkStatus();
  }

  // What every slice repeats (a shape, a tensor's scale) is written once.
  absl::Status WriteSlice(const kernels::StoredTensor& stored) {
    const std::string name = absl::StrCat(module_.module.name, ".", stored.suffix);
    const int64_t total = run_.writer->layout().Find(name)->spec.num_bytes();
    StoredStream& stream = streams_[name];
    if (stream.offset == total) return absl::OkStatus();
    LLMC_RETURN_IF_ERROR(run_.writer->WriteAt(name, stream.offset, stored.tensor.bytes()));
    stream.hasher.Add(stored.tensor.bytes());
    stream.offset += stored.tensor.num_bytes();
    return absl::OkStatus();
  }

  RunState& run_;
  const PlannedModule& module_;
  kernels::WeightGridOptions grid_options_;
  std::map<std::string, StoredStream> streams_;
  std::optional<double> error_;
};

// One piece of a unit: a module to round or a tensor to copy.
struct Task {
  const PlannedModule* module = nullptr;
  std::string copy;
  bool is_pruned = false;  // `copy` is rewritten on its way.
  int64_t bytes = 0;
};

// This rank's pieces, the largest first so that threads end together.
std::vector<Task> TasksOfRank(const RunState& run, const WorkUnit& unit) {
  std::vector<Task> tasks;
  for (int index : unit.modules) {
    const PlannedModule& module = run.plan.modules[index];
    tasks.push_back({&module, "", false, module.source.num_bytes()});
  }
  for (const std::string& name : unit.copies) {
    tasks.push_back({nullptr, name, false, run.plan.source->Find(name)->spec.num_bytes()});
  }
  for (const std::string& name : unit.rewritten) {
    tasks.push_back({nullptr, name, true, run.plan.source->Find(name)->spec.num_bytes()});
  }
  std::stable_sort(tasks.begin(), tasks.end(),
                   [](const Task& a, const Task& b) { return a.bytes > b.bytes; });
  std::vector<Task> mine;
  for (int64_t piece :
       PiecesOfRank(std::ssize(tasks), run.collective.rank(), run.collective.world_size())) {
    mine.push_back(std::move(tasks[piece]));
  }
  return mine;
}

// Results of a unit's tasks, filled from several threads.
struct UnitResults {
  std::mutex mutex;
  absl::Status status;
  std::map<std::string, std::string> hashes;
  std::map<std::string, double> errors;

  void Fail(const absl::Status& error) {
    std::lock_guard<std::mutex> lock(mutex);
    status.Update(error);
  }
  bool failed() {
    std::lock_guard<std::mutex> lock(mutex);
    return !status.ok();
  }
};

absl::Status CopyTask(RunState& run, const std::string& name, UnitResults& results) {
  absl::StatusOr<std::string> hash = run.writer->CopyTensor(*run.plan.source, name, name);
  if (!hash.ok()) return hash.status();
  std::lock_guard<std::mutex> lock(results.mutex);
  results.hashes[name] = *std::move(hash);
  return absl::OkStatus();
}

// A tensor that is pruned and stays dense, in slices.
absl::Status PruneTask(RunState& run, const std::string& name, UnitResults& results) {
  const Shape& shape = run.plan.source->Find(name)->spec.shape;
  const int64_t row_bytes = shape[1] * ElementSize(run.plan.source->Find(name)->spec.dtype);
  const int64_t slice = std::max<int64_t>(1, kSliceBytes / row_bytes);
  ContentHasher hasher;
  for (int64_t row = 0; row < shape[0]; row += slice) {
    const int64_t count = std::min(slice, shape[0] - row);
    LLMC_ASSIGN_OR_RETURN(HostTensor rows, run.plan.source->ReadRows(name, row, count));
    LLMC_RETURN_IF_ERROR(PruneRows(run.plan, name, rows));
    LLMC_RETURN_IF_ERROR(run.writer->WriteAt(name, row * row_bytes, rows.bytes()));
    hasher.Add(rows.bytes());
  }
  std::lock_guard<std::mutex> lock(results.mutex);
  results.hashes[name] = hasher.Finish();
  return absl::OkStatus();
}

absl::Status RoundTask(RunState& run, const PlannedModule& module, UnitResults& results) {
  ModuleRounder rounder(run, module);
  LLMC_RETURN_IF_ERROR(rounder.Round());
  std::lock_guard<std::mutex> lock(results.mutex);
  results.hashes.merge(rounder.Hashes());
  if (rounder.error()) results.errors[module.module.name] = *rounder.error();
  return absl::OkStatus();
}

void Report(RunState& run, const WorkUnit& unit, const UnitResults& results) {
  for (int index : unit.modules) {
    const PlannedModule& module = run.plan.modules[index];
    auto error = results.errors.find(module.module.name);
    if (error == results.errors.end()) continue;
    SolvedModule solved;
    solved.planned = &module;
    solved.output_error = error->second;
    run.clock.Linear(solved);
  }
}

}  // namespace

absl::StatusOr<std::optional<float>> FusedAbsMax(const Plan& plan, const PlannedModule& module,
                                                 const DenseReader& read,
                                                 std::span<const float> importance,
                                                 const AbsMaxSearch& search) {
  const std::optional<QuantizationArgs>& weights = module.scheme->weights;
  if (!weights || weights->strategy != Strategy::kTensorGroup) return std::nullopt;
  std::vector<ModuleRef> refs;
  int self = -1;
  for (const PlannedModule& other : plan.modules) {
    if (other.module.name == module.module.name) self = static_cast<int>(refs.size());
    refs.push_back({other.module.name, other.module.class_name, other.source.shape});
  }
  std::vector<int> family = {self};
  for (const std::vector<int>& fused : FusedSets(refs)) {
    if (std::find(fused.begin(), fused.end(), self) != fused.end()) family = fused;
  }
  float absmax = 0;
  for (int index : family) {
    const PlannedModule& member = plan.modules[index];
    LLMC_ASSIGN_OR_RETURN(const TensorView weight, read(member.source.name));
    kernels::WeightGridOptions options;
    options.importance = importance;
    const absl::StatusOr<float> searched = search
                                               ? search(weight, *weights, options)
                                               : kernels::SearchedAbsMax(weight, *weights, options);
    if (!searched.ok()) return At(member.source.name, searched.status());
    absmax = std::max(absmax, *searched);
  }
  return absmax;
}

absl::Status RoundUnit(RunState& run, const WorkUnit& unit) {
  StepScope scope(run.clock, Step::kWrite, unit.first_layer);
  const std::vector<Task> tasks = TasksOfRank(run, unit);
  UnitResults results;
  ParallelFor(static_cast<int64_t>(tasks.size()), [&](int64_t i) {
    if (results.failed()) return;
    const Task& task = tasks[i];
    const absl::Status status = task.module != nullptr ? RoundTask(run, *task.module, results)
                                : task.is_pruned       ? PruneTask(run, task.copy, results)
                                                       : CopyTask(run, task.copy, results);
    if (!status.ok()) results.Fail(status);
  });
  if (results.status.ok()) results.status = Failpoint("unit.written");
  LLMC_RETURN_IF_ERROR(run.collective.AgreeOnStatus(results.status));
  Report(run, unit, results);
  return FinishUnit(run, {&unit, std::move(results.hashes)});
}

absl::Status RunDataFree(RunState& run) {
  for (const WorkUnit& unit : run.plan.units) {
    LLMC_ASSIGN_OR_RETURN(const bool done, IsUnitDone(run, unit));
    if (!done) LLMC_RETURN_IF_ERROR(RoundUnit(run, unit));
    LLMC_RETURN_IF_ERROR(AgreeToGoOn(run));
  }
  return absl::OkStatus();
}

}  // namespace llmc
