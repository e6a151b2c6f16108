// Memory, disk and time of a plan, and what fixes its output.

#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "absl/strings/str_cat.h"
#include "checkpoint/content_hash.h"
#include "llmc/byte_size.h"
#include "plan/awq_race.h"
#include "plan/plan.h"
#include "plan/statistics.h"

namespace llmc {
namespace {

constexpr absl::string_view kVersion = "0.1.0";

// Resident memory of a worker beside its tensors: code and tables of LibTorch and
// MKL that a run touches, and what the allocator keeps between layers.
constexpr int64_t kProgramBytes = 130'000'000;
constexpr int64_t kCalibratedProgramBytes = 160'000'000;

// Rates for the time estimate; docs/benchmarks.md has measured ones.
constexpr double kAssumedFlopsPerThread = 60e9;
constexpr double kAssumedDiskBytesPerSecond = 500e6;

// Tokens of the packs in flight on one thread, when samples are shorter.
constexpr int64_t kPackTokens = 512;

// A pack on a device has at least this many (calibration/sample_schedule.h).
constexpr int64_t kDevicePackTokens = 4096;

// More would not hide more: a pack's products take longer than its copies.
constexpr int64_t kMostPacksInFlight = 8;

// Beside the tensors on a device: workspaces of cuBLAS and cuSOLVER, and what LibTorch's
// allocator leaves between blocks. Assumed.
constexpr int64_t kDeviceLibraryBytes = 256'000'000;
// Of the host, for CUDA's libraries in a process. Assumed.
constexpr int64_t kCudaProgramBytes = 600'000'000;

// Of one channel: a smallest and a largest value; a sum in fixed point.
constexpr int64_t kExtremaBytes = 8;
constexpr int64_t kMagnitudeBytes = 32;

// Sizes of one decoder layer that the estimate needs.
struct LayerSizes {
  int64_t weights = 0;           // Elements of all linears.
  int64_t source_bytes = 0;      // In the checkpoint.
  int64_t largest_weight = 0;    // Elements.
  int64_t hessian_elements = 0;  // Sum over shared inputs of in_features^2.
  int64_t kept_factors = 0;      // Elements of factors that SparseGPT keeps for GPTQ.
  int64_t largest_input = 0;     // in_features.
  int64_t input_features = 0;    // Sum over shared inputs whose rows are kept.
  int64_t channel_bytes = 0;     // Statistics of channels.
  int64_t rewritten_bytes = 0;   // Dense tensors that transforms hold.
  int64_t candidate_bytes = 0;   // Weights that AWQ tries at a time.
  double search_flops = 0;       // Of AWQ, for one token.
  double solve_flops = 0;        // Factor and rows.

  void Add(const PlannedModule& module) {
    const int64_t out = module.source.shape[0];
    const int64_t in = module.source.shape[1];
    weights += out * in;
    source_bytes += module.source.num_bytes();
    largest_weight = std::max(largest_weight, out * in);
    if (module.method != Method::kGptq) return;
    solve_flops +=
        4.0 * static_cast<double>(out) * static_cast<double>(in) * static_cast<double>(in);
  }

  void Add(const StatisticsNeed& need, int64_t in, int64_t num_samples) {
    if (need.hessian || need.extrema) input_features += in;
    if (need.mean_magnitude) channel_bytes += in * kMagnitudeBytes;
    if (need.squares) channel_bytes += in * kMagnitudeBytes;
    if (need.sample_norms) channel_bytes += in * kMagnitudeBytes;
    if (need.channel_extrema) {
      channel_bytes += in * kExtremaBytes * (need.channel_extrema_by_sample ? num_samples : 1);
    }
    if (!need.hessian) return;
    hessian_elements += in * in;
    largest_input = std::max(largest_input, in);
    solve_flops +=
        4.0 / 3.0 * static_cast<double>(in) * static_cast<double>(in) * static_cast<double>(in);
  }
};

// AWQ's forwards: every candidate of a layer's norms runs the blocks behind them.
void AddSearch(const Plan& plan, const WorkUnit& unit, int64_t num_tokens, LayerSizes& sizes) {
  int64_t one_candidate = 0;
  int64_t num_candidates = 0;
  for (int index : unit.transforms) {
    const PlannedTransform& transform = plan.transforms[index];
    if (!transform.reads_samples) continue;
    num_candidates = std::get<AwqModifier>(plan.recipe.modifiers()[transform.modifier]).n_grid;
    for (const std::string& consumer : transform.smoothing->consumers) {
      one_candidate += plan.Find(consumer)->source.num_bytes() * 2;
    }
  }
  sizes.candidate_bytes =
      std::max(one_candidate, std::min(num_candidates * one_candidate, kAwqCandidateBytes));
  const double forwards = NumAwqForwards(num_candidates, num_tokens);
  sizes.search_flops = 2.0 * forwards * static_cast<double>(one_candidate > 0 ? sizes.weights : 0);
}

// SparseGPT's rows, and the factors that it keeps, one for each of `kept`.
void AddPruning(const Plan& plan, const PlannedTransform& transform, std::set<std::string>& kept,
                LayerSizes& sizes) {
  if (transform.module.empty() || transform.needs.empty()) return;
  const auto& [group, need] = *transform.needs.begin();
  if (!need.hessian) return;
  const Shape& shape = plan.Find(transform.module)->source.shape;
  const auto in = static_cast<double>(shape[1]);
  sizes.solve_flops += static_cast<double>(shape[0]) * in * in;
  if (transform.keeps_factor && kept.insert(group).second) {
    sizes.kept_factors += shape[1] * shape[1];
  }
}

LayerSizes SizesOfLayer(const Plan& plan, const WorkUnit& unit, const CalibrationExtent& extent) {
  LayerSizes sizes;
  for (const PlannedModule& module : plan.modules) {
    if (module.module.layer == unit.first_layer) sizes.Add(module);
  }
  for (const auto& [group, need] : NeedsOfUnit(plan, unit)) {
    const PlannedModule* input = plan.Find(group);
    // Other taps are outputs, which a sample holds anyway.
    if (input != nullptr) sizes.Add(need, input->source.shape[1], extent.num_samples);
  }
  std::set<std::string> rewritten;
  std::set<std::string> kept;
  for (int index : unit.transforms) {
    AddPruning(plan, plan.transforms[index], kept, sizes);
    for (const std::string& name : plan.transforms[index].tensors) rewritten.insert(name);
  }
  AddSearch(plan, unit, extent.num_tokens, sizes);
  for (const std::string& name : rewritten) {
    sizes.rewritten_bytes += plan.source->Find(name)->spec.num_bytes();
  }
  return sizes;
}

// The layer that needs most; layers of a family differ little.
LayerSizes LargestLayer(const Plan& plan, const CalibrationExtent& extent) {
  LayerSizes largest;
  for (const WorkUnit& unit : plan.units) {
    if (unit.first_layer < 0) continue;
    const LayerSizes sizes = SizesOfLayer(plan, unit, extent);
    if (sizes.hessian_elements + sizes.weights > largest.hessian_elements + largest.weights) {
      largest = sizes;
    }
  }
  return largest;
}

// Verify reads whole tensors, one a thread.
int64_t VerifyBytes(const Plan& plan, const Ranks& ranks) {
  int64_t largest = 0;
  for (const PlacedTensor& tensor : plan.layout.tensors()) {
    largest = std::max(largest, tensor.spec.num_bytes());
  }
  return ranks.threads_per_rank * largest;
}

int64_t DataFreeBytes(const Plan& plan, const Ranks& ranks) {
  int64_t largest = 0;
  for (const PlannedModule& module : plan.modules) {
    if (!module.is_quantized()) continue;
    const std::optional<QuantizationArgs>& weights = module.scheme->weights;
    const bool whole = weights && weights->strategy == Strategy::kTensor;
    const int64_t bytes = module.source.num_bytes();
    largest = std::max(largest, whole ? bytes : std::min(bytes, kSliceBytes));
  }
  // A slice, its codes, as much again while it is packed; a part of it twice, rounded
  // and as it was, for the error that is reported.
  const int64_t slices = ranks.threads_per_rank *
                         (2 * largest + largest / 2 + 2 * std::min(largest, kErrorSampleBytes));
  return kProgramBytes + std::max(slices, VerifyBytes(plan, ranks));
}

// Memory of Capture and of Solve differ; the larger counts.
int64_t CalibratedBytes(const Plan& plan, const CalibrationExtent& extent, const Ranks& ranks) {
  const LayerSizes layer = LargestLayer(plan, extent);
  const int64_t hidden = plan.model->hidden_size;
  const int64_t compute_size = plan.compute_dtype == ComputeDType::kBFloat16 ? 2 : 4;
  const int64_t weights = layer.weights * compute_size;
  const int64_t in_flight = ranks.threads_per_rank * std::max(extent.longest, kPackTokens);
  const int64_t inputs = in_flight *
                         (layer.input_features + 6 * hidden + 2 * plan.model->intermediate_size) *
                         compute_size;
  // One product a thread at a time, with the weight rearranged for it.
  const int64_t rearranged = ranks.threads_per_rank * layer.largest_weight * compute_size;
  const int64_t totals = layer.hessian_elements / 2 * 8;
  const int64_t capture =
      totals + layer.hessian_elements / 2 * 4 + inputs + rearranged + layer.channel_bytes;
  // The Hessian, its reversed copy, and the factor.
  const int64_t factor = 3 * layer.largest_input * layer.largest_input * 4;
  // Codes of at most a byte wait for the layer to be written.
  const int64_t solve = totals + factor + 4 * layer.kept_factors + 2 * layer.largest_weight * 4 +
                        layer.weights + layer.channel_bytes + layer.rewritten_bytes;
  // AWQ runs its candidates on the samples.
  const int64_t search = totals + layer.candidate_bytes + inputs + rearranged +
                         layer.channel_bytes + layer.rewritten_bytes;
  // While a layer propagates the next one is read ahead.
  const int64_t propagate = layer.source_bytes + inputs + rearranged;
  return kCalibratedProgramBytes +
         std::max(weights + std::max({capture, search, solve + layer.source_bytes, propagate}),
                  VerifyBytes(plan, ranks));
}

// On the device, beside the activations between layers.
int64_t DeviceBytes(const Plan& plan, const CalibrationExtent& extent) {
  const LayerSizes layer = LargestLayer(plan, extent);
  const int64_t hidden = plan.model->hidden_size;
  const int64_t compute_size = plan.compute_dtype == ComputeDType::kBFloat16 ? 2 : 4;
  // The layer, and the next one as it is stored.
  const int64_t weights = layer.weights * compute_size + layer.source_bytes;
  const int64_t tokens = kDevicePackTokens + extent.longest;
  const int64_t in_flight =
      tokens *
      ((layer.input_features + 6 * hidden + 4 * plan.model->intermediate_size) * compute_size +
       3 * hidden * 4);
  const int64_t totals = layer.hessian_elements / 2 * 8;
  const int64_t capture = totals + layer.hessian_elements / 2 * 4 + in_flight;
  // The Hessian, its reversed copy, the factor, and one more while they are copied; the
  // weight as float32, as it is stored, and its blocks' errors.
  const int64_t solve =
      totals + 4 * layer.largest_input * layer.largest_input * 4 + 3 * layer.largest_weight * 4;
  const int64_t search = totals + in_flight + layer.candidate_bytes;
  return kDeviceLibraryBytes + weights + std::max({capture, solve, search});
}

// On the host of a rank that computes on a device: a layer on its way there, as it is
// rewritten, solved and packed.
int64_t HostBytesBesideDevice(const Plan& plan, const CalibrationExtent& extent,
                              const Ranks& ranks) {
  const LayerSizes layer = LargestLayer(plan, extent);
  const int64_t layers = 3 * layer.source_bytes + layer.weights + layer.rewritten_bytes +
                         layer.channel_bytes + layer.candidate_bytes;
  // Pinned, for the largest weight on its way.
  const int64_t staging = layer.largest_weight * 4;
  return kCalibratedProgramBytes + staging + kCudaProgramBytes +
         std::max(layers, VerifyBytes(plan, ranks));
}

double MatrixProductFlops(const Plan& plan, const CalibrationExtent& extent) {
  if (!plan.calibrated) return 0;
  double flops = 0;
  for (const WorkUnit& unit : plan.units) {
    if (unit.first_layer < 0) continue;
    const LayerSizes layer = SizesOfLayer(plan, unit, extent);
    const double tokens = static_cast<double>(extent.num_tokens);
    flops += tokens * (4.0 * static_cast<double>(layer.weights) +
                       static_cast<double>(layer.hessian_elements) + layer.search_flops);
    flops += layer.solve_flops;
  }
  return flops;
}

int64_t PhysicalMemoryBytes() {
  return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
}

// Free bytes of the file system that will hold `path`, which need not exist yet.
int64_t FreeDiskBytes(std::filesystem::path path) {
  std::error_code ignored;
  path = std::filesystem::absolute(path, ignored);
  while (!path.empty() && !std::filesystem::exists(path, ignored) && path != path.root_path()) {
    path = path.parent_path();
  }
  struct statvfs stat {};
  if (statvfs(path.c_str(), &stat) != 0) return INT64_MAX;
  return static_cast<int64_t>(stat.f_bavail) * static_cast<int64_t>(stat.f_frsize);
}

// Of the room that the budget leaves on a device: all activations, or as many as fit
// beside the packs of the others that are in flight.
void PlaceActivations(const Plan& plan, const CalibrationExtent& extent, Estimate& estimate) {
  const int64_t stored_size =
      plan.source->Find(plan.model->embedding_name + ".weight")->spec.dtype == DType::kBF16 ? 2 : 4;
  const int64_t compute_size = plan.compute_dtype == ComputeDType::kBFloat16 ? 2 : 4;
  estimate.device_pack_bytes =
      (kDevicePackTokens + extent.longest) * plan.model->hidden_size * (stored_size + compute_size);
  const int64_t room = std::max<int64_t>(
      0, estimate.device_budget_bytes.value_or(INT64_MAX) - estimate.device_memory_bytes);
  if (room < estimate.activation_bytes) {
    // Activations that stay save copies, so that they have at least half.
    const int64_t more = std::min(kMostPacksInFlight - 1, room / 2 / estimate.device_pack_bytes);
    estimate.device_packs_in_flight = 1 + more;
    estimate.device_activation_bytes = room - more * estimate.device_pack_bytes;
  } else {
    estimate.device_activation_bytes = estimate.activation_bytes;
  }
}

}  // namespace

CalibrationExtent ExtentFromFlags(const Job& job) {
  return {job.num_calibration_samples, job.num_calibration_samples * job.max_seq_length,
          job.max_seq_length};
}

Estimate EstimatePlan(const Plan& plan, const CalibrationExtent& extent, const Ranks& ranks,
                      std::optional<int64_t> budget_bytes,
                      std::optional<int64_t> device_budget_bytes) {
  Estimate estimate;
  estimate.output_bytes = plan.layout.total_file_bytes();
  estimate.min_memory_bytes = !plan.calibrated ? DataFreeBytes(plan, ranks)
                              : plan.on_device ? HostBytesBesideDevice(plan, extent, ranks)
                                               : CalibratedBytes(plan, extent, ranks);
  if (plan.calibrated) {
    const int64_t share = (extent.num_tokens + ranks.world_size - 1) / ranks.world_size;
    const PlannedModule* embedding = plan.Find(plan.model->embedding_name);
    const bool narrow = embedding != nullptr && embedding->source.dtype == DType::kBF16;
    estimate.activation_bytes = share * plan.model->hidden_size * (narrow ? 2 : 4);
  }
  if (plan.on_device) {
    estimate.device_memory_bytes = DeviceBytes(plan, extent);
    estimate.device_budget_bytes = device_budget_bytes;
    PlaceActivations(plan, extent, estimate);
  }
  const int64_t on_host = estimate.activation_bytes - estimate.device_activation_bytes;
  estimate.peak_memory_bytes = estimate.min_memory_bytes + on_host;
  if (budget_bytes && estimate.peak_memory_bytes > *budget_bytes) {
    estimate.spilled_bytes = std::min(on_host, estimate.peak_memory_bytes - *budget_bytes);
    estimate.peak_memory_bytes -= estimate.spilled_bytes;
  }
  estimate.matrix_product_flops = MatrixProductFlops(plan, extent);
  const double threads = static_cast<double>(ranks.world_size) * ranks.threads_per_rank;
  estimate.seconds = estimate.matrix_product_flops / (kAssumedFlopsPerThread * threads) +
                     static_cast<double>(plan.source->total_bytes() + estimate.output_bytes) /
                         kAssumedDiskBytesPerSecond;
  return estimate;
}

std::map<std::string, std::string> JobFingerprint(const Job& job, const Plan& plan,
                                                  absl::string_view calibration_hash) {
  std::string source = plan.source->config_text();
  for (const CheckpointTensor& tensor : plan.source->tensors()) {
    absl::StrAppend(&source, tensor.spec.name, " ", std::string(SafetensorsName(tensor.spec.dtype)),
                    " ", ShapeString(tensor.spec.shape), " ", tensor.file, " ", tensor.offset,
                    "\n");
  }
  for (const std::string& shard : plan.source->shards()) {
    std::error_code ignored;
    const auto time = std::filesystem::last_write_time(plan.source->dir() / shard, ignored);
    absl::StrAppend(&source, shard, " ", time.time_since_epoch().count(), "\n");
  }
  return {{"recipe", CanonicalText(plan.recipe)},
          {"source", ContentHash(absl::string_view(source))},
          {"calibration", std::string(calibration_hash)},
          {"llmc_version", std::string(kVersion)},
          {"device", job.device == "cuda" ? "cuda" : "cpu"},
          {"compute_dtype", plan.compute_dtype == ComputeDType::kBFloat16 ? "bfloat16" : "float32"},
          {"quotient_rounding",
           job.quotient_rounding == QuotientRounding::kFloat32 ? "float32" : "model-dtype"},
          {"layout", plan.layout.Hash()}};
}

absl::Status CheckResources(const Job& job, const Estimate& estimate, const Ranks& ranks) {
  const int64_t floor = estimate.peak_memory_bytes;
  if (job.memory_budget_bytes && floor > *job.memory_budget_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("--memory-budget: ", FormatByteSize(*job.memory_budget_bytes),
                     " a rank, expected at least ", FormatByteSize(estimate.min_memory_bytes), " (",
                     FormatByteSize(floor - *job.memory_budget_bytes), " is missing)"));
  }
  if (estimate.device_budget_bytes &&
      estimate.device_memory_bytes > *estimate.device_budget_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "device memory: ", FormatByteSize(*estimate.device_budget_bytes), " a rank, expected at ",
        "least ", FormatByteSize(estimate.device_memory_bytes), " beside the activations"));
  }
  const int64_t host = PhysicalMemoryBytes();
  if (!job.memory_budget_bytes && floor * ranks.world_size > host) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "memory: ", ranks.world_size, " rank(s) need ", FormatByteSize(floor * ranks.world_size),
        ", this host has ", FormatByteSize(host), " (",
        FormatByteSize(floor * ranks.world_size - host),
        " is missing); --memory-budget spills activations to disk, fewer samples need less"));
  }
  const int64_t needed = estimate.output_bytes + (int64_t{64} << 20);
  const int64_t free = FreeDiskBytes(job.output);
  if (needed > free) {
    return absl::ResourceExhaustedError(absl::StrCat(
        job.output, ": the output needs ", FormatByteSize(needed), " of disk, ",
        FormatByteSize(free), " is free (", FormatByteSize(needed - free), " is missing)"));
  }
  return absl::OkStatus();
}

}  // namespace llmc
