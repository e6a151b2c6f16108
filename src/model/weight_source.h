// Dense weights of a checkpoint of any kind: dense, compressed-tensors, FP8 block.
#ifndef LLMC_MODEL_WEIGHT_SOURCE_H_
#define LLMC_MODEL_WEIGHT_SOURCE_H_

#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

#include "architecture/model_spec.h"
#include "architecture/module_spec.h"
#include "checkpoint/checkpoint.h"
#include "formats/quantization_config.h"
#include "llmc/scheme.h"
#include "llmc/status.h"
#include "model/decoder_layer.h"

namespace llmc {

// Immutable, safe from any number of threads.
class WeightSource {
 public:
  // Reads the quantization_config of `checkpoint`, if it has one: that of
  // compressed-tensors, or `quant_method` "fp8" with `weight_block_size`.
  // kInvalidArgument when it is damaged, or when a dense checkpoint's tensors do not
  // fit `spec`; kUnimplemented for another method or for weights that only work
  // with rotations at run time.
  static absl::StatusOr<std::shared_ptr<const WeightSource>> Open(
      std::shared_ptr<const Checkpoint> checkpoint, const ModelSpec& spec);

  // The tensor as the model multiplies it. A compressed module's ".weight" is
  // decompressed to the model's dtype (`dtype` of config.json, else BF16); other
  // tensors come as they are stored.
  absl::StatusOr<HostTensor> Read(const std::string& tensor_name) const;

  // Read as a function; it keeps `source` alive.
  static WeightReader Reader(std::shared_ptr<const WeightSource> source);

  // The scheme of a module, null when it is dense.
  const Scheme* SchemeOf(const std::string& module) const;
  // Null when the checkpoint is dense.
  const std::optional<QuantizationConfig>& quantization() const { return quantization_; }
  const Checkpoint& checkpoint() const { return *checkpoint_; }
  const ModelSpec& spec() const { return spec_; }

 private:
  struct CompressedModule {
    Scheme scheme;
    Shape shape;  // [out_features, in_features]
  };

  WeightSource(std::shared_ptr<const Checkpoint> checkpoint, const ModelSpec& spec);
  absl::Status FindSchemes();
  SparseFormat sparse_format() const;
  absl::StatusOr<HostTensor> ReadSparse(const std::string& module) const;
  absl::Status AddFp8Block(const nlohmann::json& config);
  absl::StatusOr<HostTensor> Decompress(const std::string& module,
                                        const CompressedModule& compressed) const;

  std::shared_ptr<const Checkpoint> checkpoint_;
  const ModelSpec spec_;
  std::optional<QuantizationConfig> quantization_;
  std::unordered_map<std::string, CompressedModule> compressed_;  // By module name.
};

}  // namespace llmc

#endif  // LLMC_MODEL_WEIGHT_SOURCE_H_
