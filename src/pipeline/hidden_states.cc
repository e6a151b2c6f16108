#include "pipeline/hidden_states.h"

#include <cstdlib>
#include <mutex>
#include <utility>

#include "ATen/ops/empty.h"
#include "ATen/ops/from_blob.h"
#include "absl/strings/str_cat.h"
#include "llmc/parallel.h"
#include "model/torch_tensor.h"

namespace llmc {
namespace {

std::string WorkDir(const Job& job) {
  if (!job.work_dir.empty()) return job.work_dir;
  const char* tmpdir = std::getenv("TMPDIR");
  return tmpdir != nullptr && *tmpdir != '\0' ? tmpdir : "/tmp";
}

std::span<std::byte> BytesOf(at::Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.data_ptr()), static_cast<size_t>(tensor.nbytes())};
}

}  // namespace

absl::StatusOr<std::unique_ptr<HiddenStates>> HiddenStates::Embed(const RunState& run,
                                                                  const std::vector<Chunk>& chunks,
                                                                  at::ScalarType compute_dtype) {
  auto states = std::unique_ptr<HiddenStates>(new HiddenStates);
  const CheckpointTensor* table = run.plan.source->Find(run.plan.model->embedding_name + ".weight");
  states->hidden_size_ = run.plan.model->hidden_size;
  states->stored_dtype_ = table->spec.dtype == DType::kBF16 ? DType::kBF16 : DType::kF32;
  states->compute_dtype_ = compute_dtype;
  states->slot_of_sample_.assign(run.samples.rows.size(), -1);
  states->tokens_.assign(run.samples.rows.size(), 0);
  std::vector<int64_t> sizes;
  std::vector<int64_t> mine;
  for (const Chunk& chunk : chunks) {
    for (const Pack& pack : chunk.packs) {
      for (int64_t sample = pack.begin; sample < pack.end; ++sample) {
        states->slot_of_sample_[sample] = static_cast<int64_t>(sizes.size());
        states->tokens_[sample] = static_cast<int64_t>(run.samples.rows[sample].size());
        sizes.push_back(states->tokens_[sample] * states->hidden_size_ *
                        ElementSize(states->stored_dtype_));
        mine.push_back(sample);
      }
    }
  }
  ActivationStoreOptions options;
  options.work_dir = WorkDir(run.job);
  options.resident_bytes = run.estimate.activation_bytes - run.estimate.spilled_bytes;
  if (run.estimate.spilled_bytes == 0) options.resident_bytes = INT64_MAX;
  LLMC_ASSIGN_OR_RETURN(states->store_, ActivationStore::Create(std::move(sizes), options));
  std::mutex mutex;
  absl::Status status;
  ParallelFor(static_cast<int64_t>(mine.size()), [&](int64_t i) {
    const absl::Status embedded = states->EmbedSample(run, mine[i]);
    std::lock_guard<std::mutex> lock(mutex);
    status.Update(embedded);
  });
  if (!status.ok()) return status;
  return states;
}

absl::Status HiddenStates::EmbedSample(const RunState& run, int64_t sample) {
  const std::string name = run.plan.model->embedding_name + ".weight";
  const TensorSpec& spec = run.plan.source->Find(name)->spec;
  const int64_t row_bytes = hidden_size_ * ElementSize(spec.dtype);
  at::Tensor rows = at::empty({tokens_[sample], hidden_size_}, TorchType(spec.dtype));
  std::span<std::byte> bytes = BytesOf(rows);
  for (int64_t t = 0; t < tokens_[sample]; ++t) {
    const int64_t id = run.samples.rows[sample][t];
    if (id < 0 || id >= spec.shape[0]) {
      return absl::InvalidArgumentError(absl::StrCat("calibration sample ", sample, ": token id ",
                                                     id, ", expected one below vocab_size ",
                                                     spec.shape[0]));
    }
    LLMC_RETURN_IF_ERROR(
        run.plan.source->ReadBytes(name, id * row_bytes, bytes.subspan(t * row_bytes, row_bytes)));
  }
  return Store(sample, rows);
}

absl::StatusOr<at::Tensor> HiddenStates::Load(int64_t sample) const {
  at::Tensor hidden = at::empty({tokens_[sample], hidden_size_}, TorchType(stored_dtype_));
  LLMC_RETURN_IF_ERROR(store_->Load(slot_of_sample_[sample], BytesOf(hidden)));
  return hidden.to(compute_dtype_);
}

absl::Status HiddenStates::Store(int64_t sample, const at::Tensor& hidden) {
  at::Tensor stored = hidden.to(TorchType(stored_dtype_)).contiguous();
  return store_->Store(slot_of_sample_[sample], BytesOf(stored));
}

}  // namespace llmc
