#include "pipeline/layer_pass.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "ATen/ops/cat.h"
#include "absl/strings/str_cat.h"
#include "c10/core/InferenceMode.h"
#include "kernels/weight_grid.h"
#include "llmc/failpoint.h"
#include "llmc/parallel.h"
#include "model/torch_tensor.h"

namespace llmc {
namespace {

using InputsByGroup = std::map<std::string, at::Tensor>;

// Keeps the inputs of the wanted groups of one sample.
class CaptureTaps : public Taps {
 public:
  explicit CaptureTaps(const std::map<std::string, StatisticsNeed>& needs) : needs_(needs) {}

  void Input(absl::Span<const std::string> linears, const at::Tensor& x) override {
    if (needs_.contains(linears.front())) inputs[linears.front()] = x;
  }

  // The head is the one group that is asked for.
  void InputOfHead(const at::Tensor& x) { inputs[needs_.begin()->first] = x; }

  InputsByGroup inputs;

 private:
  const std::map<std::string, StatisticsNeed>& needs_;
};

std::string NameOf(const DecoderLayer* layer) {
  return layer == nullptr ? "head" : absl::StrCat("layer ", layer->index());
}
int64_t IndexOf(const DecoderLayer* layer) { return layer == nullptr ? -1 : layer->index(); }

kernels::TokenRows RowsOf(const at::Tensor& x) {
  kernels::TokenRows rows;
  rows.data = x.data_ptr();
  rows.dtype = x.scalar_type() == at::kBFloat16 ? DType::kBF16 : DType::kF32;
  rows.tokens = x.size(0);
  rows.features = x.size(1);
  rows.stride = x.stride(0);
  return rows;
}

// One pass over this rank's samples, through a layer or (null) just past them.
class LayerPass {
 public:
  LayerPass(const DecoderLayer* layer, HiddenStates& hidden) : layer_(layer), hidden_(hidden) {}

  // Runs samples side by side, each on one thread. `taps[i]`, when given, sees
  // sample `samples[i]`.
  absl::Status Forward(const std::vector<int64_t>& samples, std::vector<CaptureTaps>* taps,
                       bool store_outputs) {
    std::mutex mutex;
    absl::Status status;
    ParallelFor(static_cast<int64_t>(samples.size()), [&](int64_t i) {
      const absl::Status one =
          ForwardSample(samples[i], taps == nullptr ? nullptr : &(*taps)[i], store_outputs);
      if (one.ok()) return;
      std::lock_guard<std::mutex> lock(mutex);
      status.Update(one);
    });
    return status;
  }

 private:
  absl::Status ForwardSample(int64_t sample, CaptureTaps* taps, bool store_outputs) {
    absl::Status status;
    const std::string where = absl::StrCat(NameOf(layer_), ", sample ", sample);
    absl::Status torch = CatchTorch(where, [&] {
      c10::InferenceMode guard;
      absl::StatusOr<at::Tensor> input = hidden_.Load(sample);
      if (!input.ok()) {
        status = input.status();
        return;
      }
      if (layer_ == nullptr) return taps->InputOfHead(*input);
      const at::Tensor output =
          layer_->Forward(*input, {.taps = taps, .output_needed = store_outputs});
      if (store_outputs) status = hidden_.Store(sample, output);
    });
    return torch.ok() ? status : torch;
  }

  const DecoderLayer* layer_;
  HiddenStates& hidden_;
};

std::vector<int64_t> SamplesOf(const Pack& pack) {
  std::vector<int64_t> samples;
  for (int64_t sample = pack.begin; sample < pack.end; ++sample) samples.push_back(sample);
  return samples;
}

// Adds up statistics chunk by chunk.
class Capture {
 public:
  Capture(RunState& run, const DecoderLayer* layer,
          const std::map<std::string, StatisticsNeed>& needs, HiddenStates& hidden,
          std::map<std::string, InputStatistics>& statistics)
      : run_(run), layer_(layer), needs_(needs), pass_(layer, hidden), statistics_(statistics) {}

  // Packs go in waves as wide as there are threads; the sums do not depend on it.
  absl::Status AddChunk(const Chunk& chunk, bool store_outputs) {
    const size_t wave = static_cast<size_t>(NumThreads());
    for (size_t first = 0; first < chunk.packs.size(); first += wave) {
      const size_t last = std::min(chunk.packs.size(), first + wave);
      LLMC_RETURN_IF_ERROR(
          AddPacks({chunk.packs.begin() + first, chunk.packs.begin() + last}, store_outputs));
    }
    return Failpoint("layer.chunk");
  }

  absl::Status ShareExponents() {
    for (auto& [group, statistics] : statistics_) {
      if (!needs_.contains(group) || statistics.hessian == nullptr) continue;
      LLMC_RETURN_IF_ERROR(statistics.hessian->ShareExponents(run_.collective));
    }
    return absl::OkStatus();
  }

  absl::Status EndChunk() {
    for (auto& [group, statistics] : statistics_) {
      if (!needs_.contains(group) || statistics.hessian == nullptr) continue;
      LLMC_RETURN_IF_ERROR(statistics.hessian->EndChunk());
    }
    return absl::OkStatus();
  }

 private:
  absl::Status AddPacks(const std::vector<Pack>& packs, bool store_outputs) {
    std::vector<int64_t> samples;
    for (const Pack& pack : packs) {
      for (int64_t sample : SamplesOf(pack)) samples.push_back(sample);
    }
    std::vector<CaptureTaps> taps(samples.size(), CaptureTaps(needs_));
    LLMC_RETURN_IF_ERROR(pass_.Forward(samples, &taps, store_outputs));
    size_t next = 0;
    for (const Pack& pack : packs) {
      const size_t end = next + static_cast<size_t>(pack.end - pack.begin);
      for (const auto& [group, need] : needs_) {
        LLMC_RETURN_IF_ERROR(AddPack(group, need, pack, {&taps[next], end - next}));
      }
      next = end;
    }
    return absl::OkStatus();
  }

  absl::Status AddPack(const std::string& group, const StatisticsNeed& need, const Pack& pack,
                       std::span<CaptureTaps> taps) {
    std::vector<at::Tensor> inputs;
    for (size_t i = 0; i < taps.size(); ++i) {
      inputs.push_back(taps[i].inputs.at(group).contiguous());
      if (need.extrema) {
        LLMC_RETURN_IF_ERROR(AddExtrema(group, pack.begin + static_cast<int64_t>(i), inputs[i]));
      }
    }
    if (!need.hessian) return absl::OkStatus();
    c10::InferenceMode guard;
    const at::Tensor rows = inputs.size() == 1 ? inputs[0] : at::cat(inputs);
    return At(Where(group),
              statistics_.at(group).hessian->Add(RowsOf(rows), static_cast<int64_t>(taps.size())));
  }

  absl::Status AddExtrema(const std::string& group, int64_t sample, const at::Tensor& x) {
    LLMC_ASSIGN_OR_RETURN(const TensorView view, ViewOf(x));
    absl::StatusOr<kernels::Extrema> extrema = kernels::FindExtrema(view);
    if (!extrema.ok()) {
      return At(absl::StrCat(Where(group), ", calibration sample ", sample), extrema.status());
    }
    statistics_.at(group).extrema->Add(sample, {extrema->min, extrema->max});
    return absl::OkStatus();
  }

  std::string Where(const std::string& group) const {
    return absl::StrCat(NameOf(layer_), ": input of ", group);
  }

  RunState& run_;
  const DecoderLayer* layer_;
  const std::map<std::string, StatisticsNeed>& needs_;
  LayerPass pass_;
  std::map<std::string, InputStatistics>& statistics_;
};

void PrepareStatistics(const RunState& run, const Schedule& schedule,
                       const std::map<std::string, StatisticsNeed>& needs,
                       std::map<std::string, InputStatistics>& statistics) {
  int next_owner = 0;
  for (const auto& [group, need] : needs) {
    InputStatistics& input = statistics[group];
    input.owner = next_owner;
    if (need.hessian) {
      const int64_t in_features = run.plan.Find(group)->source.shape[1];
      input.hessian = std::make_unique<HessianAccumulator>(
          in_features, static_cast<int64_t>(schedule.chunks.size()));
      next_owner = (next_owner + 1) % run.collective.world_size();
    }
    if (need.extrema) {
      input.extrema =
          std::make_unique<ExtremaStatistic>(static_cast<int64_t>(run.samples.rows.size()));
    }
  }
}

// All rounds of one pass; a rank without a chunk in a round still shares.
absl::Status CaptureRounds(RunState& run, const Schedule& schedule, Capture& capture,
                           bool store_outputs, int64_t layer) {
  for (int64_t round = 0; round < schedule.num_rounds; ++round) {
    const bool has_chunk = round < static_cast<int64_t>(schedule.mine.size());
    absl::Status local;
    if (has_chunk) {
      local = capture.AddChunk(schedule.chunks[schedule.mine[round]], store_outputs);
    }
    if (round == 0) {
      LLMC_RETURN_IF_ERROR(run.collective.AgreeOnStatus(local));
      LLMC_RETURN_IF_ERROR(capture.ShareExponents());
    }
    if (local.ok() && has_chunk) local = capture.EndChunk();
    if (round + 1 == schedule.num_rounds || round == 0) {
      LLMC_RETURN_IF_ERROR(run.collective.AgreeOnStatus(local));
    } else if (!local.ok()) {
      // The peers learn of it in the last round; they lose no more than this layer.
      return run.collective.AgreeOnStatus(local);
    }
    run.clock.Progress(Step::kCapture, layer,
                       static_cast<double>(round + 1) / static_cast<double>(schedule.num_rounds));
  }
  return absl::OkStatus();
}

// Sums over ranks; returns the groups whose Hessian must be captured again.
absl::StatusOr<std::map<std::string, StatisticsNeed>> Reduce(
    RunState& run, const std::map<std::string, StatisticsNeed>& needs, int64_t layer,
    std::map<std::string, InputStatistics>& statistics) {
  StepScope scope(run.clock, Step::kReduce, layer);
  std::map<std::string, StatisticsNeed> again;
  for (const auto& [group, need] : needs) {
    InputStatistics& input = statistics.at(group);
    if (need.extrema) LLMC_RETURN_IF_ERROR(input.extrema->Reduce(run.collective));
    if (!need.hessian) continue;
    absl::StatusOr<HessianSum> sum = input.hessian->Reduce(run.collective, input.owner);
    if (!sum.ok()) return At(absl::StrCat("layer ", layer, ": input of ", group), sum.status());
    input.hessian_sum = *sum;
    if (!sum->needs_rescale) continue;
    input.hessian->Restart();
    again[group] = {.hessian = true, .extrema = false};
  }
  LLMC_RETURN_IF_ERROR(run.collective.AgreeOnStatus(Failpoint("layer.reduce")));
  return again;
}

// What is captured, and where it goes.
struct CaptureTarget {
  const DecoderLayer* layer;  // Null: the head.
  bool store_outputs;
  HiddenStates& hidden;
  std::map<std::string, InputStatistics>& statistics;
};

absl::Status CaptureUntilItFits(RunState& run, const Schedule& schedule,
                                const CaptureTarget& target,
                                const std::map<std::string, StatisticsNeed>& needs) {
  const int64_t index = IndexOf(target.layer);
  PrepareStatistics(run, schedule, needs, target.statistics);
  std::map<std::string, StatisticsNeed> wanted = needs;
  while (true) {
    {
      StepScope scope(run.clock, Step::kCapture, index);
      Capture capture(run, target.layer, wanted, target.hidden, target.statistics);
      LLMC_RETURN_IF_ERROR(CaptureRounds(run, schedule, capture, target.store_outputs, index));
    }
    LLMC_ASSIGN_OR_RETURN(wanted, Reduce(run, wanted, index, target.statistics));
    if (wanted.empty()) return absl::OkStatus();
    run.clock.Warn(Step::kReduce, absl::StrCat(NameOf(target.layer),
                                               ": inputs outgrew the first chunk; captured again"));
  }
}

}  // namespace

std::map<std::string, StatisticsNeed> NeedsOfLayer(const Plan& plan, const WorkUnit& unit) {
  std::map<std::string, StatisticsNeed> needs;
  for (int index : unit.modules) {
    const PlannedModule& module = plan.modules[index];
    const StatisticsNeed need =
        MakeLayerModifier(plan.recipe.modifiers()[module.modifier])->Needs(module);
    if (!need.hessian && !need.extrema) continue;
    StatisticsNeed& group = needs[module.module.input_group];
    group.hessian |= need.hessian;
    group.extrema |= need.extrema;
  }
  return needs;
}

std::vector<Chunk> Schedule::MyChunks() const {
  std::vector<Chunk> own;
  for (int64_t number : mine) own.push_back(chunks[number]);
  return own;
}

Schedule MakeSchedule(const RunState& run) {
  std::vector<int64_t> lengths;
  for (const auto& row : run.samples.rows) lengths.push_back(static_cast<int64_t>(row.size()));
  Schedule schedule;
  schedule.chunks = CutIntoChunks(lengths);
  const int64_t num_chunks = static_cast<int64_t>(schedule.chunks.size());
  schedule.mine = ChunksOfRank(num_chunks, run.collective.rank(), run.collective.world_size());
  schedule.num_rounds =
      (num_chunks + run.collective.world_size() - 1) / run.collective.world_size();
  return schedule;
}

absl::Status CaptureLayer(RunState& run, const Schedule& schedule, const DecoderLayer& layer,
                          const std::map<std::string, StatisticsNeed>& needs, bool store_outputs,
                          HiddenStates& hidden,
                          std::map<std::string, InputStatistics>& statistics) {
  const CaptureTarget target{&layer, store_outputs, hidden, statistics};
  return CaptureUntilItFits(run, schedule, target, needs);
}

absl::Status CaptureHead(RunState& run, const Schedule& schedule,
                         const std::map<std::string, StatisticsNeed>& needs, HiddenStates& hidden,
                         std::map<std::string, InputStatistics>& statistics) {
  const CaptureTarget target{nullptr, false, hidden, statistics};
  return CaptureUntilItFits(run, schedule, target, needs);
}

absl::Status PropagateLayer(RunState& run, const Schedule& schedule, const DecoderLayer& layer,
                            HiddenStates& hidden) {
  StepScope scope(run.clock, Step::kPropagate, layer.index());
  LayerPass pass(&layer, hidden);
  for (size_t i = 0; i < schedule.mine.size(); ++i) {
    std::vector<int64_t> samples;
    for (const Pack& pack : schedule.chunks[schedule.mine[i]].packs) {
      for (int64_t sample : SamplesOf(pack)) samples.push_back(sample);
    }
    LLMC_RETURN_IF_ERROR(pass.Forward(samples, nullptr, true));
    run.clock.Progress(Step::kPropagate, layer.index(),
                       static_cast<double>(i + 1) / static_cast<double>(schedule.mine.size()));
  }
  return Failpoint("layer.propagate");
}

}  // namespace llmc
