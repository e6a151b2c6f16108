#include "pipeline/sparse_repack.h"

#include <algorithm>
#include <memory>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/strict_json.h"
#include "formats/names.h"
#include "formats/quantization_config.h"
#include "kernels/sparse_packing.h"

namespace llmc {
namespace {

constexpr JsonLimits kManifestLimits{512 << 20, 32};
constexpr const char* kUnit = "repacked";

Fingerprint FingerprintOf(const RepackRequest& request) {
  Fingerprint fingerprint = request.fingerprint;
  fingerprint["sparse_format"] = std::string(SparseFormatName(request.format));
  return fingerprint;
}

// One output from another.
class Repacker {
 public:
  Repacker(std::shared_ptr<const Checkpoint> source, const RepackRequest& request)
      : source_(std::move(source)), request_(request) {
    for (const std::string& module : request.modules) packed_.insert(module + ".weight");
  }

  absl::Status Run(CommitContents contents) {
    LLMC_RETURN_IF_ERROR(ListTensors());
    LLMC_RETURN_IF_ERROR(OpenWriter());
    if (writer_->committed()) return absl::OkStatus();
    for (const CheckpointTensor& tensor : source_->tensors()) {
      LLMC_RETURN_IF_ERROR(WriteTensor(tensor.spec));
    }
    LLMC_RETURN_IF_ERROR(writer_->Sync());
    DoneUnit unit;
    unit.name = kUnit;
    for (const TensorSpec& spec : tensors_) unit.tensors.push_back(spec.name);
    LLMC_RETURN_IF_ERROR(writer_->MarkDone(unit));
    LLMC_ASSIGN_OR_RETURN(contents.config_json, ConfigJson(contents.config_json));
    return writer_->Commit(contents);
  }

 private:
  bool IsPacked(const std::string& name) const { return packed_.contains(name); }

  absl::StatusOr<std::vector<kernels::StoredTensor>> Pack(const std::string& name) const {
    LLMC_ASSIGN_OR_RETURN(const HostTensor weight, source_->Read(name));
    auto stored = kernels::PackSparse(weight.view(), request_.format);
    if (!stored.ok()) return At(name, stored.status());
    return stored;
  }

  static std::string PartName(const std::string& weight, const std::string& suffix) {
    return absl::StrCat(absl::string_view(weight).substr(0, weight.rfind('.') + 1), suffix);
  }

  // Weights are packed twice, here for their shapes: none is kept in memory.
  absl::Status ListTensors() {
    for (const CheckpointTensor& tensor : source_->tensors()) {
      if (!IsPacked(tensor.spec.name)) {
        tensors_.push_back(tensor.spec);
        continue;
      }
      LLMC_ASSIGN_OR_RETURN(const HostTensor weight, source_->Read(tensor.spec.name));
      num_zeros_ += weight.num_elements() - kernels::CountNonZero(weight.view());
      LLMC_ASSIGN_OR_RETURN(const auto parts, Pack(tensor.spec.name));
      for (const kernels::StoredTensor& part : parts) {
        tensors_.push_back(
            {PartName(tensor.spec.name, part.suffix), part.tensor.dtype(), part.tensor.shape()});
      }
    }
    return absl::OkStatus();
  }

  absl::Status OpenWriter() {
    WriterOptions options;
    options.output_dir = request_.output_dir;
    options.model_dir = source_->dir();
    LLMC_ASSIGN_OR_RETURN(options.layout, OutputLayout::Make(tensors_, request_.max_shard_bytes));
    options.fingerprint = FingerprintOf(request_);
    options.fresh = request_.fresh;
    options.overwrite = request_.fresh;
    LLMC_ASSIGN_OR_RETURN(writer_, CheckpointWriter::Create(std::move(options)));
    return absl::OkStatus();
  }

  absl::Status WriteTensor(const TensorSpec& spec) {
    if (!IsPacked(spec.name)) return writer_->CopyTensor(*source_, spec.name, spec.name).status();
    LLMC_ASSIGN_OR_RETURN(const auto parts, Pack(spec.name));
    for (const kernels::StoredTensor& part : parts) {
      LLMC_RETURN_IF_ERROR(writer_->Write(PartName(spec.name, part.suffix), part.tensor.bytes()));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> ConfigJson(const std::string& dense) const {
    nlohmann::json config = nlohmann::json::parse(dense);
    SparsityContents contents;
    contents.format = request_.format;
    int64_t num_weights = 0;
    for (const CheckpointTensor& tensor : source_->tensors()) {
      const std::string& name = tensor.spec.name;
      num_weights += NumElements(tensor.spec.shape);
      const bool is_linear = absl::EndsWith(name, ".weight") && tensor.spec.shape.size() == 2 &&
                             !absl::StrContains(name, "embed_tokens");
      if (is_linear && !IsPacked(name)) contents.ignore.push_back(name.substr(0, name.rfind('.')));
    }
    contents.global_sparsity = static_cast<double>(num_zeros_) / static_cast<double>(num_weights);
    nlohmann::json quantization = config.value("quantization_config", nlohmann::json());
    config["quantization_config"] = WithSparsityConfig(std::move(quantization), contents);
    return config.dump(2);
  }

  std::shared_ptr<const Checkpoint> source_;
  const RepackRequest& request_;
  std::set<std::string> packed_;
  std::vector<TensorSpec> tensors_;
  std::unique_ptr<CheckpointWriter> writer_;
  int64_t num_zeros_ = 0;
};

}  // namespace

absl::StatusOr<bool> IsRepacked(const RepackRequest& request) {
  std::error_code error;
  if (!std::filesystem::exists(request.output_dir, error) || request.fresh) return false;
  const absl::StatusOr<nlohmann::json> manifest =
      ReadStrictJson(request.output_dir / std::string(kManifestFileName), kManifestLimits);
  const bool is_same = manifest.ok() && manifest->is_object() &&
                       manifest->contains("fingerprint") &&
                       manifest->at("fingerprint") == nlohmann::json(FingerprintOf(request));
  if (is_same) return true;
  return absl::FailedPreconditionError(
      absl::StrCat(request.output_dir.string(),
                   ": exists and was not made by this job, expected no such directory or --fresh"));
}

absl::Status RepackSparse(const std::filesystem::path& unpacked_dir, const RepackRequest& request,
                          const CommitContents& contents) {
  {
    LLMC_ASSIGN_OR_RETURN(std::shared_ptr<const Checkpoint> source, Checkpoint::Open(unpacked_dir));
    LLMC_RETURN_IF_ERROR(Repacker(std::move(source), request).Run(contents));
  }
  std::error_code error;
  std::filesystem::remove_all(unpacked_dir, error);
  return error ? absl::UnavailableError(
                     absl::StrCat(unpacked_dir.string(), ": cannot be removed: ", error.message()))
               : absl::OkStatus();
}

}  // namespace llmc
