#include "pipeline/layer_tensors.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "modifiers/dense_tensors.h"

namespace llmc {

LayerPrefetch::LayerPrefetch(const Plan& plan, int64_t layer) {
  std::vector<std::string> names;
  const std::string prefix = plan.model->LayerName(layer) + ".";
  for (const CheckpointTensor& tensor : plan.source->tensors()) {
    if (absl::StartsWith(tensor.spec.name, prefix)) names.push_back(tensor.spec.name);
  }
  reading_ =
      std::async(std::launch::async,
                 [source = plan.source, names = std::move(names)]() -> absl::StatusOr<Tensors> {
                   Tensors tensors;
                   for (const std::string& name : names) {
                     LLMC_ASSIGN_OR_RETURN(tensors[name], source->Read(name));
                   }
                   return tensors;
                 });
}

absl::StatusOr<HostTensor> LayerPrefetch::Take(const std::string& name) {
  if (!ready_) {
    tensors_ = reading_.get();
    ready_ = true;
  }
  if (!tensors_.ok()) return tensors_.status();
  auto node = tensors_->extract(name);
  if (node.empty()) return absl::NotFoundError(absl::StrCat(name, ": no such tensor"));
  return std::move(node.mapped());
}

absl::StatusOr<std::vector<kernels::StoredTensor>> StoreSolved(const RunState& run,
                                                               SolvedModule& solved) {
  const Scheme& scheme = *solved.planned->scheme;
  if (!scheme.weights) {
    std::vector<kernels::StoredTensor> dense;
    dense.push_back({"weight", std::move(solved.weight)});
    return dense;
  }
  kernels::CompressOptions options;
  // A solved weight lies on the grid already. Its quotient by the scale is kept in
  // float32: rounded to BF16 it could leave the code that the solver chose.
  options.quotient =
      solved.method == Method::kGptq ? QuotientRounding::kFloat32 : run.job.quotient_rounding;
  absl::StatusOr<std::vector<kernels::StoredTensor>> stored = kernels::CompressWeight(
      solved.weight.view(), solved.grid, *scheme.weights, scheme.format, options);
  if (!stored.ok()) return At(solved.planned->source.name, stored.status());
  return stored;
}

absl::StatusOr<HostTensor> Dequantised(const PlannedModule& planned,
                                       const std::vector<kernels::StoredTensor>& stored) {
  std::map<std::string, TensorView> views;
  for (const kernels::StoredTensor& tensor : stored) views[tensor.suffix] = tensor.tensor.view();
  const auto lookup = [&](absl::string_view suffix) -> const TensorView* {
    auto it = views.find(std::string(suffix));
    return it == views.end() ? nullptr : &it->second;
  };
  const Scheme& scheme = *planned.scheme;
  if (!scheme.weights) return CopyOf(stored.front().tensor);
  absl::StatusOr<HostTensor> weight = kernels::DecompressWeight(
      lookup, *scheme.weights, scheme.format, planned.source.shape, planned.source.dtype);
  if (!weight.ok()) return At(planned.module.name, weight.status());
  return weight;
}

absl::StatusOr<HostTensor> ReadWritten(const CheckpointWriter& writer,
                                       const PlannedModule& planned) {
  std::vector<kernels::StoredTensor> stored;
  for (const TensorSpec& spec : planned.stored) {
    LLMC_ASSIGN_OR_RETURN(HostTensor tensor, writer.Read(spec.name));
    stored.push_back({spec.name.substr(planned.module.name.size() + 1), std::move(tensor)});
  }
  return Dequantised(planned, stored);
}

}  // namespace llmc
