#include "pipeline/layer_tensors.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/torch_tensor.h"
#include "modifiers/dense_tensors.h"

namespace llmc {

LayerPrefetch::LayerPrefetch(const RunState& run, int64_t layer, CopyLane* lane) : run_(run) {
  std::vector<std::string> names;
  const std::string prefix = run.plan.model->LayerName(layer) + ".";
  for (const CheckpointTensor& tensor : run.plan.source->tensors()) {
    if (absl::StartsWith(tensor.spec.name, prefix)) names.push_back(tensor.spec.name);
  }
  reading_ = std::async(std::launch::async, [this, lane, names = std::move(names)] {
    span_.begin = std::chrono::steady_clock::now();
    absl::StatusOr<Tensors> tensors =
        lane == nullptr ? ReadToHost(names) : ReadToDevice(names, *lane);
    span_.end = std::chrono::steady_clock::now();
    return tensors;
  });
}

absl::StatusOr<LayerPrefetch::Tensors> LayerPrefetch::ReadToHost(
    const std::vector<std::string>& names) const {
  Tensors tensors;
  for (const std::string& name : names) {
    LLMC_ASSIGN_OR_RETURN(HostTensor tensor, run_.plan.source->Read(name));
    tensors[name] = ToTorch(std::move(tensor));
  }
  return tensors;
}

// Into pinned memory, and from there while the next tensor is read.
absl::StatusOr<LayerPrefetch::Tensors> LayerPrefetch::ReadToDevice(
    const std::vector<std::string>& names, CopyLane& lane) const {
  const TorchStream::Scope scope(*lane.device->stream());
  int64_t num_bytes = 0;
  for (const std::string& name : names) num_bytes += run_.plan.source->Find(name)->spec.num_bytes();
  LLMC_ASSIGN_OR_RETURN(std::byte * staging, lane.Staging(num_bytes));
  Tensors tensors;
  for (const std::string& name : names) {
    const TensorSpec& spec = run_.plan.source->Find(name)->spec;
    const size_t size = static_cast<size_t>(spec.num_bytes());
    LLMC_RETURN_IF_ERROR(run_.plan.source->ReadInto(name, {staging, size}));
    LLMC_ASSIGN_OR_RETURN(tensors[name],
                          lane.device->Upload({spec.dtype, spec.shape, {staging, size}}));
    staging += size;
  }
  LLMC_RETURN_IF_ERROR(lane.device->Synchronize());
  return tensors;
}

void LayerPrefetch::Wait() {
  if (ready_) return;
  tensors_ = reading_.get();
  ready_ = true;
}

const TimeSpan& LayerPrefetch::Span() {
  Wait();
  return span_;
}

absl::StatusOr<at::Tensor> LayerPrefetch::Take(const std::string& name) {
  Wait();
  if (!tensors_.ok()) return tensors_.status();
  const auto node = tensors_->extract(name);
  if (node.empty()) return absl::NotFoundError(absl::StrCat(name, ": no such tensor"));
  if (node.mapped().is_cuda()) run_.device.stream()->Use(node.mapped());
  return node.mapped();
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

bool IsSeenAsSolved(const SolvedModule& solved) {
  const std::optional<QuantizationArgs>& weights = solved.planned->scheme->weights;
  return solved.method == Method::kGptq && weights && !weights->scale_dtype &&
         weights->strategy != Strategy::kTensorGroup;
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
