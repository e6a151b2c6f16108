#include "pipeline/layer_pass.h"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <utility>

#include "ATen/ops/cat.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "c10/core/InferenceMode.h"
#include "kernels/channel_statistics.h"
#include "kernels/weight_grid.h"
#include "llmc/failpoint.h"
#include "llmc/parallel.h"
#include "model/torch_tensor.h"
#include "modifiers/activation_parameters.h"

namespace llmc {
namespace {

kernels::TokenRows RowsOf(const at::Tensor& x) {
  kernels::TokenRows rows;
  rows.data = x.data_ptr();
  rows.dtype = x.scalar_type() == at::kBFloat16 ? DType::kBF16 : DType::kF32;
  rows.tokens = x.size(0);
  rows.features = x.size(1);
  rows.stride = x.stride(0);
  return rows;
}

// What is kept of one activation of one sample.
struct SampleActivation {
  at::Tensor rows;  // Contiguous; undefined when no statistic wants the values.
  int64_t tokens = 0;
  std::vector<float> channel_min, channel_max;  // [in_features]
  std::vector<double> magnitudes;               // [in_features]: sums over tokens.
  std::vector<double> squares;                  // [in_features]: sums over tokens.
};

// Keeps the wanted activations of one sample. Statistics of channels are taken at
// once, on the thread of the sample.
class CaptureTaps : public Taps {
 public:
  explicit CaptureTaps(const Needs& needs) : needs_(needs) {}

  void Input(absl::Span<const std::string> linears, const at::Tensor& x) override {
    Keep(linears.front(), x);
  }

  at::Tensor ReplaceOutput(const std::string& linear, const at::Tensor& y) override {
    Keep(OutputTap(linear), y);
    return y;
  }

  void Attention(const std::string& attention, AttentionStates& states) override {
    Keep(AttentionTap(attention, "q"), states.query);
    Keep(AttentionTap(attention, "k"), states.key);
    Keep(AttentionTap(attention, "v"), states.value);
  }

  // The head is the one group that is asked for.
  void InputOfHead(const at::Tensor& x) { Keep(needs_.begin()->first, x); }

  std::map<std::string, SampleActivation> kept;  // By tap.
  absl::Status status;

 private:
  void Keep(const std::string& tap, const at::Tensor& value) {
    const auto found = needs_.find(tap);
    if (found == needs_.end()) return;
    const StatisticsNeed& need = found->second;
    const at::Tensor x = value.contiguous();
    SampleActivation& activation = kept[tap];
    activation.tokens = x.size(0);
    const size_t features = static_cast<size_t>(x.size(1));
    if (need.channel_extrema) {
      activation.channel_min.resize(features);
      activation.channel_max.resize(features);
      status.Update(
          kernels::ChannelExtrema(RowsOf(x), activation.channel_min, activation.channel_max));
    }
    if (need.mean_magnitude) {
      activation.magnitudes.resize(features);
      status.Update(kernels::ChannelMagnitudes(RowsOf(x), activation.magnitudes));
    }
    if (need.squares || need.sample_norms) {
      activation.squares.resize(features);
      status.Update(kernels::ChannelSquares(RowsOf(x), activation.squares));
    }
    if (need.hessian || need.extrema || need.searched) activation.rows = x;
  }

  const Needs& needs_;
};

std::string NameOf(const DecoderLayer* layer) {
  return layer == nullptr ? "head" : absl::StrCat("layer ", layer->index());
}
int64_t IndexOf(const DecoderLayer* layer) { return layer == nullptr ? -1 : layer->index(); }

// `range` of each of `num_channels` equal parts of `x`, which is contiguous.
template <typename Range>
absl::StatusOr<std::vector<Extrema>> RangesOf(const at::Tensor& x, int64_t num_channels,
                                              const Range& range) {
  std::vector<Extrema> ranges;
  for (const at::Tensor& part : x.flatten().chunk(num_channels)) {
    LLMC_ASSIGN_OR_RETURN(const TensorView view, ViewOf(part));
    LLMC_ASSIGN_OR_RETURN(const kernels::Extrema extrema, range(view));
    ranges.push_back({extrema.min, extrema.max});
  }
  return ranges;
}

bool WantsOutputs(const Needs& needs) {
  return std::any_of(needs.begin(), needs.end(),
                     [](const auto& need) { return absl::EndsWith(need.first, OutputTap("")); });
}

// One pass over this rank's samples, through a layer or (null) just past them.
class LayerPass {
 public:
  // `wants_outputs`: taps look past the last input.
  LayerPass(const DecoderLayer* layer, HiddenStates& hidden, bool wants_outputs)
      : layer_(layer), hidden_(hidden), wants_outputs_(wants_outputs) {}

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
          layer_->Forward(*input, {.taps = taps, .output_needed = store_outputs || wants_outputs_});
      if (store_outputs) status = hidden_.Store(sample, output);
    });
    return torch.ok() ? status : torch;
  }

  const DecoderLayer* layer_;
  HiddenStates& hidden_;
  bool wants_outputs_;
};

std::vector<int64_t> SamplesOf(const Pack& pack) {
  std::vector<int64_t> samples;
  for (int64_t sample = pack.begin; sample < pack.end; ++sample) samples.push_back(sample);
  return samples;
}

// Adds up statistics chunk by chunk.
class Capture {
 public:
  Capture(RunState& run, const DecoderLayer* layer, const Needs& needs, HiddenStates& hidden,
          Statistics& statistics)
      : run_(run),
        layer_(layer),
        needs_(needs),
        pass_(layer, hidden, WantsOutputs(needs)),
        statistics_(statistics) {}

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

  absl::Status AddPack(const std::string& tap, const StatisticsNeed& need, const Pack& pack,
                       std::span<CaptureTaps> taps) {
    std::vector<at::Tensor> kept;
    for (size_t i = 0; i < taps.size(); ++i) {
      const SampleActivation& activation = taps[i].kept.at(tap);
      const int64_t sample = pack.begin + static_cast<int64_t>(i);
      LLMC_RETURN_IF_ERROR(At(Where(tap, sample), taps[i].status));
      kept.push_back(activation.rows);
      AddChannels(tap, need, sample, activation);
      LLMC_RETURN_IF_ERROR(AddRanges(tap, need, sample, kept[i]));
    }
    if (!need.hessian) return absl::OkStatus();
    c10::InferenceMode guard;
    const at::Tensor rows = kept.size() == 1 ? kept[0] : at::cat(kept);
    return At(Where(tap),
              statistics_.at(tap).hessian->Add(RowsOf(rows), static_cast<int64_t>(taps.size())));
  }

  void AddChannels(const std::string& tap, const StatisticsNeed& need, int64_t sample,
                   const SampleActivation& activation) {
    InputStatistics& statistics = statistics_.at(tap);
    if (need.channel_extrema) {
      statistics.channels->Add(sample, activation.channel_min, activation.channel_max);
    }
    if (need.squares) statistics.squares->Add(activation.squares);
    if (need.sample_norms) {
      std::vector<double> norms = activation.squares;
      for (double& norm : norms) norm = std::sqrt(norm);
      statistics.sample_norms->Add(norms);
    }
    if (!need.mean_magnitude) return;
    statistics.magnitudes->Add(activation.magnitudes);
    statistics.tokens += activation.tokens;
  }

  absl::Status AddRanges(const std::string& tap, const StatisticsNeed& need, int64_t sample,
                         const at::Tensor& x) {
    InputStatistics& statistics = statistics_.at(tap);
    if (need.extrema) {
      absl::StatusOr<std::vector<Extrema>> extrema =
          RangesOf(x, need.num_channels, kernels::FindExtrema);
      if (!extrema.ok()) return At(Where(tap, sample), extrema.status());
      statistics.extrema->Add(sample, *extrema);
    }
    if (need.searched) {
      absl::StatusOr<std::vector<Extrema>> extrema =
          RangesOf(x, need.num_channels, [&](const TensorView& view) {
            return kernels::SearchActivationRange(view, *need.searched);
          });
      if (!extrema.ok()) return At(Where(tap, sample), extrema.status());
      statistics.searched->Add(sample, *extrema);
    }
    return absl::OkStatus();
  }

  std::string Where(const std::string& tap, int64_t sample) const {
    return absl::StrCat(Where(tap), ", calibration sample ", sample);
  }

  std::string Where(const std::string& tap) const {
    return absl::StrCat(NameOf(layer_), ": activations at ", tap);
  }

  RunState& run_;
  const DecoderLayer* layer_;
  const Needs& needs_;
  LayerPass pass_;
  Statistics& statistics_;
};

void PrepareStatistics(const RunState& run, const Schedule& schedule, const Needs& needs,
                       Statistics& statistics) {
  int next_owner = 0;
  for (const auto& [group, need] : needs) {
    InputStatistics& input = statistics[group];
    const PlannedModule* module = run.plan.Find(group);
    const int64_t in_features = module == nullptr ? 0 : module->source.shape[1];
    const int64_t num_samples = static_cast<int64_t>(run.samples.rows.size());
    input.owner = next_owner;
    if (need.hessian) {
      input.hessian = std::make_unique<HessianAccumulator>(
          in_features, static_cast<int64_t>(schedule.chunks.size()));
      next_owner = (next_owner + 1) % run.collective.world_size();
    }
    if (need.extrema) {
      input.extrema = std::make_unique<ExtremaStatistic>(num_samples, need.num_channels);
    }
    if (need.searched) {
      input.searched = std::make_unique<ExtremaStatistic>(num_samples, need.num_channels);
    }
    if (need.channel_extrema) {
      input.channels = std::make_unique<ChannelExtremaStatistic>(in_features, num_samples,
                                                                 need.channel_extrema_by_sample);
    }
    if (need.mean_magnitude) input.magnitudes = std::make_unique<ExactSums>(in_features);
    if (need.squares) input.squares = std::make_unique<ExactSums>(in_features);
    if (need.sample_norms) input.sample_norms = std::make_unique<ExactSums>(in_features);
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

absl::Status ReduceRanges(Collective& collective, const StatisticsNeed& need,
                          InputStatistics& input) {
  if (need.extrema) LLMC_RETURN_IF_ERROR(input.extrema->Reduce(collective));
  if (need.searched) LLMC_RETURN_IF_ERROR(input.searched->Reduce(collective));
  if (need.channel_extrema) LLMC_RETURN_IF_ERROR(input.channels->Reduce(collective));
  if (need.squares) LLMC_RETURN_IF_ERROR(input.squares->Reduce(collective));
  if (need.sample_norms) LLMC_RETURN_IF_ERROR(input.sample_norms->Reduce(collective));
  if (!need.mean_magnitude) return absl::OkStatus();
  LLMC_RETURN_IF_ERROR(input.magnitudes->Reduce(collective));
  return collective.AllReduceSum(std::span<int64_t>(&input.tokens, 1));
}

// Sums over ranks; returns the groups whose Hessian must be captured again.
absl::StatusOr<Needs> Reduce(RunState& run, const Needs& needs, int64_t layer,
                             Statistics& statistics) {
  StepScope scope(run.clock, Step::kReduce, layer);
  Needs again;
  for (const auto& [group, need] : needs) {
    InputStatistics& input = statistics.at(group);
    LLMC_RETURN_IF_ERROR(ReduceRanges(run.collective, need, input));
    if (!need.hessian) continue;
    absl::StatusOr<HessianSum> sum = input.hessian->Reduce(run.collective, input.owner);
    if (!sum.ok())
      return At(absl::StrCat("layer ", layer, ": activations at ", group), sum.status());
    input.hessian_sum = *sum;
    if (!sum->needs_rescale) continue;
    input.hessian->Restart();
    again[group].hessian = true;
  }
  LLMC_RETURN_IF_ERROR(run.collective.AgreeOnStatus(Failpoint("layer.reduce")));
  return again;
}

// What is captured, and where it goes.
struct CaptureTarget {
  const DecoderLayer* layer;  // Null: the head.
  bool store_outputs;
  HiddenStates& hidden;
  Statistics& statistics;
};

absl::Status CaptureUntilItFits(RunState& run, const Schedule& schedule,
                                const CaptureTarget& target, const Needs& needs) {
  const int64_t index = IndexOf(target.layer);
  PrepareStatistics(run, schedule, needs, target.statistics);
  Needs wanted = needs;
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
                          const Needs& needs, bool store_outputs, HiddenStates& hidden,
                          Statistics& statistics) {
  const CaptureTarget target{&layer, store_outputs, hidden, statistics};
  return CaptureUntilItFits(run, schedule, target, needs);
}

absl::Status CaptureHead(RunState& run, const Schedule& schedule, const Needs& needs,
                         HiddenStates& hidden, Statistics& statistics) {
  const CaptureTarget target{nullptr, false, hidden, statistics};
  return CaptureUntilItFits(run, schedule, target, needs);
}

absl::Status PassSamples::ForEach(const Choice& choice, const Visit& visit) {
  std::vector<int64_t> samples;
  for (const Chunk& chunk : schedule_.MyChunks()) {
    for (const Pack& pack : chunk.packs) {
      for (int64_t sample : SamplesOf(pack)) {
        if (choice(sample)) samples.push_back(sample);
      }
    }
  }
  std::mutex mutex;
  absl::Status status;
  ParallelFor(static_cast<int64_t>(samples.size()), [&](int64_t i) {
    absl::Status one;
    const std::string where = absl::StrCat(NameOf(&layer_), ", sample ", samples[i]);
    const absl::Status torch = CatchTorch(where, [&] {
      c10::InferenceMode guard;
      const absl::StatusOr<at::Tensor> input = hidden_.Load(samples[i]);
      one = input.ok() ? visit(samples[i], layer_, *input) : input.status();
    });
    std::lock_guard<std::mutex> lock(mutex);
    status.Update(one);
    status.Update(torch);
  });
  return status;
}

absl::Status PropagateLayer(RunState& run, const Schedule& schedule, const DecoderLayer& layer,
                            HiddenStates& hidden) {
  StepScope scope(run.clock, Step::kPropagate, layer.index());
  LayerPass pass(&layer, hidden, false);
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
