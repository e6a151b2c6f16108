#include "model/weight_source.h"

#include <map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "kernels/compress.h"
#include "kernels/sparse_packing.h"
#include "nlohmann/json.hpp"

namespace llmc {
namespace {

// True when every rotation is already in the weights.
bool RotatesAtRunTime(const nlohmann::json& transform_config) {
  const auto groups = transform_config.find("config_groups");
  if (groups == transform_config.end() || !groups->is_object()) return false;
  for (const nlohmann::json& group : *groups) {
    if (!group.is_object() || !group.contains("apply")) continue;
    for (const nlohmann::json& apply : group.at("apply")) {
      if (!apply.is_object()) continue;
      const nlohmann::json location = apply.value("location", nlohmann::json());
      if (location != "weight_input" && location != "weight_output") return true;
    }
  }
  return false;
}

// Stored tensors of one module, read when first asked for. A weight whose zeros are
// left out is unpacked.
class ModuleTensors {
 public:
  ModuleTensors(const Checkpoint& checkpoint, std::string module, SparseFormat sparse_format)
      : checkpoint_(checkpoint), module_(std::move(module)), sparse_format_(sparse_format) {}

  const TensorView* Find(absl::string_view suffix) {
    const auto [it, added] = loaded_.try_emplace(std::string(suffix));
    if (added) Load(it->first, it->second);
    return it->second.found ? &it->second.view : nullptr;
  }

  const absl::Status& status() const { return status_; }

 private:
  struct Loaded {
    bool found = false;
    HostTensor tensor;
    TensorView view;
  };

  void Load(const std::string& suffix, Loaded& loaded) {
    const std::string name = absl::StrCat(module_, ".", suffix);
    const bool is_packed = suffix == "weight" && sparse_format_ != SparseFormat::kDense &&
                           checkpoint_.Contains(absl::StrCat(module_, ".compressed"));
    if (!is_packed && !checkpoint_.Contains(name)) return;
    absl::StatusOr<HostTensor> tensor =
        is_packed ? kernels::UnpackSparse([this](absl::string_view part) { return Find(part); },
                                          sparse_format_)
                  : checkpoint_.Read(name);
    if (!tensor.ok()) {
      status_.Update(tensor.status());
      return;
    }
    loaded.found = true;
    loaded.tensor = *std::move(tensor);
    loaded.view = loaded.tensor.view();
  }

  const Checkpoint& checkpoint_;
  const std::string module_;
  const SparseFormat sparse_format_;
  std::map<std::string, Loaded> loaded_;
  absl::Status status_;
};

// True for versions of compressed-tensors before 0.18; false when not told.
bool HasPaddedPacking(absl::string_view version) {
  const std::vector<absl::string_view> parts = absl::StrSplit(version, '.');
  int major = 0;
  int minor = 0;
  return parts.size() >= 2 && absl::SimpleAtoi(parts[0], &major) &&
         absl::SimpleAtoi(parts[1], &minor) && major == 0 && minor < 18;
}

std::vector<TensorSpec> SpecsOf(const Checkpoint& checkpoint) {
  std::vector<TensorSpec> specs;
  for (const CheckpointTensor& tensor : checkpoint.tensors()) specs.push_back(tensor.spec);
  return specs;
}

}  // namespace

WeightSource::WeightSource(std::shared_ptr<const Checkpoint> checkpoint, const ModelSpec& spec)
    : checkpoint_(std::move(checkpoint)), spec_(spec) {}

absl::StatusOr<std::shared_ptr<const WeightSource>> WeightSource::Open(
    std::shared_ptr<const Checkpoint> checkpoint, const ModelSpec& spec) {
  std::shared_ptr<WeightSource> source(new WeightSource(std::move(checkpoint), spec));
  const nlohmann::json* config = FindQuantizationConfig(source->checkpoint_->config());
  if (config == nullptr) {
    LLMC_RETURN_IF_ERROR(CheckTensors(spec, SpecsOf(*source->checkpoint_)));
  } else if (config->is_object() && config->value("quant_method", nlohmann::json()) == "fp8") {
    LLMC_RETURN_IF_ERROR(source->AddFp8Block(*config));
  } else {
    LLMC_ASSIGN_OR_RETURN(source->quantization_, QuantizationConfig::FromJson(*config));
    if (RotatesAtRunTime(source->quantization_->transform_config())) {
      return absl::UnimplementedError(
          "config.json: transform_config: rotates activations at run time, expected rotations "
          "of weights only");
    }
    LLMC_RETURN_IF_ERROR(source->FindSchemes());
  }
  return source;
}

absl::Status WeightSource::FindSchemes() {
  for (const ModuleSpec& module : Modules(spec_)) {
    if (module.weight_shape.size() != 2) continue;
    if (module.role == Role::kHead && spec_.tie_word_embeddings) continue;
    LLMC_ASSIGN_OR_RETURN(const ConfigGroup* group,
                          quantization_->GroupOf(module.name, module.class_name));
    if (group == nullptr) continue;
    compressed_[module.name] = {group->scheme, module.weight_shape};
  }
  return absl::OkStatus();
}

absl::Status WeightSource::AddFp8Block(const nlohmann::json& config) {
  const nlohmann::json size = config.value("weight_block_size", nlohmann::json());
  if (!size.is_array() || size.size() != 2 || !size[0].is_number_unsigned() ||
      !size[1].is_number_unsigned() || size[0] == 0 || size[1] == 0) {
    return absl::UnimplementedError(absl::StrCat(
        "config.json: quantization_config: weight_block_size: ", size.dump().substr(0, 40),
        ", expected two positive numbers with quant_method fp8"));
  }
  QuantizationArgs args;
  args.type = NumberType::kFloat;
  args.strategy = Strategy::kBlock;
  args.block_structure = {{size[0].get<int64_t>(), size[1].get<int64_t>()}};
  QuantizationArgs input;
  input.type = NumberType::kFloat;
  input.strategy = Strategy::kGroup;
  input.group_size = size[1].get<int64_t>();
  input.dynamic = Dynamic::kTrue;
  for (const ModuleSpec& module : Modules(spec_)) {
    if (!checkpoint_->Contains(module.name + ".weight_scale_inv")) continue;
    compressed_[module.name] = {Scheme{args, input, std::nullopt, Format::kFloatQuantized},
                                module.weight_shape};
  }
  return absl::OkStatus();
}

absl::StatusOr<HostTensor> WeightSource::Decompress(const std::string& module,
                                                    const CompressedModule& compressed) const {
  ModuleTensors tensors(*checkpoint_, module, sparse_format());
  kernels::DecompressOptions options(spec_.dtype.value_or(DType::kBF16));
  options.padded_packing = quantization_ && HasPaddedPacking(quantization_->version());
  absl::StatusOr<HostTensor> dense = kernels::DecompressWeight(
      [&tensors](absl::string_view suffix) { return tensors.Find(suffix); },
      *compressed.scheme.weights, compressed.scheme.format, compressed.shape, options);
  LLMC_RETURN_IF_ERROR(tensors.status());
  if (!dense.ok()) return At(module, dense.status());
  return dense;
}

SparseFormat WeightSource::sparse_format() const {
  return quantization_ ? quantization_->sparse_format() : SparseFormat::kDense;
}

absl::StatusOr<HostTensor> WeightSource::ReadSparse(const std::string& module) const {
  ModuleTensors tensors(*checkpoint_, module, sparse_format());
  absl::StatusOr<HostTensor> weight = kernels::UnpackSparse(
      [&tensors](absl::string_view suffix) { return tensors.Find(suffix); }, sparse_format());
  LLMC_RETURN_IF_ERROR(tensors.status());
  if (!weight.ok()) return At(module, weight.status());
  return weight;
}

absl::StatusOr<HostTensor> WeightSource::Read(const std::string& tensor_name) const {
  absl::string_view module = tensor_name;
  if (absl::ConsumeSuffix(&module, ".weight")) {
    const auto it = compressed_.find(std::string(module));
    const bool has_weights = it != compressed_.end() && it->second.scheme.weights &&
                             it->second.scheme.format != Format::kDense;
    // Fake-quantised checkpoints ("frozen") hold the dense weight itself.
    const CheckpointTensor* stored = checkpoint_->Find(tensor_name);
    if (has_weights && (stored == nullptr || !IsDenseFloat(stored->spec.dtype))) {
      return Decompress(it->first, it->second);
    }
    if (stored == nullptr && sparse_format() != SparseFormat::kDense) {
      return ReadSparse(std::string(module));
    }
  }
  return checkpoint_->Read(tensor_name);
}

WeightReader WeightSource::Reader(std::shared_ptr<const WeightSource> source) {
  return [source = std::move(source)](const std::string& name) { return source->Read(name); };
}

const Scheme* WeightSource::SchemeOf(const std::string& module) const {
  const auto it = compressed_.find(module);
  return it == compressed_.end() ? nullptr : &it->second.scheme;
}

}  // namespace llmc
