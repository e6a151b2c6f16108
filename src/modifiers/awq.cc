#include "modifiers/awq.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <numeric>
#include <span>

#include "ATen/TensorOperators.h"
#include "ATen/ops/cat.h"
#include "ATen/ops/sum.h"
#include "absl/strings/str_cat.h"
#include "calibration/exact_sums.h"
#include "calibration/tensor_collective.h"
#include "kernels/compress.h"
#include "model/torch_tensor.h"
#include "modifiers/output_error.h"
#include "modifiers/smoothing.h"
#include "modifiers/widen.h"
#include "plan/awq_race.h"

namespace llmc {

// A block that a search runs with candidate weights.
struct AwqBlock {
  LayerPart part = LayerPart::kAttention;
  std::string input_group;
  std::string last_linear;  // Whose output is the block's.
  std::vector<WeightOverrides> candidates;
};

namespace {

std::string WeightName(const std::string& module) { return absl::StrCat(module, ".weight"); }

// The scheme by which the search rounds; null for a linear that stays dense.
std::optional<QuantizationArgs> SearchArgs(const Plan& plan, const std::string& linear) {
  const PlannedModule* module = plan.Find(linear);
  if (!module->is_quantized() || !module->scheme->weights) return std::nullopt;
  QuantizationArgs args = *module->scheme->weights;
  args.observer.reset();
  return args;
}

// Mean over the rows of all quantised consumers, [consumer channels].
absl::StatusOr<std::vector<double>> WeightMeans(const SmoothMapping& mapping, LayerChange& change) {
  std::vector<double> sums;
  int64_t rows = 0;
  for (const std::string& consumer : mapping.consumers) {
    const std::optional<QuantizationArgs> args = SearchArgs(*change.plan, consumer);
    if (!args) continue;
    LLMC_ASSIGN_OR_RETURN(const HostTensor* weight, change.dense->Get(WeightName(consumer)));
    sums.resize(weight->dim(1));
    LLMC_RETURN_IF_ERROR(At(consumer, AddNormalizedMagnitudes(*weight, *args, sums)));
    rows += weight->dim(0);
  }
  for (double& sum : sums) sum /= static_cast<double>(rows);
  return sums;
}

// Means over the consumer channels that read one channel of the source.
std::vector<double> MeansOfSource(const SmoothMapping& mapping, const ModelSpec& spec,
                                  const std::vector<double>& values) {
  if (mapping.kind != SmoothMapping::Kind::kValue) return values;
  const int64_t queries_per_key = spec.num_attention_heads / spec.num_key_value_heads;
  std::vector<double> means(spec.num_key_value_heads * spec.head_dim);
  for (size_t i = 0; i < values.size(); ++i) {
    const int64_t head = static_cast<int64_t>(i) / spec.head_dim;
    means[head / queries_per_key * spec.head_dim + i % spec.head_dim] +=
        values[i] / static_cast<double>(queries_per_key);
  }
  return means;
}

// Q(W s) / s of each of `linears`, in the model's dtype; linears that stay dense are
// left out.
absl::StatusOr<std::map<std::string, HostTensor>> Candidate(const std::vector<std::string>& linears,
                                                            std::span<const float> factors,
                                                            LayerChange& change) {
  std::map<std::string, HostTensor> scaled;
  std::optional<float> fused_absmax;  // NVFP4: one for all of them.
  for (const std::string& linear : linears) {
    const std::optional<QuantizationArgs> args = SearchArgs(*change.plan, linear);
    if (!args) continue;
    LLMC_ASSIGN_OR_RETURN(const HostTensor* weight, change.dense->Get(WeightName(linear)));
    HostTensor& copy = scaled[linear] = CopyOf(*weight);
    ScaleColumns(factors, copy);
    if (args->strategy != Strategy::kTensorGroup) continue;
    LLMC_ASSIGN_OR_RETURN(const float absmax, kernels::SearchedAbsMax(copy.view(), *args));
    fused_absmax = std::max(fused_absmax.value_or(0.0f), absmax);
  }
  kernels::WeightGridOptions options;
  options.fused_absmax = fused_absmax;
  for (auto& [linear, weight] : scaled) {
    const QuantizationArgs args = *SearchArgs(*change.plan, linear);
    absl::StatusOr<kernels::WeightGrid> grid =
        kernels::ComputeWeightGrid(weight.view(), args, options);
    if (!grid.ok()) return At(WeightName(linear), grid.status());
    LLMC_ASSIGN_OR_RETURN(weight, kernels::FakeQuantWeight(weight.view(), *grid, args));
    DivideColumns(factors, weight);
  }
  return scaled;
}

// The mapping's consumers as F32 where the rank computes, by name.
using WidenedWeights = std::map<std::string, at::Tensor>;

absl::StatusOr<WidenedWeights> WidenConsumers(const PlannedTransform& transform,
                                              LayerChange& change) {
  WidenedWeights widened;
  for (const std::string& linear : transform.smoothing->consumers) {
    LLMC_ASSIGN_OR_RETURN(const HostTensor* dense, change.dense->Get(WeightName(linear)));
    LLMC_ASSIGN_OR_RETURN(widened[linear],
                          WidenRows(*change.place.device, *dense, 0, dense->dim(0)));
  }
  return widened;
}

// tr(E C E^T) summed over the consumers, E = Q(W s) / s - W, C the second moment.
absl::StatusOr<double> LossBySecondMoment(const WidenedWeights& dense,
                                          const std::map<std::string, HostTensor>& candidate,
                                          const at::Tensor& hessian, const ComputeDevice& device) {
  double loss = 0;
  for (const auto& [linear, rounded] : candidate) {
    LLMC_ASSIGN_OR_RETURN(const at::Tensor to, WidenRows(device, rounded, 0, rounded.dim(0)));
    LLMC_ASSIGN_OR_RETURN(const double error, OutputErrorOf(device, dense.at(linear), to, hessian));
    loss += error;
  }
  return loss;
}

// The owner's Hessian on every rank.
absl::StatusOr<at::Tensor> ShareHessian(InputStatistics& statistics, LayerChange& change) {
  const int64_t n = statistics.hessian->in_features();
  Collective& collective = *change.collective;
  absl::StatusOr<at::Tensor> hessian = statistics.owner == collective.rank()
                                           ? statistics.Hessian()
                                           : change.place.device->New(at::kFloat, {n, n});
  LLMC_RETURN_IF_ERROR(collective.AgreeOnStatus(hessian.status()));
  LLMC_RETURN_IF_ERROR(BroadcastTensor(collective, change.place, *hessian, statistics.owner));
  return hessian;
}

// The inputs of a layer's blocks and what the blocks give, of one sample.
class BlockTaps : public Taps {
 public:
  void Input(absl::Span<const std::string> linears, const at::Tensor& x) override {
    inputs[linears.front()] = x;
  }
  at::Tensor ReplaceOutput(const std::string& linear, const at::Tensor& y) override {
    outputs[linear] = y;
    return y;
  }

  std::map<std::string, at::Tensor> inputs;   // By input group.
  std::map<std::string, at::Tensor> outputs;  // By linear.
};

// F64 [1].
at::Tensor SquaredError(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor difference = a.to(at::kFloat) - b.to(at::kFloat);
  return (difference * difference).sum(at::kDouble).view({1});
}

AwqBlock BlockOf(const SmoothMapping& mapping, const std::string& input_group, const Plan& plan) {
  const ModuleSpec& consumer = plan.Find(mapping.consumers[0])->module;
  AwqBlock block;
  const bool is_attention = consumer.role == Role::kQuery;
  block.part = is_attention ? LayerPart::kAttention : LayerPart::kMlp;
  block.input_group = input_group;
  for (const PlannedModule& module : plan.modules) {
    const Role last = is_attention ? Role::kAttentionOutput : Role::kDown;
    if (module.module.layer == consumer.layer && module.module.role == last) {
      block.last_linear = module.module.name;
    }
  }
  return block;
}

// Adds the losses of one sample to `sums`: of all blocks' candidates, in order.
absl::Status AddLosses(const DecoderLayer& layer, const at::Tensor& hidden,
                       const std::vector<AwqBlock>& blocks, std::mutex& mutex, ExactSums& sums) {
  BlockTaps taps;
  layer.Forward(hidden, {.taps = &taps});
  std::vector<at::Tensor> losses;
  for (const AwqBlock& block : blocks) {
    const at::Tensor& input = taps.inputs.at(block.input_group);
    const at::Tensor& expected = taps.outputs.at(block.last_linear);
    for (const WeightOverrides& weights : block.candidates) {
      losses.push_back(SquaredError(layer.RunPart(block.part, input, weights), expected));
    }
  }
  const at::Tensor host = at::cat(losses).cpu();
  std::lock_guard<std::mutex> lock(mutex);
  sums.Add({host.const_data_ptr<double>(), losses.size()});
  return absl::OkStatus();
}

// Numbers of the `count` least losses, rising; all others become infinite. NaN is never
// among the least.
std::vector<size_t> KeepBest(size_t count, std::vector<double>& losses) {
  std::vector<size_t> order(losses.size());
  std::iota(order.begin(), order.end(), 0);
  for (double& loss : losses) {
    if (std::isnan(loss)) loss = std::numeric_limits<double>::infinity();
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return losses[a] < losses[b]; });
  for (size_t i = count; i < order.size(); ++i) {
    losses[order[i]] = std::numeric_limits<double>::infinity();
  }
  order.resize(count);
  std::sort(order.begin(), order.end());
  return order;
}

}  // namespace

absl::StatusOr<AwqTransform::Search> AwqTransform::Prepare(const PlannedTransform& transform,
                                                           LayerChange& change) const {
  const SmoothMapping& mapping = *transform.smoothing;
  const ModelSpec& spec = *change.plan->model;
  Search search;
  search.transform = &transform;
  search.input_group = transform.needs.begin()->first;
  const InputStatistics& statistics = change.statistics->at(search.input_group);
  if (statistics.tokens == 0) return search;
  const std::vector<double> activations = MeansOfSource(mapping, spec, statistics.MeanMagnitudes());
  LLMC_ASSIGN_OR_RETURN(const std::vector<double> means, WeightMeans(mapping, change));
  const std::vector<double> weights = MeansOfSource(mapping, spec, means);
  for (const AwqGridPoint& point : AwqGrid(fields_)) {
    search.source_factors.push_back(AwqFactors(point, activations, weights));
    search.factors.push_back(ConsumerFactors(mapping, spec, search.source_factors.back()));
  }
  search.losses.resize(search.factors.size(), std::numeric_limits<double>::infinity());
  return search;
}

absl::Status AwqTransform::SearchBySecondMoment(Search& search, LayerChange& change) const {
  InputStatistics& statistics = change.statistics->at(search.input_group);
  LLMC_ASSIGN_OR_RETURN(const at::Tensor hessian, ShareHessian(statistics, change));
  Collective& collective = *change.collective;
  const size_t count = search.factors.size();
  const auto first = [&](int rank) { return count * rank / collective.world_size(); };
  const absl::StatusOr<WidenedWeights> dense = WidenConsumers(*search.transform, change);
  absl::Status local = dense.status();
  for (size_t k = first(collective.rank()); k < first(collective.rank() + 1) && local.ok(); ++k) {
    const auto candidate =
        Candidate(search.transform->smoothing->consumers, search.factors[k], change);
    const absl::StatusOr<double> loss =
        candidate.ok() ? LossBySecondMoment(*dense, *candidate, hessian, *change.place.device)
                       : candidate.status();
    local = loss.status();
    if (loss.ok()) search.losses[k] = *loss;
  }
  LLMC_RETURN_IF_ERROR(collective.AgreeOnStatus(local));
  const std::span<double> losses(search.losses);
  for (int rank = 0; rank < collective.world_size(); ++rank) {
    const auto theirs = losses.subspan(first(rank), first(rank + 1) - first(rank));
    LLMC_RETURN_IF_ERROR(collective.Broadcast(std::as_writable_bytes(theirs), rank));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<AwqBlock>> AwqTransform::MakeBlocks(const Heat& heat, size_t first,
                                                               size_t last,
                                                               LayerChange& change) const {
  std::vector<AwqBlock> blocks;
  for (size_t s = 0; s < heat.searches.size(); ++s) {
    const Search& search = *heat.searches[s];
    const SmoothMapping& mapping = *search.transform->smoothing;
    AwqBlock block = BlockOf(mapping, search.input_group, *change.plan);
    for (size_t i = first; i < last; ++i) {
      LLMC_ASSIGN_OR_RETURN(
          auto candidate,
          Candidate(mapping.consumers, search.factors[heat.candidates[s][i]], change));
      WeightOverrides& weights = block.candidates.emplace_back();
      LLMC_RETURN_IF_ERROR(CatchTorch("AWQ", [&] {
        for (auto& [linear, tensor] : candidate) {
          weights[linear] = ToTorch(std::move(tensor))
                                .to(change.place.device->torch_device(), change.compute_dtype);
        }
      }));
    }
    blocks.push_back(std::move(block));
  }
  return blocks;
}

absl::Status AwqTransform::RunHeat(const Heat& heat, LayerChange& change) const {
  int64_t bytes = 0;
  for (const Search* search : heat.searches) {
    for (const std::string& linear : search->transform->smoothing->consumers) {
      bytes += change.plan->Find(linear)->source.num_bytes() * 2;
    }
  }
  const size_t count = heat.candidates.front().size();
  const size_t wave = std::clamp<size_t>(
      static_cast<size_t>(kAwqCandidateBytes / std::max<int64_t>(1, bytes)), 1, count);
  for (size_t first = 0; first < count; first += wave) {
    const size_t last = std::min(count, first + wave);
    const absl::StatusOr<std::vector<AwqBlock>> blocks = MakeBlocks(heat, first, last, change);
    absl::Status local = blocks.status();
    ExactSums sums(static_cast<int64_t>(heat.searches.size() * (last - first)));
    std::mutex mutex;
    if (local.ok()) {
      local = change.samples->ForEach(
          heat.samples, [&](int64_t, const DecoderLayer& layer, const at::Tensor& hidden) {
            return AddLosses(layer, hidden, *blocks, mutex, sums);
          });
    }
    LLMC_RETURN_IF_ERROR(change.collective->AgreeOnStatus(local));
    LLMC_RETURN_IF_ERROR(sums.Reduce(*change.collective));
    int64_t next = 0;
    for (size_t s = 0; s < heat.searches.size(); ++s) {
      for (size_t i = first; i < last; ++i) {
        heat.searches[s]->losses[heat.candidates[s][i]] += sums.Get(next++);
      }
    }
  }
  return absl::OkStatus();
}

absl::Status AwqTransform::SearchByForward(std::vector<Search*> searches,
                                           LayerChange& change) const {
  const auto count = static_cast<int64_t>(searches.front()->factors.size());
  const int64_t tokens = change.statistics->at(searches[0]->input_group).tokens;
  const std::span<const AwqHeat> race = tokens < kAwqRaceTokens
                                            ? std::span<const AwqHeat>(kAwqWithoutRace)
                                            : std::span<const AwqHeat>(kAwqRace);
  for (Search* search : searches) search->losses.assign(count, 0.0);
  for (const AwqHeat& part : race) {
    Heat heat;
    heat.searches = searches;
    heat.samples = [&part](int64_t sample) { return part.Takes(sample); };
    for (Search* search : searches) {
      heat.candidates.push_back(
          KeepBest(static_cast<size_t>(part.NumRunners(count)), search->losses));
    }
    LLMC_RETURN_IF_ERROR(RunHeat(heat, change));
  }
  return absl::OkStatus();
}

absl::Status AwqTransform::Apply(LayerChange& change) const {
  std::vector<Search> searches;
  absl::Status local;
  for (const PlannedTransform* transform : change.transforms) {
    absl::StatusOr<Search> search = Prepare(*transform, change);
    local.Update(search.status());
    if (search.ok() && !search->factors.empty()) searches.push_back(*std::move(search));
  }
  LLMC_RETURN_IF_ERROR(change.collective->AgreeOnStatus(local));
  std::vector<Search*> by_forward;
  for (Search& search : searches) {
    if (search.transform->reads_samples) {
      by_forward.push_back(&search);
    } else {
      LLMC_RETURN_IF_ERROR(SearchBySecondMoment(search, change));
    }
  }
  if (!by_forward.empty()) LLMC_RETURN_IF_ERROR(SearchByForward(by_forward, change));
  for (const Search& search : searches) {
    LLMC_RETURN_IF_ERROR(change.collective->AgreeOnStatus(Smooth(search, change)));
  }
  return absl::OkStatus();
}

absl::Status AwqTransform::Smooth(const Search& search, LayerChange& change) {
  // NaN compares false: it is never the least.
  size_t best = search.losses.size();
  double least = std::numeric_limits<double>::infinity();
  for (size_t k = 0; k < search.losses.size(); ++k) {
    if (!(search.losses[k] < least)) continue;
    least = search.losses[k];
    best = k;
  }
  if (best == search.losses.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("AWQ of ", search.transform->smoothing->source,
                     ": no candidate has a finite loss, expected finite weights and activations"));
  }
  return ApplySmoothing(*search.transform, search.source_factors[best], change);
}

}  // namespace llmc
