#include "pipeline/calibrated_run.h"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
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
#include "pipeline/data_free_run.h"
#include "pipeline/hidden_states.h"
#include "pipeline/layer_pass.h"
#include "pipeline/layer_tensors.h"

namespace llmc {
namespace {

using StoredModules = std::map<std::string, std::vector<kernels::StoredTensor>>;
using Hashes = std::map<std::string, std::string>;

// Walks the decoder layers of one job.
class LayerWalk {
 public:
  explicit LayerWalk(RunState& run) : run_(run), schedule_(MakeSchedule(run)) {
    const ComputeDType compute = run.job.compute_dtype;
    placement_.dtype = compute == ComputeDType::kBFloat16 ? at::kBFloat16 : at::kFloat;
    placement_.rotary =
        std::make_shared<RotaryTable>(run.plan.model->rope, run.plan.model->head_dim);
    for (const WorkUnit& unit : run.plan.units)
      (unit.first_layer < 0 ? outside_ : layers_).push_back(&unit);
  }

  absl::Status Walk() {
    LLMC_RETURN_IF_ERROR(FindFinishedUnits());
    absl::Status local = EmbedSamples();
    LLMC_RETURN_IF_ERROR(run_.collective.AgreeOnStatus(local));
    for (size_t i = 0; i < layers_.size(); ++i) {
      if (!IsNeeded(i)) continue;
      LLMC_RETURN_IF_ERROR(WalkLayer(i));
      LLMC_RETURN_IF_ERROR(AgreeToGoOn(run_));
    }
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

  absl::Status EmbedSamples() {
    StepScope scope(run_.clock, Step::kLoad);
    LLMC_ASSIGN_OR_RETURN(hidden_,
                          HiddenStates::Embed(run_, schedule_.MyChunks(), placement_.dtype));
    return absl::OkStatus();
  }

  bool NeedsData(const WorkUnit& unit) const { return !NeedsOfLayer(run_.plan, unit).empty(); }

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
    if (!IsDone(i)) LLMC_RETURN_IF_ERROR(CompressLayer(i, unit, *layer));
    // Read ahead from here on, not earlier: Solve is where memory peaks.
    if (const int64_t next = NextLayer(i); next >= 0) {
      prefetch_ = std::make_unique<LayerPrefetch>(run_.plan, next);
    }
    if (!IsOutputNeeded(i) || outputs_stored_) return absl::OkStatus();
    return run_.collective.AgreeOnStatus(PropagateLayer(run_, schedule_, *layer, *hidden_));
  }

  absl::Status LoadLayer(size_t i, std::optional<DecoderLayer>& layer) {
    const WorkUnit& unit = *layers_[i];
    StepScope scope(run_.clock, Step::kLoad, unit.first_layer);
    outputs_stored_ = false;
    std::unique_ptr<LayerPrefetch> tensors = std::move(prefetch_);
    if (tensors == nullptr) {
      tensors = std::make_unique<LayerPrefetch>(run_.plan, unit.first_layer);
    }
    const auto reader = [&](const std::string& name) -> absl::StatusOr<HostTensor> {
      const PlannedModule* module = IsDone(i) ? SolvedBefore(name) : nullptr;
      if (module != nullptr) return ReadWritten(*run_.writer, *module);
      return tensors->Take(name);
    };
    LLMC_ASSIGN_OR_RETURN(
        layer, DecoderLayer::Load(*run_.plan.model, unit.first_layer, reader, placement_));
    return Failpoint("layer.load");
  }

  // The module whose solved weight replaced tensor `name` in an earlier run. What
  // was rounded to nearest propagates its dense weight, then as now.
  const PlannedModule* SolvedBefore(const std::string& name) const {
    for (const PlannedModule& module : run_.plan.modules) {
      if (module.source.name == name && module.method == Method::kGptq) return &module;
    }
    return nullptr;
  }

  bool HasGptq(const WorkUnit& unit) const {
    return std::any_of(unit.modules.begin(), unit.modules.end(),
                       [&](int index) { return run_.plan.modules[index].method == Method::kGptq; });
  }

  absl::Status CompressLayer(size_t i, const WorkUnit& unit, DecoderLayer& layer) {
    const Needs needs = NeedsOfLayer(run_.plan, unit);
    Statistics statistics;
    if (!needs.empty()) {
      outputs_stored_ = !HasGptq(unit) && IsOutputNeeded(i);
      LLMC_RETURN_IF_ERROR(
          CaptureLayer(run_, schedule_, layer, needs, outputs_stored_, *hidden_, statistics));
    }
    StoredModules stored;
    LLMC_RETURN_IF_ERROR(SolveUnit(unit, statistics, &layer, stored));
    LLMC_RETURN_IF_ERROR(run_.collective.AgreeOnStatus(AddAttentions(unit, statistics, stored)));
    statistics.clear();
    return WriteUnit(unit, stored);
  }

  absl::Status AddAttentions(const WorkUnit& unit, const Statistics& statistics,
                             StoredModules& stored) const {
    for (int index : unit.attentions) {
      const PlannedAttention& attention = run_.plan.attentions[index];
      LLMC_ASSIGN_OR_RETURN(stored[attention.name], AttentionParameters(attention, statistics));
    }
    return absl::OkStatus();
  }

  // Runs the recipe's modifiers over one unit, in order.
  absl::Status SolveUnit(const WorkUnit& unit, Statistics& statistics, DecoderLayer* layer,
                         StoredModules& stored) {
    StepScope scope(run_.clock, Step::kSolve, unit.first_layer);
    const std::vector<Modifier>& modifiers = run_.plan.recipe.modifiers();
    for (size_t m = 0; m < modifiers.size(); ++m) {
      LayerSolve solve;
      solve.statistics = &statistics;
      solve.collective = &run_.collective;
      solve.fused_absmax = [this](const PlannedModule& module) {
        return FusedAbsMax(run_.plan, module);
      };
      LLMC_RETURN_IF_ERROR(
          run_.collective.AgreeOnStatus(ReadWeights(unit, static_cast<int>(m), solve)));
      if (solve.modules.empty()) continue;
      LLMC_RETURN_IF_ERROR(MakeLayerModifier(modifiers[m])->Solve(solve));
      LLMC_RETURN_IF_ERROR(run_.collective.AgreeOnStatus(Adopt(solve, layer, stored)));
    }
    return run_.collective.AgreeOnStatus(Failpoint("layer.solve"));
  }

  absl::Status ReadWeights(const WorkUnit& unit, int modifier, LayerSolve& solve) {
    for (int index : unit.modules) {
      const PlannedModule& module = run_.plan.modules[index];
      if (module.modifier != modifier) continue;
      solve.modules.push_back(&module);
      LLMC_ASSIGN_OR_RETURN(solve.weights[module.module.name],
                            run_.plan.source->Read(module.source.name));
    }
    return absl::OkStatus();
  }

  // Packs what was solved, and gives the layer the weights that a reader of the
  // packed tensors would see.
  absl::Status Adopt(LayerSolve& solve, DecoderLayer* layer, StoredModules& stored) {
    for (SolvedModule& solved : solve.solved) {
      const PlannedModule& planned = *solved.planned;
      if (run_.is_leader()) run_.clock.Linear(solved);
      if (solved.is_fallback && run_.is_leader()) {
        run_.clock.Warn(Step::kSolve,
                        absl::StrCat(planned.module.name, ": rounded to nearest: ", solved.reason));
      }
      LLMC_ASSIGN_OR_RETURN(std::vector<kernels::StoredTensor> tensors, StoreSolved(run_, solved));
      solved.weight = HostTensor();
      if (layer != nullptr && planned.method == Method::kGptq) {
        LLMC_ASSIGN_OR_RETURN(HostTensor weight, Dequantised(planned, tensors));
        LLMC_RETURN_IF_ERROR(layer->set_weight(planned.module.name, ToTorch(std::move(weight))));
      }
      for (kernels::StoredTensor& parameter : solved.activation_parameters) {
        tensors.push_back(std::move(parameter));
      }
      stored[planned.module.name] = std::move(tensors);
    }
    return absl::OkStatus();
  }

  // Every rank holds every tensor; each writes its share.
  absl::Status WriteUnit(const WorkUnit& unit, const StoredModules& stored) {
    StepScope scope(run_.clock, Step::kWrite, unit.first_layer);
    Hashes hashes;
    absl::Status local = WriteShare(unit, stored, hashes);
    if (local.ok()) local = Failpoint("layer.write");
    LLMC_RETURN_IF_ERROR(run_.collective.AgreeOnStatus(local));
    return FinishUnit(run_, unit, hashes, nlohmann::json::object());
  }

  absl::Status WriteShare(const WorkUnit& unit, const StoredModules& stored, Hashes& hashes) {
    int64_t turn = 0;
    const auto is_mine = [&] {
      return turn++ % run_.collective.world_size() == run_.collective.rank();
    };
    for (const auto& [module, tensors] : stored) {
      if (!is_mine()) continue;
      for (const kernels::StoredTensor& tensor : tensors) {
        const std::string name = absl::StrCat(module, ".", tensor.suffix);
        LLMC_RETURN_IF_ERROR(run_.writer->Write(name, tensor.tensor.bytes()));
        hashes[name] = ContentHash(tensor.tensor.bytes());
      }
    }
    for (const std::string& name : unit.copies) {
      if (!is_mine()) continue;
      LLMC_ASSIGN_OR_RETURN(hashes[name], run_.writer->CopyTensor(*run_.plan.source, name, name));
    }
    return absl::OkStatus();
  }

  // Embedding and head. A head that GPTQ solves sees the normed last states.
  absl::Status SolveOutside(const WorkUnit& unit) {
    const Needs needs = NeedsOfLayer(run_.plan, unit);
    Statistics statistics;
    if (!needs.empty()) {
      LLMC_RETURN_IF_ERROR(run_.collective.AgreeOnStatus(NormHiddenStates()));
      LLMC_RETURN_IF_ERROR(CaptureHead(run_, schedule_, needs, *hidden_, statistics));
    }
    StoredModules stored;
    LLMC_RETURN_IF_ERROR(SolveUnit(unit, statistics, nullptr, stored));
    return WriteUnit(unit, stored);
  }

  // Replaces the hidden states by the head's input.
  absl::Status NormHiddenStates() {
    const auto reader = [&](const std::string& name) { return run_.plan.source->Read(name); };
    LLMC_ASSIGN_OR_RETURN(const Head head, Head::Load(*run_.plan.model, reader, placement_));
    for (const Chunk& chunk : schedule_.MyChunks()) {
      for (int64_t s = chunk.packs.front().begin; s < chunk.packs.back().end; ++s) {
        LLMC_ASSIGN_OR_RETURN(const at::Tensor states, hidden_->Load(s));
        c10::InferenceMode guard;
        LLMC_RETURN_IF_ERROR(hidden_->Store(s, head.Norm(states)));
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
  std::unique_ptr<LayerPrefetch> prefetch_;
  bool outputs_stored_ = false;
};

}  // namespace

absl::Status RunCalibrated(RunState& run) { return LayerWalk(run).Walk(); }

}  // namespace llmc
