// What a job will do to each tensor, and what that needs: a pure function of the
// job, the source's headers and the recipe.
#ifndef LLMC_PLAN_PLAN_H_
#define LLMC_PLAN_PLAN_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "architecture/model_spec.h"
#include "architecture/module_spec.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/output_layout.h"
#include "llmc/scheme.h"
#include "llmc/status.h"
#include "nlohmann/json.hpp"
#include "plan/job.h"
#include "plan/statistics_need.h"
#include "recipe/recipe.h"

namespace llmc {

// Weights are read, rounded and written in slices of about this size where the
// scheme's scales allow it.
inline constexpr int64_t kSliceBytes = int64_t{32} << 20;

// AWQ holds candidates of a layer's weights up to this at a time, one at least.
inline constexpr int64_t kAwqCandidateBytes = int64_t{1} << 30;

// Bytes of a weight on which data-free jobs measure the reported rounding error.
inline constexpr int64_t kErrorSampleBytes = int64_t{4} << 20;

// How a module's weight becomes codes. kActivations: it stays dense, and the
// scales of its static activations are stored beside it.
enum class Method : uint8_t { kCopy, kActivations, kRoundToNearest, kGptq };

// "copy", "scales", "RTN", "GPTQ".
absl::string_view MethodName(Method method);

// One Linear or Embedding of the model.
struct PlannedModule {
  ModuleSpec module;
  TensorSpec source;  // The dense weight in the checkpoint.
  Method method = Method::kCopy;
  int modifier = -1;  // Index into the recipe's modifiers; -1: none.
  std::optional<Scheme> scheme;
  std::vector<std::string> targets;  // Of the recipe's group, for quantization_config.
  std::vector<TensorSpec> stored;    // Full names; what the output holds instead.
  std::string why;                   // "target Linear", "ignored by lm_head", ...
  // A modifier before the one that quantises prunes it, or says that its zeros stay.
  bool keeps_zeros = false;

  bool is_quantized() const { return method != Method::kCopy; }
};

// An attention module whose key-value cache is quantised.
struct PlannedAttention {
  std::string name;  // "model.layers.0.self_attn"
  std::string class_name;
  int64_t layer = -1;
  QuantizationArgs args;
  // A group of the recipe targets the module itself: queries are quantised too.
  std::optional<Scheme> scheme;
  std::vector<std::string> targets;  // Of that group.
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  std::vector<TensorSpec> stored;  // Full names: k_scale, v_scale, q_scale, ...
  std::string why;
};

// One rewrite of dense weights, before they are stored or quantised.
struct PlannedTransform {
  int modifier = -1;    // Index into the recipe's modifiers.
  int64_t layer = -1;   // -1 outside the layers.
  std::string subject;  // For people: "input_layernorm -> q_proj, k_proj, v_proj".
  std::string why;      // "family default", "mappings, line 7", "target Linear", ...
  std::optional<SmoothMapping> smoothing;  // What a smoothing works on.
  std::string module;                      // What a pruning works on.
  double sparsity = 0;                     // How far it prunes; with OWL, on average.
  std::vector<std::string> tensors;        // Source tensors that it rewrites.
  // The layer computes the same function afterwards, but for rounding. Propagation
  // relies on it, see ChangesOutput.
  bool keeps_function = false;
  bool reads_samples = false;  // Runs the samples through the layer once more.
  // A GPTQ after it factors the same Hessian with the same damping and column order.
  bool keeps_factor = false;
  Needs needs;  // By input group.
};

// Work that is finished, made durable and resumed as one.
struct WorkUnit {
  std::string name;          // "layer-00003", "layers-00000-00007", "outside".
  int64_t first_layer = -1;  // -1: the tensors outside the layers.
  int64_t num_layers = 0;
  std::vector<int> modules;         // Indices of quantised modules.
  std::vector<int> attentions;      // Indices of attention modules with scales.
  std::vector<std::string> copies;  // Source tensors that stay as they are.
  std::vector<std::string>
      rewritten;                // Source tensors that a transform changes and that stay dense.
  std::vector<int> transforms;  // Indices into Plan::transforms, in the recipe's order.

  // Names of all output tensors of the unit.
  std::vector<std::string> tensors;
};

// How much calibration text there is. Before it was tokenised, `llmc plan`
// assumes that every sample is as long as it may be.
struct CalibrationExtent {
  int64_t num_samples = 0;
  int64_t num_tokens = 0;
  int64_t longest = 0;  // Tokens of the longest sample.
};

// Where the job runs.
struct Ranks {
  int world_size = 1;
  int threads_per_rank = 1;
};

// Bytes and seconds, computed before any work.
struct Estimate {
  int64_t peak_memory_bytes = 0;  // Resident memory of one rank, activations kept in memory.
  int64_t min_memory_bytes = 0;   // The same with all activations spilled.
  int64_t activation_bytes = 0;   // Of one rank.
  int64_t spilled_bytes = 0;      // Of one rank, under the budget.
  // On the CUDA device of one rank; 0 without one. Beside its activations: a layer and the
  // next one's weights, statistics, what is in flight, solving.
  int64_t device_memory_bytes = 0;
  int64_t device_activation_bytes = 0;  // Of activation_bytes; the others stay on the host.
  // Packs whose hidden states may be on their way to the device, in use there or on their
  // way back, beside those that stay; memory for all but one is left free.
  int64_t device_packs_in_flight = 1;
  int64_t device_pack_bytes = 0;  // Of one such pack, in and out.
  std::optional<int64_t> device_budget_bytes;
  int64_t output_bytes = 0;         // Of the weight files.
  double matrix_product_flops = 0;  // Of the whole job.
  double seconds = 0;               // At kAssumedFlopsPerThread and kAssumedDiskBytesPerSecond.
};

struct Plan {
  std::shared_ptr<const Checkpoint> source;
  std::optional<ModelSpec> model;  // None: a family llmc does not know, data-free only.
  Recipe recipe;
  bool calibrated = false;         // Needs data: Capture, Reduce, Solve, Propagate per layer.
  std::string calibration_reason;  // Why, for messages.
  ComputeDType compute_dtype = ComputeDType::kFloat32;  // Never kAuto.
  std::vector<PlannedModule> modules;        // Every Linear and Embedding, in module order.
  std::vector<PlannedAttention> attentions;  // In layer order.
  std::vector<PlannedTransform> transforms;  // In the recipe's order, then by layer.
  std::vector<WorkUnit> units;               // In the order of work.
  OutputLayout layout;
  std::string config_json;  // config.json of the output.
  bool unties_embeddings = false;
  // The job's, else the recipe's. Anything but kDense packs the finished output.
  SparseFormat sparse_format = SparseFormat::kDense;
  bool on_device = false;  // Layers are computed on a CUDA device (Job::device is "cuda").
  std::optional<QuantizationArgs> kv_cache_scheme;
  std::vector<std::string> warnings;

  const PlannedModule* Find(absl::string_view module) const;  // Null when absent.
};

// What a pruning is called in reports: "SparseGPT", "Wanda", "magnitude"; "" for other
// modifiers.
std::string PruningMethodName(const Modifier& modifier);

// Reads config.json and headers only, so it answers in milliseconds.
// kNotFound: no model, no recipe. kInvalidArgument: a broken source or recipe, a
// scheme that does not fit a weight (all of them are listed). kUnimplemented: a
// calibrated recipe on an unknown family, a source that is already quantised.
absl::StatusOr<Plan> MakePlan(const Job& job);

// The most that the job's flags allow, before text was read.
CalibrationExtent ExtentFromFlags(const Job& job);

// Pure. `budget_bytes`: Job::memory_budget_bytes. `device_budget_bytes`: what one rank may
// take of its device; unknown: as much as the plan wants.
Estimate EstimatePlan(const Plan& plan, const CalibrationExtent& extent, const Ranks& ranks,
                      std::optional<int64_t> budget_bytes,
                      std::optional<int64_t> device_budget_bytes = std::nullopt);

// What fixes the output's bytes; a resume needs all of it equal.
std::map<std::string, std::string> JobFingerprint(const Job& job, const Plan& plan,
                                                  absl::string_view calibration_hash);

// kResourceExhausted, saying how much is missing, when a budget, the memory of
// the host or the disk under `output` is too small.
absl::Status CheckResources(const Job& job, const Estimate& estimate, const Ranks& ranks);

// A table of what happens to each tensor and why, then memory, disk and time.
std::string ToTable(const Plan& plan, const Estimate& estimate);
nlohmann::json ToJson(const Plan& plan, const Estimate& estimate);

// "W4A16 g128 asym", for tables and reports.
std::string SchemeSummary(const Scheme& scheme);

}  // namespace llmc

#endif  // LLMC_PLAN_PLAN_H_
