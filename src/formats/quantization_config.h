// The quantization_config object of config.json: written for new checkpoints,
// read from existing ones.
#ifndef LLMC_FORMATS_QUANTIZATION_CONFIG_H_
#define LLMC_FORMATS_QUANTIZATION_CONFIG_H_

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "formats/target.h"
#include "llmc/scheme.h"
#include "llmc/status.h"

namespace llmc {

// The version of compressed-tensors whose layout llmc writes.
inline constexpr absl::string_view kCompressedTensorsVersion = "0.19.0";

// One module of the written model.
struct ConfigModule {
  std::string name;                  // Checkpoint name, without ".weight".
  std::string class_name;            // "Linear", "Embedding", "LlamaRMSNorm", a router class, ...
  std::optional<Scheme> scheme;      // Empty: stays dense.
  std::vector<std::string> targets;  // Of the recipe's group that gave the scheme.
};

struct ConfigContents {
  // In module order of the model (embeddings, layers, norm, lm_head). All modules
  // whose class may be targeted must be here, or they are missing in `ignore`.
  std::vector<ConfigModule> modules;
  std::optional<QuantizationArgs> kv_cache_scheme;
  nlohmann::json transform_config = nlohmann::json::object();
};

// The object that the reference writes for such a model: groups are the distinct
// (targets, scheme) pairs in order of first appearance, named group_0, group_1,
// ...; `ignore` lists by full name every dense module of a class that is quantised
// somewhere, grouped by class in order of first appearance; `format` is the one
// format used, mixed-precision for several, dense for none. Null when nothing is
// quantised and there is no KV scheme.
//
// Where the user's targets would make a client give a module another scheme than
// its own (two modifiers that both target Linear), the targets of all groups are
// replaced by exact names.
absl::StatusOr<nlohmann::json> QuantizationConfigJson(const ConfigContents& contents);

// One group of an existing config.
struct ConfigGroup {
  std::string name;
  std::vector<std::string> targets;
  Scheme scheme;           // `format`: the group's, else the top-level one, else inferred.
  bool has_g_idx = false;  // actorder "group" of versions up to 0.18: weight_g_idx is stored.
};

// The config of an existing checkpoint, old spellings included. Immutable.
class QuantizationConfig {
 public:
  // Missing keys take their historical meaning (NVFP4 without scale_dtype: fp8
  // scales; MXFP4: exponents). kInvalidArgument: damaged or contradictory.
  // kUnimplemented: another quant_method, the marlin-24 layout.
  static absl::StatusOr<QuantizationConfig> FromJson(const nlohmann::json& json);

  // The group that a module falls in by the client's rules, null when it is dense
  // (ignored or not targeted). Owned by this object. Ask for modules with a weight:
  // a pattern such as "re:.*mlp.*" also matches containers.
  absl::StatusOr<const ConfigGroup*> GroupOf(absl::string_view name,
                                             absl::string_view class_name) const;

  const std::vector<ConfigGroup>& groups() const { return groups_; }
  const std::vector<std::string>& ignore() const { return ignore_; }
  const std::optional<QuantizationArgs>& kv_cache_scheme() const { return kv_cache_scheme_; }
  const std::string& format() const { return format_; }    // "mixed-precision" possible.
  const std::string& version() const { return version_; }  // "" in old files.
  // False for checkpoints of fake-quantised dense weights (status "frozen").
  bool is_compressed() const { return is_compressed_; }
  const nlohmann::json& transform_config() const { return transform_config_; }
  // Layout of the weights that `<module>.compressed` tensors stand for.
  SparseFormat sparse_format() const { return sparse_format_; }

 private:
  std::vector<ConfigGroup> groups_;
  std::vector<std::string> ignore_;
  TargetSet targets_, ignore_targets_;
  std::optional<QuantizationArgs> kv_cache_scheme_;
  std::string format_, version_;
  bool is_compressed_ = true;
  nlohmann::json transform_config_ = nlohmann::json::object();
  SparseFormat sparse_format_ = SparseFormat::kDense;

  friend class QuantizationConfigReader;
};

// What sparsity_config says of a checkpoint in a layout without zeros.
struct SparsityContents {
  SparseFormat format = SparseFormat::kSparse24Bitmask;
  std::vector<std::string> ignore;  // Linears that are stored as they are.
  double global_sparsity = 0;       // Fraction of all weights that is 0.
};

// `quantization_config` (null: the model is not quantised) with the sparsity_config of
// compressed-tensors 0.14 in it.
nlohmann::json WithSparsityConfig(nlohmann::json quantization_config,
                                  const SparsityContents& contents);

// The quantization_config inside a config.json (also under the old key
// compression_config and inside text_config), null when the model is dense.
const nlohmann::json* FindQuantizationConfig(const nlohmann::json& config);

}  // namespace llmc

#endif  // LLMC_FORMATS_QUANTIZATION_CONFIG_H_
