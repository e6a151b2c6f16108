#include "pipeline/calibrated_run.h"

#include <algorithm>
#include <chrono>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "c10/core/InferenceMode.h"
#include "checkpoint/content_hash.h"
#include "llmc/failpoint.h"
#include "llmc/parallel.h"
#include "model/model_ends.h"
#include "model/rotary_table.h"
#include "model/torch_tensor.h"
#include "modifiers/activation_parameters.h"
#include "modifiers/dense_tensors.h"
#include "modifiers/transform.h"
#include "pipeline/data_free_run.h"
#include "pipeline/hidden_states.h"
#include "pipeline/layer_pass.h"
#include "pipeline/layer_tensors.h"
#include "pipeline/owl_sweep.h"
#include "plan/statistics.h"

namespace llmc {
namespace {

using Hashes = std::map<std::string, std::string>;

// Walks the decoder layers of one job.
class LayerWalk {
 public:
  explicit LayerWalk(RunState& run) : run_(run), schedule_(MakeSchedule(run)) {
    const ComputeDType compute = run.job.compute_dtype;
    placement_.dtype = compute == ComputeDType::kBFloat16 ? at::kBFloat16 : at::kFloat;
    placement_.device = run.device.torch_device();
    placement_.host_kernels = run.device.is_host();
    placement_.rotary =
        std::make_shared<RotaryTable>(run.plan.model->rope, run.plan.model->head_dim);
    for (const WorkUnit& unit : run.plan.units)
      (unit.first_layer < 0 ? outside_ : layers_).push_back(&unit);
  }

  absl::Status Walk() {
    c10::InferenceMode guard;
    LLMC_RETURN_IF_ERROR(FindFinishedUnits());
    LLMC_RETURN_IF_ERROR(run_.collective.AgreeOnStatus(OpenLane()));
    LLMC_ASSIGN_OR_RETURN(layer_sparsities_, FindLayerSparsities(run_, schedule_, placement_));
    absl::Status local = EmbedSamples();
    LLMC_RETURN_IF_ERROR(run_.collective.AgreeOnStatus(local));
    for (size_t i = 0; i < layers_.size(); ++i) {
      if (!IsNeeded(i)) continue;
      LLMC_RETURN_IF_ERROR(WalkLayer(i));
      const absl::Status go_on = AgreeToGoOn(run_);
      if (!go_on.ok()) LLMC_RETURN_IF_ERROR(FinishWrite());
      LLMC_RETURN_IF_ERROR(go_on);
    }
    LLMC_RETURN_IF_ERROR(FinishWrite());
    for (const WorkUnit* unit : outside_) {
      if (!done_.at(unit->name)) LLMC_RETURN_IF_ERROR(SolveOutside(*unit));
    }
    return absl::OkStatus();
  }

 private:
  absl::Status FindFinishedUnits() {
    for (const WorkUnit& unit : run_.plan.units) {
      LLMC_ASSIGN_OR_RETURN(done_[unit.name], IsUnitDone(run_, unit));
    }
    return absl::OkStatus();
  }

  absl::Status OpenLane() {
    if (run_.device.is_host()) return absl::OkStatus();
    staging_ = std::make_unique<WeightStaging>(run_.device);
    lane_ = std::make_unique<CopyLane>();
    LLMC_ASSIGN_OR_RETURN(lane_->device, run_.device.Beside());
    return absl::OkStatus();
  }

  absl::Status EmbedSamples() {
    StepScope scope(run_.clock, Step::kLoad);
    LLMC_ASSIGN_OR_RETURN(hidden_,
                          HiddenStates::Embed(run_, schedule_.MyChunks(), placement_.dtype));
    return absl::OkStatus();
  }

  bool NeedsData(const WorkUnit& unit) const { return !NeedsOfUnit(run_.plan, unit).empty(); }

  bool IsDone(size_t i) const { return done_.at(layers_[i]->name); }

  // Whether the outputs of layer `i` are still wanted by a later unit.
  bool IsOutputNeeded(size_t i) const {
    for (size_t later = i + 1; later < layers_.size(); ++later) {
      if (!IsDone(later)) return true;
    }
    for (const WorkUnit* unit : outside_) {
      if (!done_.at(unit->name) && NeedsData(*unit)) return true;
    }
    return false;
  }

  bool IsNeeded(size_t i) const { return !IsDone(i) || IsOutputNeeded(i); }

  // The next layer that will be walked; -1 when there is none.
  int64_t NextLayer(size_t i) const {
    for (size_t next = i + 1; next < layers_.size(); ++next) {
      if (IsNeeded(next)) return layers_[next]->first_layer;
    }
    return -1;
  }

  absl::Status WalkLayer(size_t i) {
    const WorkUnit& unit = *layers_[i];
    std::optional<DecoderLayer> layer;
    LLMC_RETURN_IF_ERROR(run_.collective.AgreeOnStatus(LoadLayer(i, layer)));
    // A device has room for two layers all the time. On the host Solve is where memory
    // peaks, so the next layer is read ahead after it.
    if (!run_.device.is_host()) Prefetch(i);
    if (!IsDone(i)) LLMC_RETURN_IF_ERROR(CompressLayer(i, unit, *layer));
    if (run_.device.is_host()) Prefetch(i);
    if (!IsOutputNeeded(i) || outputs_stored_) return absl::OkStatus();
    return run_.collective.AgreeOnStatus(PropagateLayer(run_, schedule_, *layer, *hidden_));
  }

  void Prefetch(size_t i) {
    const int64_t next = NextLayer(i);
    if (next >= 0) prefetch_ = std::make_unique<LayerPrefetch>(run_, next, lane_.get());
  }

  absl::Status LoadLayer(size_t i, std::optional<DecoderLayer>& layer) {
    const WorkUnit& unit = *layers_[i];
    std::optional<StepScope> scope;
    if (lane_ == nullptr) scope.emplace(run_.clock, Step::kLoad, unit.first_layer);
    outputs_stored_ = false;
    std::unique_ptr<LayerPrefetch> tensors = std::move(prefetch_);
    if (tensors == nullptr) {
      tensors = std::make_unique<LayerPrefetch>(run_, unit.first_layer, lane_.get());
    }
    const bool as_stored = IsDone(i) && ChangesOutput(run_.plan, unit);
    const auto reader = [&](const std::string& name) -> absl::StatusOr<at::Tensor> {
      if (!as_stored || !PropagatesStored(run_.plan, unit, name)) return tensors->Take(name);
      const PlannedModule* module = QuantizedModuleOf(unit, name);
      LLMC_ASSIGN_OR_RETURN(HostTensor tensor, module != nullptr
                                                   ? ReadWritten(*run_.writer, *module)
                                                   : run_.writer->Read(name));
      return run_.device.Place(std::move(tensor));
    };
    LLMC_ASSIGN_OR_RETURN(
        layer, DecoderLayer::LoadTensors(*run_.plan.model, unit.first_layer, reader, placement_));
    if (lane_ != nullptr) run_.clock.Add(Step::kLoad, unit.first_layer, tensors->Span());
    return Failpoint("layer.load");
  }

  const PlannedModule* QuantizedModuleOf(const WorkUnit& unit, const std::string& tensor) const {
    for (int index : unit.modules) {
      if (run_.plan.modules[index].source.name == tensor) return &run_.plan.modules[index];
    }
    return nullptr;
  }

  // Whether the layer's inputs are wanted once more after Capture.
  bool ReadsSamples(const WorkUnit& unit) const {
    if (!NeedsAfterTransforms(run_.plan, unit).empty()) return true;
    return std::any_of(unit.transforms.begin(), unit.transforms.end(),
                       [&](int index) { return run_.plan.transforms[index].reads_samples; });
  }

  absl::Status CompressLayer(size_t i, const WorkUnit& unit, DecoderLayer& layer) {
    const Needs needs = NeedsOfUnit(run_.plan, unit);
    const bool changes = ChangesOutput(run_.plan, unit);
    UnitWork work(unit, &layer, SourceTensors());
    DenseReadAhead read_ahead(*this, work);
    if (!needs.empty()) {
      outputs_stored_ = !changes && !ReadsSamples(unit) && IsOutputNeeded(i);
      LLMC_RETURN_IF_ERROR(
          CaptureLayer(run_, schedule_, layer, needs, outputs_stored_, *hidden_, work.statistics));
    }
    LLMC_RETURN_IF_ERROR(FinishWrite());
    LLMC_RETURN_IF_ERROR(run_.collective.AgreeOnStatus(read_ahead.Wait()));
    LLMC_RETURN_IF_ERROR(ChangeUnit(work));
    LLMC_RETURN_IF_ERROR(run_.collective.AgreeOnStatus(AddAttentions(work)));
    work.statistics.clear();
    LLMC_RETURN_IF_ERROR(WriteUnit(std::move(work)));
    if (changes || outputs_stored_ || !IsOutputNeeded(i)) return absl::OkStatus();
    return run_.collective.AgreeOnStatus(RestoreLayer(unit, layer));
  }

  // A module's part of the output: decided, and packed now or when it is written.
  struct ModuleResult {
    std::optional<SolvedModule> unpacked;
    std::vector<kernels::StoredTensor> stored;
  };

  // One unit on its way through the recipe.
  struct UnitWork {
    UnitWork(const WorkUnit& the_unit, DecoderLayer* the_layer, DenseTensors source)
        : unit(&the_unit),
          layer(the_layer),
          dense(std::make_unique<DenseTensors>(std::move(source))) {}

    const WorkUnit* unit;
    DecoderLayer* layer;  // Null outside the layers.
    Statistics statistics = {};
    std::unique_ptr<DenseTensors> dense;
    std::map<std::string, ModuleResult> results = {};  // By module or attention.
    std::set<std::string> placed = {};                 // Modules whose solved weight the layer has.
  };

  DenseTensors SourceTensors() const {
    return DenseTensors([this](const std::string& name) { return run_.plan.source->Read(name); });
  }

  // Reads what the recipe's modifiers will take, while a device captures.
  class DenseReadAhead {
   public:
    DenseReadAhead(const LayerWalk& walk, UnitWork& work) {
      if (walk.run_.device.is_host()) return;
      std::vector<std::string> names;
      for (int index : work.unit->modules) {
        names.push_back(walk.run_.plan.modules[index].source.name);
      }
      reading_ = std::async(std::launch::async,
                            [names = std::move(names), dense = work.dense.get()]() -> absl::Status {
                              for (const std::string& name : names) {
                                LLMC_RETURN_IF_ERROR(dense->Get(name).status());
                              }
                              return absl::OkStatus();
                            });
    }

    absl::Status Wait() { return reading_.valid() ? reading_.get() : absl::OkStatus(); }

   private:
    std::future<absl::Status> reading_;
  };

  absl::Status AddAttentions(UnitWork& work) const {
    for (int index : work.unit->attentions) {
      const PlannedAttention& attention = run_.plan.attentions[index];
      LLMC_ASSIGN_OR_RETURN(work.results[attention.name].stored,
                            AttentionParameters(attention, work.statistics));
    }
    return absl::OkStatus();
  }

  // Runs the recipe's modifiers over one unit, in order.
  absl::Status ChangeUnit(UnitWork& work) {
    const std::vector<Modifier>& modifiers = run_.plan.recipe.modifiers();
    bool is_final = false;
    for (size_t m = 0; m < modifiers.size(); ++m) {
      const bool quantises = QuantizationFieldsOf(modifiers[m]) != nullptr;
      if (quantises && !is_final) LLMC_RETURN_IF_ERROR(RecaptureScaled(work));
      is_final |= quantises;
      StepScope scope(run_.clock, Step::kSolve, work.unit->first_layer);
      LLMC_RETURN_IF_ERROR(quantises ? QuantizeUnit(static_cast<int>(m), work)
                                     : TransformUnit(static_cast<int>(m), work));
    }
    return run_.collective.AgreeOnStatus(Failpoint("layer.solve"));
  }

  // Ranges that cannot be rescaled, of the layer as the transforms left it.
  absl::Status RecaptureScaled(UnitWork& work) {
    const Needs needs = NeedsAfterTransforms(run_.plan, *work.unit);
    if (needs.empty()) return absl::OkStatus();
    Statistics scaled;
    LLMC_RETURN_IF_ERROR(
        CaptureLayer(run_, schedule_, *work.layer, needs, false, *hidden_, scaled));
    for (auto& [tap, statistics] : scaled) {
      InputStatistics& input = work.statistics[tap];
      if (statistics.extrema != nullptr) input.extrema = std::move(statistics.extrema);
      if (statistics.searched != nullptr) input.searched = std::move(statistics.searched);
    }
    return absl::OkStatus();
  }

  absl::Status TransformUnit(int modifier, UnitWork& work) {
    LayerChange change;
    for (int index : work.unit->transforms) {
      const PlannedTransform& transform = run_.plan.transforms[index];
      if (transform.modifier == modifier) change.transforms.push_back(&transform);
    }
    if (change.transforms.empty()) return absl::OkStatus();
    std::optional<PassSamples> samples;
    if (work.layer != nullptr) samples.emplace(run_.device, schedule_, *work.layer, *hidden_);
    change.plan = &run_.plan;
    change.dense = work.dense.get();
    change.statistics = &work.statistics;
    change.collective = &run_.collective;
    change.place = run_.place();
    change.compute_dtype = placement_.dtype;
    change.samples = samples ? &*samples : nullptr;
    change.layer_sparsities = &layer_sparsities_;
    LLMC_RETURN_IF_ERROR(MakeLayerTransform(run_.plan.recipe.modifiers()[modifier])->Apply(change));
    ReportPruned(change.pruned, modifier);
    if (work.layer == nullptr) return absl::OkStatus();
    const auto read = [&](const std::string& name) -> absl::StatusOr<HostTensor> {
      LLMC_ASSIGN_OR_RETURN(const HostTensor* tensor, work.dense->Get(name));
      return CopyOf(*tensor);
    };
    absl::Status local;
    for (const PlannedTransform* transform : change.transforms) {
      local.Update(SetTensors(transform->tensors, read, *work.layer));
    }
    return run_.collective.AgreeOnStatus(local);
  }

  void ReportPruned(const std::vector<PrunedModule>& all, int modifier) {
    if (!run_.is_leader()) return;
    const std::string method = PruningMethodName(run_.plan.recipe.modifiers()[modifier]);
    for (const PrunedModule& pruned : all) {
      run_.clock.Pruned(pruned, method);
      if (pruned.fallback_reason.empty()) continue;
      run_.clock.Warn(Step::kSolve,
                      absl::StrCat(pruned.transform->module, ": ", pruned.fallback_reason));
    }
  }

  static absl::Status SetTensors(const std::vector<std::string>& names,
                                 const DenseTensors::Reader& read, DecoderLayer& layer) {
    for (const std::string& name : names) {
      LLMC_ASSIGN_OR_RETURN(HostTensor tensor, read(name));
      const size_t dot = name.rfind('.');
      const std::string module = name.substr(0, dot);
      LLMC_RETURN_IF_ERROR(name.substr(dot) == ".bias"
                               ? layer.set_bias(module, ToTorch(std::move(tensor)))
                               : layer.set_weight(module, ToTorch(std::move(tensor))));
    }
    return absl::OkStatus();
  }

  // Undoes in `layer` what transforms did: a layer whose function they keep is
  // propagated as the source has it, now as after a restart.
  absl::Status RestoreLayer(const WorkUnit& unit, DecoderLayer& layer) {
    const auto read = [&](const std::string& name) { return run_.plan.source->Read(name); };
    for (int index : unit.transforms) {
      LLMC_RETURN_IF_ERROR(SetTensors(run_.plan.transforms[index].tensors, read, layer));
    }
    return absl::OkStatus();
  }

  absl::Status QuantizeUnit(int modifier, UnitWork& work) {
    LayerSolve solve;
    solve.is_last = modifier + 1 == static_cast<int>(run_.plan.recipe.modifiers().size());
    solve.statistics = &work.statistics;
    solve.collective = &run_.collective;
    solve.place = run_.place();
    solve.staging = staging_.get();
    solve.solved_on_device = [&](const SolvedModule& solved, const at::Tensor& weight) {
      const PlannedModule& planned = *solved.planned;
      if (!IsPropagated(planned, work) || !IsSeenAsSolved(solved)) return absl::OkStatus();
      work.placed.insert(planned.module.name);
      return work.layer->set_weight(planned.module.name, weight);
    };
    std::map<const PlannedModule*, std::optional<float>> absmax;
    solve.fused_absmax = [&](const PlannedModule& module) { return absmax.at(&module); };
    LLMC_RETURN_IF_ERROR(run_.collective.AgreeOnStatus(TakeWeights(modifier, work, solve, absmax)));
    if (solve.modules.empty()) return absl::OkStatus();
    LLMC_RETURN_IF_ERROR(MakeLayerModifier(run_.plan.recipe.modifiers()[modifier])->Solve(solve));
    return run_.collective.AgreeOnStatus(Adopt(solve, work));
  }

  absl::Status TakeWeights(int modifier, UnitWork& work, LayerSolve& solve,
                           std::map<const PlannedModule*, std::optional<float>>& absmax) {
    const auto read = [&](const std::string& name) -> absl::StatusOr<TensorView> {
      LLMC_ASSIGN_OR_RETURN(const HostTensor* tensor, work.dense->Get(name));
      return tensor->view();
    };
    for (int index : work.unit->modules) {
      const PlannedModule& module = run_.plan.modules[index];
      if (module.modifier != modifier) continue;
      solve.modules.push_back(&module);
      LLMC_ASSIGN_OR_RETURN(const std::vector<float> importance,
                            ImportanceOf(module, work.statistics));
      LLMC_ASSIGN_OR_RETURN(absmax[&module],
                            FusedAbsMax(run_.plan, module, read, importance, SearchAbsMax()));
    }
    for (const PlannedModule* module : solve.modules) {
      HostTensor& weight = solve.weights[module->module.name];
      if (IsTied(*work.unit, *module)) {
        LLMC_ASSIGN_OR_RETURN(const HostTensor* tensor, work.dense->Get(module->source.name));
        weight = CopyOf(*tensor);
      } else {
        LLMC_ASSIGN_OR_RETURN(weight, work.dense->Take(module->source.name));
      }
    }
    return absl::OkStatus();
  }

  // On the device when there is one.
  AbsMaxSearch SearchAbsMax() const {
    if (staging_ == nullptr) return nullptr;
    return [staging = staging_.get()](
               const TensorView& weight, const QuantizationArgs& args,
               const kernels::WeightGridOptions& options) -> absl::StatusOr<float> {
      LLMC_ASSIGN_OR_RETURN(const at::Tensor there, staging->Upload(weight));
      return kernels::SearchedAbsMax(staging->Of(there), args, options);
    };
  }

  // Whether another module (an embedding and its head) is quantised from this weight.
  bool IsTied(const WorkUnit& unit, const PlannedModule& module) const {
    return std::any_of(unit.modules.begin(), unit.modules.end(), [&](int index) {
      const PlannedModule& other = run_.plan.modules[index];
      return &other != &module && other.source.name == module.source.name;
    });
  }

  // Packs what was solved. Where the unit changes its output, the layer takes the
  // weights that a reader of the packed tensors would see.
  absl::Status Adopt(LayerSolve& solve, UnitWork& work) {
    for (SolvedModule& solved : solve.solved) {
      const PlannedModule& planned = *solved.planned;
      if (run_.is_leader()) run_.clock.Linear(solved);
      if (solved.is_fallback && run_.is_leader()) {
        run_.clock.Warn(Step::kSolve,
                        absl::StrCat(planned.module.name, ": rounded to nearest: ", solved.reason));
      }
      LLMC_RETURN_IF_ERROR(AdoptModule(solved, work));
    }
    return absl::OkStatus();
  }

  // Whether the layer is to have the module's weight as a reader of the output sees it.
  bool IsPropagated(const PlannedModule& planned, const UnitWork& work) const {
    return work.layer != nullptr && ChangesOutput(run_.plan, *work.unit) &&
           PropagatesStored(run_.plan, *work.unit, planned.source.name);
  }

  absl::Status AdoptModule(SolvedModule& solved, UnitWork& work) {
    const PlannedModule& planned = *solved.planned;
    ModuleResult& result = work.results[planned.module.name];
    const bool is_propagated = IsPropagated(planned, work);
    if (!run_.device.is_host() && IsSeenAsSolved(solved)) {
      if (is_propagated && !work.placed.contains(planned.module.name)) {
        LLMC_RETURN_IF_ERROR(SetWeight(planned, solved.weight, *work.layer));
      }
      result.unpacked = std::move(solved);
      return absl::OkStatus();
    }
    LLMC_ASSIGN_OR_RETURN(result.stored, StoreSolved(run_, solved));
    solved.weight = HostTensor();
    if (is_propagated) {
      LLMC_ASSIGN_OR_RETURN(HostTensor weight, Dequantised(planned, result.stored));
      LLMC_RETURN_IF_ERROR(SetWeight(planned, weight, *work.layer));
    }
    AddParameters(solved, result);
    return absl::OkStatus();
  }

  // On the host the layer takes `weight`, on a device a copy.
  absl::Status SetWeight(const PlannedModule& planned, HostTensor& weight, DecoderLayer& layer) {
    if (staging_ == nullptr) {
      return layer.set_weight(planned.module.name, ToTorch(std::move(weight)));
    }
    LLMC_ASSIGN_OR_RETURN(const at::Tensor placed, staging_->Upload(weight.view()));
    return layer.set_weight(planned.module.name, placed);
  }

  static void AddParameters(SolvedModule& solved, ModuleResult& result) {
    for (kernels::StoredTensor& parameter : solved.activation_parameters) {
      result.stored.push_back(std::move(parameter));
    }
  }

  // A unit that is decided, while it is written.
  struct UnitWrite {
    explicit UnitWrite(UnitWork decided) : work(std::move(decided)) {}

    UnitWork work;
    UnitWrites writes;
    TimeSpan span;
    std::future<absl::Status> writing;  // Ends before what it uses.
  };

  // Every rank holds every tensor; each writes its share: on the host now, beside a device
  // while that goes on, until FinishWrite.
  absl::Status WriteUnit(UnitWork work) {
    write_ = std::make_unique<UnitWrite>(std::move(work));
    write_->writes.unit = write_->work.unit;
    if (!run_.device.is_host()) {
      write_->writing = std::async(std::launch::async,
                                   [this, write = write_.get()] { return WriteAndSync(*write); });
      return absl::OkStatus();
    }
    const std::unique_ptr<UnitWrite> write = std::move(write_);
    StepScope scope(run_.clock, Step::kWrite, write->work.unit->first_layer);
    LLMC_RETURN_IF_ERROR(run_.collective.AgreeOnStatus(WriteShare(*write)));
    return FinishUnit(run_, write->writes);
  }

  absl::Status WriteAndSync(UnitWrite& write) {
    write.span.begin = std::chrono::steady_clock::now();
    absl::Status status = WriteShare(write);
    if (status.ok()) status = SyncUnit(run_);
    write.span.end = std::chrono::steady_clock::now();
    return status;
  }

  // Collective: waits for the unit that is being written, if there is one, and records it.
  absl::Status FinishWrite() {
    if (write_ == nullptr) return absl::OkStatus();
    const std::unique_ptr<UnitWrite> write = std::move(write_);
    const absl::Status written = write->writing.get();
    run_.clock.Add(Step::kWrite, write->work.unit->first_layer, write->span);
    return RecordUnit(run_, write->writes, written);
  }

  absl::Status WriteShare(UnitWrite& unit) {
    int64_t turn = 0;
    const auto is_mine = [&] {
      return turn++ % run_.collective.world_size() == run_.collective.rank();
    };
    Hashes& hashes = unit.writes.hashes;
    const auto write = [&](const std::string& name, const HostTensor& tensor) {
      hashes[name] = ContentHash(tensor.bytes());
      return run_.writer->Write(name, tensor.bytes());
    };
    for (auto& [module, result] : unit.work.results) {
      if (!is_mine()) continue;
      LLMC_RETURN_IF_ERROR(PackResult(result));
      for (const kernels::StoredTensor& stored : result.stored) {
        LLMC_RETURN_IF_ERROR(write(absl::StrCat(module, ".", stored.suffix), stored.tensor));
      }
    }
    for (const std::string& name : unit.work.unit->rewritten) {
      if (!is_mine()) continue;
      LLMC_ASSIGN_OR_RETURN(const HostTensor tensor, unit.work.dense->Take(name));
      LLMC_RETURN_IF_ERROR(write(name, tensor));
    }
    for (const std::string& name : unit.work.unit->copies) {
      if (!is_mine()) continue;
      LLMC_ASSIGN_OR_RETURN(hashes[name], run_.writer->CopyTensor(*run_.plan.source, name, name));
    }
    return Failpoint("layer.write");
  }

  absl::Status PackResult(ModuleResult& result) const {
    if (!result.unpacked) return absl::OkStatus();
    LLMC_ASSIGN_OR_RETURN(result.stored, StoreSolved(run_, *result.unpacked));
    AddParameters(*result.unpacked, result);
    result.unpacked.reset();
    return absl::OkStatus();
  }

  // Embedding and head. A head that GPTQ solves sees the normed last states.
  absl::Status SolveOutside(const WorkUnit& unit) {
    const Needs needs = NeedsOfUnit(run_.plan, unit);
    UnitWork work(unit, nullptr, SourceTensors());
    if (!needs.empty()) {
      LLMC_RETURN_IF_ERROR(run_.collective.AgreeOnStatus(NormHiddenStates()));
      LLMC_RETURN_IF_ERROR(CaptureHead(run_, schedule_, needs, *hidden_, work.statistics));
    }
    LLMC_RETURN_IF_ERROR(ChangeUnit(work));
    LLMC_RETURN_IF_ERROR(WriteUnit(std::move(work)));
    return FinishWrite();
  }

  // Replaces the hidden states by the head's input.
  absl::Status NormHiddenStates() {
    const auto reader = [&](const std::string& name) { return run_.plan.source->Read(name); };
    LLMC_ASSIGN_OR_RETURN(const Head head, Head::Load(*run_.plan.model, reader, placement_));
    for (const Chunk& chunk : schedule_.MyChunks()) {
      for (int64_t s = chunk.packs.front().begin; s < chunk.packs.back().end; ++s) {
        const int64_t samples[] = {s};
        LLMC_ASSIGN_OR_RETURN(const at::Tensor states, hidden_->Load(s));
        LLMC_RETURN_IF_ERROR(hidden_->Store(samples, head.Norm(states)));
      }
    }
    return absl::OkStatus();
  }

  RunState& run_;
  Schedule schedule_;
  LayerPlacement placement_;
  std::vector<const WorkUnit*> layers_;
  std::vector<const WorkUnit*> outside_;
  std::map<std::string, bool> done_;
  std::unique_ptr<HiddenStates> hidden_;
  std::unique_ptr<WeightStaging> staging_;  // Null on the host.
  std::unique_ptr<CopyLane> lane_;          // Null on the host.
  std::unique_ptr<LayerPrefetch> prefetch_;
  std::unique_ptr<UnitWrite> write_;
  bool outputs_stored_ = false;
  LayerSparsities layer_sparsities_;
};

}  // namespace

absl::Status RunCalibrated(RunState& run) { return LayerWalk(run).Walk(); }

}  // namespace llmc
