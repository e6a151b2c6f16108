// The modules of a checkpoint under verification, and the tensors that its
// config promises for each.
#ifndef LLMC_VERIFY_MODULE_TABLE_H_
#define LLMC_VERIFY_MODULE_TABLE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "formats/quantization_config.h"
#include "formats/stored_tensors.h"
#include "llmc/tensor.h"
#include "verify/findings.h"

namespace llmc {

// What is verified, and against what.
struct Subject {
  std::shared_ptr<const Checkpoint> output;
  std::shared_ptr<const Checkpoint> dense;   // Null: nothing to compare with.
  std::optional<QuantizationConfig> config;  // None: a dense checkpoint.
  nlohmann::json manifest;                   // llmc_manifest.json; null: none.
  // The recipe scaled, rotated or pruned weights: dense tensors may differ from
  // the source, and dequantised weights are not near it.
  bool weights_transformed = false;
};

// Where the dense weight of a module lies in the source: a whole tensor, or rows
// [first_row, first_row + R) of matrix `expert` of a fused [E, rows, C] one.
struct DenseSource {
  std::string tensor;  // "": not there.
  int64_t expert = -1;
  int64_t first_row = 0;
};

// A Linear or Embedding whose weight is quantised.
struct QuantizedModule {
  std::string name;
  Shape shape;                         // Of the dense weight, [R, C].
  const ConfigGroup* group = nullptr;  // With weights. Owned by the Subject's config.
  std::vector<StoredTensorSpec> stored;
  DenseSource source;
};

struct ModuleTable {
  std::vector<QuantizedModule> quantized;      // By name.
  std::vector<std::string> sparse;             // Modules whose weight is stored without zeros.
  std::map<std::string, TensorSpec> required;  // Full name -> what must be stored.
  std::set<std::string> allowed;               // May be stored too, in any form.
  // Stored and source names of tensors that are neither quantised nor new.
  std::vector<std::string> untouched;
};

// The groups of `subject.config` resolved over the modules: those of the source
// where there is one, else of the family that config.json names, else guessed
// from the stored names. Schemes that do not fit a module are findings.
ModuleTable MakeModuleTable(const Subject& subject, Findings& findings);

// The part after the last '.' when it is one that compressed checkpoints add
// ("weight_scale", "k_scale", ...), else "".
absl::string_view QuantizationSuffix(absl::string_view tensor_name);

// The whole weight of a module of `table.sparse`.
absl::StatusOr<HostTensor> ReadSparseWeight(const Subject& subject, const std::string& module);

// Shape of the dense weight that a module's stored tensors stand for, empty when
// there is none: of `weight`, else of weight_packed with the bits of `args`.
Shape StoredWeightShape(const Checkpoint& checkpoint, const std::string& module,
                        const QuantizationArgs* args);

}  // namespace llmc

#endif  // LLMC_VERIFY_MODULE_TABLE_H_
