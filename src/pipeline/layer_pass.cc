#include "pipeline/layer_pass.h"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <span>
#include <utility>

#include "ATen/ops/cat.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "c10/core/InferenceMode.h"
#include "llmc/counters.h"
#include "llmc/failpoint.h"
#include "llmc/parallel.h"
#include "model/torch_tensor.h"
#include "pipeline/capture_taps.h"
#include "pipeline/state_window.h"
#include "plan/partition.h"

namespace llmc {
namespace {

std::vector<Batch> BatchesOf(const Pack& pack, const HiddenStates& hidden, bool by_pack) {
  std::vector<Batch> batches;
  for (int64_t sample = pack.begin; sample < pack.end; ++sample) {
    if (batches.empty() || !by_pack) batches.emplace_back();
    batches.back().samples.push_back(sample);
    batches.back().lengths.push_back(hidden.tokens(sample));
  }
  return batches;
}

std::string NameOf(const DecoderLayer* layer) {
  return layer == nullptr ? "head" : absl::StrCat("layer ", layer->index());
}
int64_t IndexOf(const DecoderLayer* layer) { return layer == nullptr ? -1 : layer->index(); }

bool WantsOutputs(const Needs& needs) {
  return std::any_of(needs.begin(), needs.end(),
                     [](const auto& need) { return absl::EndsWith(need.first, OutputTap("")); });
}

// How many packs may be in flight: what the plan left memory for, as far as it is free.
int64_t WindowDepth(const RunState& run) {
  const int64_t pack_bytes = std::max<int64_t>(1, run.estimate.device_pack_bytes);
  const int64_t fitting = run.device.free_bytes() / pack_bytes;
  return std::clamp<int64_t>(fitting, 1, run.estimate.device_packs_in_flight);
}

// Null on the host, and where all states are on the device.
absl::StatusOr<std::unique_ptr<StateWindow>> OpenWindow(const RunState& run,
                                                        const Schedule& schedule,
                                                        HiddenStates& hidden) {
  if (run.device.is_host() || hidden.AllOnDevice()) return nullptr;
  std::vector<Batch> batches;
  for (const Chunk& chunk : schedule.MyChunks()) {
    for (const Pack& pack : chunk.packs) {
      for (Batch& batch : BatchesOf(pack, hidden, true)) batches.push_back(std::move(batch));
    }
  }
  return StateWindow::Open(run.device, hidden, std::move(batches), WindowDepth(run));
}

// One pass over this rank's samples, through a layer or (null) just past them.
class LayerPass {
 public:
  // `wants_outputs`: taps look past the last input. `window`, when there is one, sees the
  // batches in its order.
  LayerPass(const ComputeDevice& device, const DecoderLayer* layer, HiddenStates& hidden,
            StateWindow* window, bool wants_outputs)
      : device_(device),
        layer_(layer),
        hidden_(hidden),
        window_(window),
        wants_outputs_(wants_outputs) {}

  // Runs batches, on the host side by side, each on one thread. `taps[i]`, when given,
  // sees `batches[i]`.
  absl::Status Forward(const std::vector<Batch>& batches, std::vector<CaptureTaps>* taps,
                       bool store_outputs) {
    std::mutex mutex;
    absl::Status status;
    ForUnits(device_, static_cast<int64_t>(batches.size()), [&](int64_t i) {
      const absl::Status one =
          ForwardBatch(batches[i], taps == nullptr ? nullptr : &(*taps)[i], store_outputs);
      if (one.ok()) return;
      std::lock_guard<std::mutex> lock(mutex);
      status.Update(one);
    });
    return status;
  }

 private:
  absl::Status ForwardBatch(const Batch& batch, CaptureTaps* taps, bool store_outputs) {
    absl::Status status;
    const std::string where = absl::StrCat(NameOf(layer_), ", sample ", batch.samples[0]);
    absl::Status torch = CatchTorch(where, [&] {
      absl::StatusOr<at::Tensor> input =
          window_ != nullptr ? window_->Take() : hidden_.Load(batch.samples);
      if (!input.ok()) {
        status = input.status();
        return;
      }
      at::Tensor output = Apply(batch, *input, taps, store_outputs);
      if (window_ != nullptr) {
        status = window_->Done(output);
      } else if (output.defined()) {
        status = hidden_.Store(batch.samples, output);
      }
    });
    return torch.ok() ? status : torch;
  }

  // Undefined when outputs are not stored.
  at::Tensor Apply(const Batch& batch, const at::Tensor& input, CaptureTaps* taps,
                   bool store_outputs) const {
    if (layer_ == nullptr) {
      taps->InputOfHead(input);
      return {};
    }
    at::Tensor output = layer_->Forward(
        input,
        {.lengths = batch.lengths, .taps = taps, .output_needed = store_outputs || wants_outputs_});
    return store_outputs ? output : at::Tensor();
  }

  const ComputeDevice& device_;
  const DecoderLayer* layer_;
  HiddenStates& hidden_;
  StateWindow* window_;
  bool wants_outputs_;
};

// What is captured, and where it goes.
struct CaptureTarget {
  const DecoderLayer* layer;  // Null: the head.
  bool store_outputs;
  HiddenStates& hidden;
  Statistics& statistics;
};

// Adds up statistics chunk by chunk.
class Capture {
 public:
  Capture(RunState& run, const Needs& needs, const CaptureTarget& target, StateWindow* window)
      : run_(run),
        layer_(target.layer),
        needs_(needs),
        hidden_(target.hidden),
        pass_(run.device, target.layer, target.hidden, window, WantsOutputs(needs)),
        statistics_(target.statistics) {}

  // Packs go in waves as wide as there are threads; the sums do not depend on it.
  absl::Status AddChunk(const Chunk& chunk, bool store_outputs) {
    const size_t wave = run_.device.is_host() ? static_cast<size_t>(NumThreads()) : 1;
    for (size_t first = 0; first < chunk.packs.size(); first += wave) {
      const size_t last = std::min(chunk.packs.size(), first + wave);
      LLMC_RETURN_IF_ERROR(
          AddPacks({chunk.packs.begin() + first, chunk.packs.begin() + last}, store_outputs));
      // A device is waited for once a chunk.
      if (run_.device.is_host()) LLMC_RETURN_IF_ERROR(AddPending());
    }
    LLMC_RETURN_IF_ERROR(AddPending());
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
    std::vector<Batch> batches;
    std::vector<size_t> ends;  // Of each pack, in `batches`.
    for (const Pack& pack : packs) {
      for (Batch& batch : BatchesOf(pack, hidden_, !run_.device.is_host())) {
        batches.push_back(std::move(batch));
      }
      ends.push_back(batches.size());
    }
    std::vector<CaptureTaps> taps;
    for (const Batch& batch : batches) taps.emplace_back(run_.device, needs_, batch);
    LLMC_RETURN_IF_ERROR(pass_.Forward(batches, &taps, store_outputs));
    size_t begin = 0;
    for (const size_t end : ends) {
      for (const auto& [tap, need] : needs_) {
        LLMC_RETURN_IF_ERROR(AddPack(tap, need, {&taps[begin], end - begin}));
      }
      begin = end;
    }
    return absl::OkStatus();
  }

  absl::Status AddPack(const std::string& tap, const StatisticsNeed& need,
                       std::span<CaptureTaps> taps) {
    std::vector<at::Tensor> rows;
    int64_t sequences = 0;
    for (CaptureTaps& batch : taps) {
      BatchActivation& activation = batch.kept.at(tap);
      LLMC_RETURN_IF_ERROR(At(Where(tap, activation.ranges.front().sample), batch.status));
      sequences += std::ssize(activation.ranges);
      rows.push_back(activation.rows);
      if (!need.HasRanges()) continue;
      for (SampleRanges& ranges : activation.ranges) pending_[tap].push_back(std::move(ranges));
    }
    if (!need.hessian) return absl::OkStatus();
    at::Tensor all = rows[0];
    if (rows.size() > 1) {
      c10::InferenceMode guard;
      LLMC_RETURN_IF_ERROR(CatchTorch(Where(tap), [&] { all = at::cat(rows); }));
    }
    return At(Where(tap), statistics_.at(tap).hessian->Add(RowsOf(all), sequences));
  }

  // Hands what the last packs have shown to the statistics, in sample order.
  absl::Status AddPending() {
    for (auto& [tap, all] : pending_) {
      for (const SampleRanges& ranges : all) {
        absl::Status added;
        const absl::Status torch = CatchTorch(Where(tap, ranges.sample), [&] {
          added = AddRanges(ranges, needs_.at(tap), statistics_.at(tap));
        });
        LLMC_RETURN_IF_ERROR(torch);
        LLMC_RETURN_IF_ERROR(At(Where(tap, ranges.sample), added));
      }
    }
    pending_.clear();
    return absl::OkStatus();
  }

  absl::Status AddRanges(const SampleRanges& ranges, const StatisticsNeed& need,
                         InputStatistics& statistics) const {
    if (need.channel_extrema) {
      LLMC_ASSIGN_OR_RETURN(const std::vector<float> min, Numbers<float>(ranges.channel_min));
      LLMC_ASSIGN_OR_RETURN(const std::vector<float> max, Numbers<float>(ranges.channel_max));
      LLMC_RETURN_IF_ERROR(CheckFinite(min, max));
      statistics.channels->Add(ranges.sample, min, max);
    }
    if (need.mean_magnitude) {
      LLMC_ASSIGN_OR_RETURN(const std::vector<double> sums, Numbers<double>(ranges.magnitudes));
      statistics.magnitudes->Add(sums);
      statistics.tokens += ranges.tokens;
    }
    if (need.squares || need.sample_norms) {
      LLMC_ASSIGN_OR_RETURN(std::vector<double> sums, Numbers<double>(ranges.squares));
      if (need.squares) statistics.squares->Add(sums);
      for (double& sum : sums) sum = std::sqrt(sum);
      if (need.sample_norms) statistics.sample_norms->Add(sums);
    }
    if (need.searched) statistics.searched->Add(ranges.sample, ranges.searched);
    if (!need.extrema) return absl::OkStatus();
    LLMC_ASSIGN_OR_RETURN(const std::vector<float> min, Numbers<float>(ranges.min));
    LLMC_ASSIGN_OR_RETURN(const std::vector<float> max, Numbers<float>(ranges.max));
    LLMC_RETURN_IF_ERROR(CheckFinite(min, max));
    std::vector<Extrema> extrema;
    for (size_t i = 0; i < min.size(); ++i) extrema.push_back({min[i], max[i]});
    statistics.extrema->Add(ranges.sample, extrema);
    return absl::OkStatus();
  }

  template <typename T>
  absl::StatusOr<std::vector<T>> Numbers(const at::Tensor& tensor) const {
    std::vector<T> numbers(tensor.numel());
    LLMC_RETURN_IF_ERROR(run_.device.Download(tensor, std::as_writable_bytes(std::span(numbers))));
    return numbers;
  }

  static absl::Status CheckFinite(std::span<const float> min, std::span<const float> max) {
    for (size_t i = 0; i < min.size(); ++i) {
      if (std::isfinite(min[i]) && std::isfinite(max[i])) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("values from ", min[i], " to ", max[i], ", expected finite ones"));
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
  HiddenStates& hidden_;
  LayerPass pass_;
  Statistics& statistics_;
  std::map<std::string, std::vector<SampleRanges>> pending_;  // By tap.
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
          in_features, static_cast<int64_t>(schedule.chunks.size()), run.place());
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
      const Chunk& chunk = schedule.chunks[schedule.mine[round]];
      local = capture.AddChunk(chunk, store_outputs);
      Count(Counter::kCalibrationTokens, chunk.tokens);
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

// One pass.
absl::Status CaptureOnce(RunState& run, const Schedule& schedule, const CaptureTarget& target,
                         const Needs& needs) {
  const int64_t index = IndexOf(target.layer);
  StepScope scope(run.clock, Step::kCapture, index);
  if (run.device.is_host()) {
    Capture capture(run, needs, target, nullptr);
    return CaptureRounds(run, schedule, capture, target.store_outputs, index);
  }
  const auto window = OpenWindow(run, schedule, target.hidden);
  LLMC_RETURN_IF_ERROR(run.collective.AgreeOnStatus(window.status()));
  Capture capture(run, needs, target, window->get());
  LLMC_RETURN_IF_ERROR(CaptureRounds(run, schedule, capture, target.store_outputs, index));
  return run.collective.AgreeOnStatus(*window == nullptr ? absl::OkStatus() : (*window)->Finish());
}

absl::Status CaptureUntilItFits(RunState& run, const Schedule& schedule,
                                const CaptureTarget& target, const Needs& needs) {
  const int64_t index = IndexOf(target.layer);
  PrepareStatistics(run, schedule, needs, target.statistics);
  Needs wanted = needs;
  while (true) {
    LLMC_RETURN_IF_ERROR(CaptureOnce(run, schedule, target, wanted));
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
  schedule.chunks =
      CutIntoChunks(lengths, run.device.is_host() ? kMinPackTokens : kMinDevicePackTokens);
  const int64_t num_chunks = static_cast<int64_t>(schedule.chunks.size());
  schedule.mine = PiecesOfRank(num_chunks, run.collective.rank(), run.collective.world_size());
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
    for (int64_t s = chunk.packs.front().begin; s < chunk.packs.back().end; ++s) {
      if (choice(s)) samples.push_back(s);
    }
  }
  std::mutex mutex;
  absl::Status status;
  ForUnits(device_, static_cast<int64_t>(samples.size()), [&](int64_t i) {
    absl::Status one;
    const std::string where = absl::StrCat(NameOf(&layer_), ", sample ", samples[i]);
    const absl::Status torch = CatchTorch(where, [&] {
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
  LLMC_ASSIGN_OR_RETURN(const std::unique_ptr<StateWindow> window,
                        OpenWindow(run, schedule, hidden));
  LayerPass pass(run.device, &layer, hidden, window.get(), false);
  for (size_t i = 0; i < schedule.mine.size(); ++i) {
    std::vector<Batch> batches;
    for (const Pack& pack : schedule.chunks[schedule.mine[i]].packs) {
      for (Batch& batch : BatchesOf(pack, hidden, !run.device.is_host())) {
        batches.push_back(std::move(batch));
      }
    }
    LLMC_RETURN_IF_ERROR(pass.Forward(batches, nullptr, true));
    run.clock.Progress(Step::kPropagate, layer.index(),
                       static_cast<double>(i + 1) / static_cast<double>(schedule.mine.size()));
  }
  if (window != nullptr) LLMC_RETURN_IF_ERROR(window->Finish());
  LLMC_RETURN_IF_ERROR(run.device.Synchronize());
  return Failpoint("layer.propagate");
}

}  // namespace llmc
