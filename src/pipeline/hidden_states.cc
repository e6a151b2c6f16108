#include "pipeline/hidden_states.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <utility>

#include "ATen/ops/cat.h"
#include "absl/strings/str_cat.h"
#include "llmc/parallel.h"
#include "model/torch_tensor.h"

namespace llmc {
namespace {

// Samples whose embeddings are in host memory at once before they go to a device.
constexpr size_t kEmbeddedAtOnce = 64;

std::string WorkDir(const Job& job) {
  if (!job.work_dir.empty()) return job.work_dir;
  const char* tmpdir = std::getenv("TMPDIR");
  return tmpdir != nullptr && *tmpdir != '\0' ? tmpdir : "/tmp";
}

ActivationStoreOptions StoreOptions(const RunState& run) {
  ActivationStoreOptions options;
  options.work_dir = WorkDir(run.job);
  options.resident_bytes = run.estimate.activation_bytes - run.estimate.spilled_bytes -
                           run.estimate.device_activation_bytes;
  if (run.estimate.spilled_bytes == 0) options.resident_bytes = INT64_MAX;
  options.pinned = !run.device.is_host();
  return options;
}

}  // namespace

HiddenStates::HiddenStates(const RunState& run)
    : device_(run.device),
      on_device_(run.samples.rows.size()),
      slot_of_sample_(run.samples.rows.size(), -1),
      hidden_size_(run.plan.model->hidden_size) {
  for (const auto& row : run.samples.rows) tokens_.push_back(static_cast<int64_t>(row.size()));
  const CheckpointTensor* table = run.plan.source->Find(run.plan.model->embedding_name + ".weight");
  stored_dtype_ = table->spec.dtype == DType::kBF16 ? DType::kBF16 : DType::kF32;
}

int64_t HiddenStates::BytesOf(int64_t sample) const {
  return tokens_[sample] * hidden_size_ * ElementSize(stored_dtype_);
}

// The first samples get the device.
void HiddenStates::Place(const std::vector<Chunk>& chunks, int64_t device_budget_bytes) {
  for (const Chunk& chunk : chunks) {
    for (int64_t sample = chunk.packs.front().begin; sample < chunk.packs.back().end; ++sample) {
      mine_.push_back(sample);
      if (device_bytes_ + BytesOf(sample) <= device_budget_bytes) {
        device_bytes_ += BytesOf(sample);
      } else {
        slot_of_sample_[sample] = static_cast<int64_t>(store_sizes_.size());
        store_sizes_.push_back(BytesOf(sample));
      }
    }
  }
}

absl::StatusOr<std::unique_ptr<HiddenStates>> HiddenStates::Embed(const RunState& run,
                                                                  const std::vector<Chunk>& chunks,
                                                                  at::ScalarType compute_dtype) {
  auto states = std::unique_ptr<HiddenStates>(new HiddenStates(run));
  states->compute_dtype_ = compute_dtype;
  states->Place(chunks, run.device.is_host() ? 0 : run.estimate.device_activation_bytes);
  LLMC_ASSIGN_OR_RETURN(
      states->store_, ActivationStore::Create(std::move(states->store_sizes_), StoreOptions(run)));
  const std::span<const int64_t> mine(states->mine_);
  for (size_t first = 0; first < mine.size(); first += kEmbeddedAtOnce) {
    const size_t count = std::min(kEmbeddedAtOnce, mine.size() - first);
    LLMC_RETURN_IF_ERROR(states->EmbedSamples(run, mine.subspan(first, count)));
  }
  return states;
}

// Reads in parallel; a device then takes one after the other.
absl::Status HiddenStates::EmbedSamples(const RunState& run, std::span<const int64_t> samples) {
  std::vector<HostTensor> rows(samples.size());
  std::mutex mutex;
  absl::Status status;
  const auto store = [&](size_t i) {
    absl::Status stored;
    stored.Update(CatchTorch(
        "embedding", [&] { stored = StoreSample(samples[i], ToTorch(std::move(rows[i]))); }));
    return stored;
  };
  ParallelFor(static_cast<int64_t>(samples.size()), [&](int64_t i) {
    absl::StatusOr<HostTensor> embedded = EmbedSample(run, samples[i]);
    absl::Status one = embedded.status();
    if (embedded.ok()) rows[i] = *std::move(embedded);
    if (one.ok() && device_.is_host()) one = store(i);
    std::lock_guard<std::mutex> lock(mutex);
    status.Update(one);
  });
  for (size_t i = 0; i < samples.size() && !device_.is_host(); ++i) {
    if (status.ok()) status = store(i);
  }
  return status;
}

absl::StatusOr<HostTensor> HiddenStates::EmbedSample(const RunState& run, int64_t sample) const {
  const std::string name = run.plan.model->embedding_name + ".weight";
  const TensorSpec& spec = run.plan.source->Find(name)->spec;
  const int64_t row_bytes = hidden_size_ * ElementSize(spec.dtype);
  HostTensor rows(spec.dtype, {tokens_[sample], hidden_size_});
  for (int64_t t = 0; t < tokens_[sample]; ++t) {
    const int64_t id = run.samples.rows[sample][t];
    if (id < 0 || id >= spec.shape[0]) {
      return absl::InvalidArgumentError(absl::StrCat("calibration sample ", sample, ": token id ",
                                                     id, ", expected one below vocab_size ",
                                                     spec.shape[0]));
    }
    LLMC_RETURN_IF_ERROR(run.plan.source->ReadBytes(
        name, id * row_bytes, rows.bytes().subspan(t * row_bytes, row_bytes)));
  }
  return rows;
}

absl::StatusOr<at::Tensor> HiddenStates::Load(int64_t sample) const {
  if (on_device_[sample].defined()) return on_device_[sample].to(compute_dtype_);
  LLMC_ASSIGN_OR_RETURN(at::Tensor hidden,
                        device_.New(TorchType(stored_dtype_), {tokens_[sample], hidden_size_}));
  const int64_t slot = slot_of_sample_[sample];
  const std::span<std::byte> bytes(static_cast<std::byte*>(hidden.data_ptr()), hidden.nbytes());
  if (device_.is_host()) {
    LLMC_RETURN_IF_ERROR(store_->Load(slot, bytes));
  } else if (const std::span<std::byte> resident = store_->Resident(slot); !resident.empty()) {
    LLMC_RETURN_IF_ERROR(
        device_.queue()->CopyToDevice(resident.data(), BytesOf(sample), bytes.data()));
  } else {
    HostTensor read(stored_dtype_, hidden.sizes().vec());
    LLMC_RETURN_IF_ERROR(store_->Load(slot, read.bytes()));
    LLMC_RETURN_IF_ERROR(
        device_.queue()->CopyToDevice(read.bytes().data(), BytesOf(sample), bytes.data()));
  }
  return hidden.to(compute_dtype_);
}

absl::StatusOr<at::Tensor> HiddenStates::Fetch(int64_t sample, CopyLane& lane) const {
  const int64_t slot = slot_of_sample_[sample];
  std::byte* from = store_->Resident(slot).data();
  if (from == nullptr) {
    LLMC_ASSIGN_OR_RETURN(from, lane.Staging(BytesOf(sample)));
    LLMC_RETURN_IF_ERROR(store_->Load(slot, {from, static_cast<size_t>(BytesOf(sample))}));
  }
  const Shape shape = {tokens_[sample], hidden_size_};
  LLMC_ASSIGN_OR_RETURN(at::Tensor kept, lane.device->New(TorchType(stored_dtype_), shape));
  LLMC_RETURN_IF_ERROR(lane.device->queue()->CopyToDevice(from, BytesOf(sample), kept.data_ptr()));
  LLMC_RETURN_IF_ERROR(lane.device->Synchronize());
  return kept;
}

absl::Status HiddenStates::Put(int64_t sample, const at::Tensor& kept, CopyLane& lane) {
  const int64_t slot = slot_of_sample_[sample];
  std::byte* to = store_->Resident(slot).data();
  const bool is_spilled = to == nullptr;
  if (is_spilled) {
    LLMC_ASSIGN_OR_RETURN(to, lane.Staging(BytesOf(sample)));
  }
  LLMC_RETURN_IF_ERROR(
      lane.device->queue()->CopyToHost(kept.const_data_ptr(), BytesOf(sample), to));
  LLMC_RETURN_IF_ERROR(lane.device->Synchronize());
  if (!is_spilled) return absl::OkStatus();
  return store_->Store(slot, {to, static_cast<size_t>(BytesOf(sample))});
}

at::Tensor HiddenStates::Kept(const at::Tensor& rows) const {
  return rows.to(TorchType(stored_dtype_)).contiguous();
}

absl::StatusOr<at::Tensor> HiddenStates::Load(std::span<const int64_t> samples) const {
  if (samples.size() == 1) return Load(samples[0]);
  std::vector<at::Tensor> parts;
  for (const int64_t sample : samples) {
    LLMC_ASSIGN_OR_RETURN(at::Tensor part, Load(sample));
    parts.push_back(std::move(part));
  }
  return at::cat(parts);
}

absl::Status HiddenStates::Store(std::span<const int64_t> samples, const at::Tensor& hidden) {
  int64_t first = 0;
  for (const int64_t sample : samples) {
    LLMC_RETURN_IF_ERROR(StoreSample(sample, hidden.narrow(0, first, tokens_[sample])));
    first += tokens_[sample];
  }
  return absl::OkStatus();
}

// `rows` may still be in host memory when the rank computes on a device.
absl::Status HiddenStates::StoreSample(int64_t sample, const at::Tensor& rows) {
  const int64_t slot = slot_of_sample_[sample];
  if (slot < 0) {
    if (!on_device_[sample].defined()) {
      LLMC_ASSIGN_OR_RETURN(on_device_[sample],
                            device_.New(TorchType(stored_dtype_), rows.sizes().vec()));
    }
    on_device_[sample].copy_(rows);
    return absl::OkStatus();
  }
  const at::Tensor stored = Kept(rows);
  const std::span<const std::byte> bytes(static_cast<const std::byte*>(stored.const_data_ptr()),
                                         stored.nbytes());
  if (stored.device().is_cpu() && !kernels::DeviceQueue::SharesHostMemory()) {
    return store_->Store(slot, bytes);
  }
  if (device_.is_host()) return store_->Store(slot, bytes);
  if (const std::span<std::byte> resident = store_->Resident(slot); !resident.empty()) {
    return device_.queue()->CopyToHost(bytes.data(), BytesOf(sample), resident.data());
  }
  LLMC_ASSIGN_OR_RETURN(const HostTensor host, device_.Download(stored));
  return store_->Store(slot, host.bytes());
}

}  // namespace llmc
