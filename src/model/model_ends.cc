#include "model/model_ends.h"

#include <utility>

#include "ATen/ops/empty.h"
#include "ATen/ops/linear.h"
#include "absl/strings/str_cat.h"
#include "model/rms_norm.h"
#include "model/torch_tensor.h"

namespace llmc {
namespace {

absl::StatusOr<at::Tensor> ReadAs(const WeightReader& reader, const std::string& name,
                                  const Shape& shape) {
  LLMC_ASSIGN_OR_RETURN(HostTensor tensor, reader(name));
  if (tensor.shape() != shape || !IsDenseFloat(tensor.dtype())) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": ", SafetensorsName(tensor.dtype()), " ", ShapeString(tensor.shape()),
                     ", expected F64, F32, F16 or BF16 ", ShapeString(shape)));
  }
  return ToTorch(std::move(tensor));
}

}  // namespace

Embedding::Embedding(at::Tensor table, LayerPlacement placement)
    : table_(std::move(table)), placement_(std::move(placement)) {}

absl::StatusOr<Embedding> Embedding::Load(const ModelSpec& spec, const WeightReader& reader,
                                          const LayerPlacement& placement) {
  LLMC_ASSIGN_OR_RETURN(at::Tensor table, ReadAs(reader, spec.embedding_name + ".weight",
                                                 {spec.vocab_size, spec.hidden_size}));
  return Embedding(std::move(table), placement);
}

absl::StatusOr<at::Tensor> Embedding::Embed(std::span<const int32_t> ids) const {
  for (const int32_t id : ids) {
    if (id < 0 || id >= table_.size(0)) {
      return absl::InvalidArgumentError(
          absl::StrCat("input_ids: ", id, ", expected an id below vocab_size, ", table_.size(0)));
    }
  }
  at::Tensor rows;
  LLMC_RETURN_IF_ERROR(CatchTorch("embedding", [&] {
    at::Tensor index = at::empty({static_cast<int64_t>(ids.size())}, at::kInt);
    std::copy(ids.begin(), ids.end(), index.mutable_data_ptr<int32_t>());
    rows = table_.index_select(0, index).to(placement_.device, placement_.dtype);
  }));
  return rows;
}

Head::Head(at::Tensor norm, at::Tensor weight, double eps)
    : norm_(std::move(norm)), weight_(std::move(weight)), eps_(eps) {}

absl::StatusOr<Head> Head::Load(const ModelSpec& spec, const WeightReader& reader,
                                const LayerPlacement& placement) {
  const std::string& name = spec.tie_word_embeddings ? spec.embedding_name : spec.head_name;
  LLMC_ASSIGN_OR_RETURN(at::Tensor norm,
                        ReadAs(reader, spec.final_norm_name + ".weight", {spec.hidden_size}));
  LLMC_ASSIGN_OR_RETURN(at::Tensor weight,
                        ReadAs(reader, name + ".weight", {spec.vocab_size, spec.hidden_size}));
  LLMC_RETURN_IF_ERROR(CatchTorch(name, [&] {
    norm = norm.to(placement.device, placement.dtype);
    weight = weight.to(placement.device, placement.dtype);
  }));
  return Head(std::move(norm), std::move(weight), spec.rms_norm_eps);
}

at::Tensor Head::Norm(const at::Tensor& hidden) const { return RmsNorm(hidden, norm_, eps_); }

at::Tensor Head::Logits(const at::Tensor& normed) const { return at::linear(normed, weight_); }

}  // namespace llmc
