#include "pipeline/state_window.h"

#include <iterator>
#include <optional>
#include <utility>

#include "ATen/ops/cat.h"
#include "c10/core/InferenceMode.h"
#include "model/torch_tensor.h"

namespace llmc {

StateWindow::StateWindow(const ComputeDevice& device, HiddenStates& hidden,
                         std::vector<Batch> packs, int64_t depth)
    : device_(device),
      hidden_(hidden),
      packs_(std::move(packs)),
      depth_(depth),
      in_(std::make_unique<CopyLane>()),
      out_(std::make_unique<CopyLane>()) {}

absl::StatusOr<std::unique_ptr<StateWindow>> StateWindow::Open(const ComputeDevice& device,
                                                               HiddenStates& hidden,
                                                               std::vector<Batch> packs,
                                                               int64_t depth) {
  std::unique_ptr<StateWindow> window(new StateWindow(device, hidden, std::move(packs), depth));
  LLMC_ASSIGN_OR_RETURN(window->in_->device, device.Beside());
  LLMC_ASSIGN_OR_RETURN(window->out_->device, device.Beside());
  LLMC_RETURN_IF_ERROR(device.Synchronize());
  window->reader_ = std::thread([w = window.get()] { w->ReadAhead(); });
  window->writer_ = std::thread([w = window.get()] { w->PutBack(); });
  return window;
}

StateWindow::~StateWindow() {
  Fail(absl::CancelledError("the pass ended"));
  if (reader_.joinable()) reader_.join();
  if (writer_.joinable()) writer_.join();
}

void StateWindow::Fail(const absl::Status& status) {
  const std::lock_guard<std::mutex> lock(mutex_);
  status_.Update(status);
  changed_.notify_all();
}

absl::StatusOr<at::Tensor> StateWindow::Take() {
  Arrived arrived;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return !status_.ok() || !arrived_.empty(); });
    LLMC_RETURN_IF_ERROR(status_);
    arrived = std::move(arrived_.front());
    arrived_.pop_front();
  }
  std::vector<at::Tensor> parts;
  for (const int64_t sample : packs_[next_++].samples) {
    const auto there = arrived.find(sample);
    if (there == arrived.end()) {
      LLMC_ASSIGN_OR_RETURN(parts.emplace_back(), hidden_.Load(sample));
    } else {
      if (there->second.is_cuda()) device_.stream()->Use(there->second);
      parts.push_back(hidden_.Loaded(there->second));
    }
  }
  return parts.size() == 1 ? parts[0] : at::cat(parts);
}

absl::Status StateWindow::Done(const at::Tensor& output) {
  LeavingPack leaving;
  int64_t first = 0;
  for (const int64_t sample : packs_[next_ - 1].samples) {
    if (!output.defined()) break;
    const at::Tensor rows = output.narrow(0, first, hidden_.tokens(sample));
    first += hidden_.tokens(sample);
    if (hidden_.IsOffDevice(sample)) {
      leaving.samples.push_back({sample, hidden_.Kept(rows)});
    } else {
      const int64_t samples[] = {sample};
      LLMC_RETURN_IF_ERROR(hidden_.Store(samples, rows));
    }
  }
  LLMC_ASSIGN_OR_RETURN(leaving.computed, kernels::DeviceEvent::Record(*device_.queue()));
  std::unique_lock<std::mutex> lock(mutex_);
  dones_.push_back(leaving.computed);
  changed_.notify_all();
  if (leaving.samples.empty()) return status_;
  changed_.wait(lock, [&] { return !status_.ok() || std::ssize(leaving_) < depth_; });
  leaving_.push_back(std::move(leaving));
  changed_.notify_all();
  return status_;
}

absl::Status StateWindow::Finish() {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] { return !status_.ok() || leaving_.empty(); });
  return status_;
}

// Pack i is read when pack i - depth is done.
void StateWindow::ReadAhead() {
  for (int64_t i = 0; i < std::ssize(packs_); ++i) {
    std::optional<kernels::DeviceEvent> done;
    if (i >= depth_) {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [&] { return !status_.ok() || !dones_.empty(); });
      if (!status_.ok()) return;
      done = std::move(dones_.front());
      dones_.pop_front();
    }
    absl::Status status = done ? done->Wait() : absl::OkStatus();
    absl::StatusOr<Arrived> arrived = Arrived();
    if (status.ok()) {
      status = CatchTorch("hidden states", [&] { arrived = ReadPack(packs_[i]); });
      status.Update(arrived.status());
    }
    if (!status.ok()) return Fail(status);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!status_.ok()) return;
    arrived_.push_back(*std::move(arrived));
    changed_.notify_all();
  }
}

absl::StatusOr<StateWindow::Arrived> StateWindow::ReadPack(const Batch& pack) {
  const c10::InferenceMode guard;
  const TorchStream::Scope scope(*in_->device->stream());
  Arrived arrived;
  for (const int64_t sample : pack.samples) {
    if (!hidden_.IsOffDevice(sample)) continue;
    LLMC_ASSIGN_OR_RETURN(arrived[sample], hidden_.Fetch(sample, *in_));
  }
  return arrived;
}

void StateWindow::PutBack() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return !status_.ok() || !leaving_.empty(); });
    if (!status_.ok()) return;
    const LeavingPack& pack = leaving_.front();  // A deque: stays while others are added.
    lock.unlock();
    absl::Status put;
    put.Update(CatchTorch("hidden states", [&] { put = PutPack(pack); }));
    lock.lock();
    status_.Update(put);
    leaving_.pop_front();
    changed_.notify_all();
  }
}

absl::Status StateWindow::PutPack(const LeavingPack& pack) {
  LLMC_RETURN_IF_ERROR(pack.computed.Wait());
  const TorchStream::Scope scope(*out_->device->stream());
  for (const Leaving& leaving : pack.samples) {
    LLMC_RETURN_IF_ERROR(hidden_.Put(leaving.sample, leaving.kept, *out_));
  }
  return absl::OkStatus();
}

}  // namespace llmc
