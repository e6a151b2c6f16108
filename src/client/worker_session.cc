#include "client/worker_session.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "rpc/rpc_status.h"

namespace llmc {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kStepInterval(500);
constexpr milliseconds kRetryInterval(1000);  // Of questions that got no answer.
constexpr size_t kMaxStepsInBatch = 2000;
constexpr size_t kMaxBatches = 200;

bool IsFatal(const absl::Status& status) {
  return absl::IsUnauthenticated(status) || absl::IsPermissionDenied(status) ||
         absl::IsUnimplemented(status);
}

bool SameLease(const v1::LeaseId& a, const v1::LeaseId& b) {
  return a.job() == b.job() && a.incarnation() == b.incarnation();
}

// Follows rank 0's steps.
void Advance(const v1::StepRecord& step, v1::JobProgress& progress) {
  progress.set_num_layers(step.num_layers());
  if (step.kind() == v1::StepRecord::KIND_LINEAR || step.kind() == v1::StepRecord::KIND_WARNING) {
    return;
  }
  progress.set_layer(step.layer());
  progress.set_step(step.step());
  progress.set_step_done_frac(step.done_frac());
  const bool layer_written =
      step.kind() == v1::StepRecord::KIND_END && step.step() == "Write" && step.layer() >= 0;
  // Layers are captured one after the other, so those below are done, also those
  // that an earlier attempt has done.
  if (step.step() == "Capture") {
    progress.set_layers_done(std::max(progress.layers_done(), step.layer()));
  } else if (layer_written) {
    progress.set_layers_done(
        std::min(step.num_layers(), std::max(progress.layers_done() + 1, int64_t{1})));
  }
}

}  // namespace

WorkerSession::WorkerSession(const CoordinatorChannel& channel, WorkerSessionOptions options)
    : channel_(channel), options_(std::move(options)) {
  last_heard_ = last_acknowledged_ = Clock::now();
  runner_ = std::thread([this] { Run(); });
  watcher_ = std::thread([this] { WatchLease(); });
}

WorkerSession::~WorkerSession() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ending_ = true;
    if (call_ != nullptr) call_->TryCancel();
    changed_.notify_all();
  }
  runner_.join();
  watcher_.join();
}

void WorkerSession::Run() {
  std::mt19937 random(std::random_device{}());
  milliseconds wait(500);
  for (;;) {
    const Clock::time_point begin = Clock::now();
    RunStream();
    std::unique_lock<std::mutex> lock(mutex_);
    if (ending_ || said_goodbye_) return;
    wait = Clock::now() - begin > std::chrono::seconds(10) ? milliseconds(500)
                                                           : std::min(wait * 2, milliseconds(5000));
    const milliseconds jittered(std::uniform_int_distribution<int>(
        250, static_cast<int>(std::min(wait, lease_ttl_ / 4).count()) + 250)(random));
    changed_.wait_for(lock, jittered, [this] { return ending_; });
  }
}

void WorkerSession::RunStream() {
  grpc::ClientContext call;
  channel_.Prepare(call, /*is_stream=*/true);
  std::unique_ptr<Stream> stream;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (ending_) return;
    call_ = &call;
  }
  const std::shared_ptr<grpc::Channel> channel = channel_.channel();
  const auto stub = v1::WorkerService::NewStub(channel);
  stream = stub->Session(&call);
  v1::SessionRequest attach;
  *attach.mutable_attach() = options_.attach;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (lease_) *attach.mutable_attach()->mutable_lease() = *lease_;
    heartbeats_.clear();
    next_heartbeat_ = next_steps_ = Clock::now();
  }
  bool alive = stream->Write(attach);
  const Clock::time_point begin = Clock::now();
  std::atomic<bool> ended{false};
  std::thread reader([&] {
    ReadAll(*stream);
    ended = true;
    std::lock_guard<std::mutex> lock(mutex_);
    changed_.notify_all();
  });
  bool silent = false;
  while (alive && !ended) {
    std::vector<v1::SessionRequest> outgoing;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      if (ending_ || said_goodbye_) break;
      // A connection that died in silence: a new one may still save the lease.
      const Clock::time_point unanswered =
          heartbeats_.empty() ? Clock::now() : heartbeats_.begin()->second;
      silent = Clock::now() - (attached_ ? unanswered : begin) >= 3 * heartbeat_interval_;
      alive = !silent;
      outgoing = Outgoing(Clock::now());
      if (outgoing.empty()) changed_.wait_for(lock, milliseconds(100));
    }
    for (const v1::SessionRequest& request : outgoing) {
      alive = alive && stream->Write(request);
      if (!request.has_goodbye()) continue;
      std::lock_guard<std::mutex> lock(mutex_);
      said_goodbye_ = true;
      changed_.notify_all();
    }
  }
  if (alive && !ended) stream->WritesDone();
  if (!alive) call.TryCancel();
  if (silent) channel_.Renew(channel);
  reader.join();
  const absl::Status status = FromRpcStatus(stream->Finish());
  std::lock_guard<std::mutex> lock(mutex_);
  call_ = nullptr;
  attached_ = false;
  if (IsFatal(status)) fatal_ = status;
  changed_.notify_all();
}

void WorkerSession::ReadAll(Stream& stream) {
  v1::SessionResponse message;
  while (stream.Read(&message)) OnMessage(message);
}

std::vector<v1::SessionRequest> WorkerSession::Outgoing(Clock::time_point now) {
  std::vector<v1::SessionRequest> outgoing;
  if (!attached_) return outgoing;
  if (goodbye_asked_) {
    outgoing.emplace_back().mutable_goodbye();
    return outgoing;
  }
  if (now >= next_heartbeat_) {
    v1::Heartbeat& beat = *outgoing.emplace_back().mutable_heartbeat();
    beat.set_number(++heartbeat_number_);
    heartbeats_[heartbeat_number_] = now;
    if (lease_) *beat.mutable_lease() = *lease_;
    beat.set_idle(waiting_ && !lease_ && !draining_);
    beat.set_draining(draining_);
    next_heartbeat_ = now + heartbeat_interval_;
  }
  if (!lease_ || now < next_steps_) return outgoing;
  next_steps_ = now + kStepInterval;
  if (!steps_.empty() && batches_.size() < kMaxBatches) {
    v1::ReportSteps& batch = batches_.emplace_back();
    *batch.mutable_lease() = *lease_;
    batch.set_batch(next_batch_++);
    const size_t count = std::min(steps_.size(), kMaxStepsInBatch);
    for (size_t i = 0; i < count; ++i) *batch.add_steps() = std::move(steps_[i]);
    steps_.erase(steps_.begin(), steps_.begin() + static_cast<std::ptrdiff_t>(count));
    *batch.mutable_progress() = progress_;
  }
  if (!batches_.empty()) *outgoing.emplace_back().mutable_steps() = batches_.front();
  if (asking_) *outgoing.emplace_back().mutable_publish()->mutable_lease() = *lease_;
  // The end of a job follows its last steps.
  const bool steps_sent = batches_.empty() && steps_.empty();
  if (finished_ && steps_sent) *outgoing.emplace_back().mutable_finished() = *finished_;
  return outgoing;
}

void WorkerSession::OnMessage(const v1::SessionResponse& message) {
  std::unique_lock<std::mutex> lock(mutex_);
  last_heard_ = Clock::now();
  switch (message.message_case()) {
    case v1::SessionResponse::kAttached:
      attached_ = true;
      lease_ttl_ = milliseconds(message.attached().lease_ttl_ms());
      heartbeat_interval_ = milliseconds(message.attached().heartbeat_interval_ms());
      // A job that has ended meanwhile is settled by its Finished.
      if (lease_ && !finished_ && !message.attached().lease_valid()) {
        lock.unlock();
        options_.on_fence("the coordinator gave the lease to another pool");
        return;
      }
      break;
    case v1::SessionResponse::kHeartbeatAck:
      lock.unlock();
      return OnHeartbeatAck(message.heartbeat_ack());
    case v1::SessionResponse::kOffer:
      OnOffer(message.offer());
      break;
    case v1::SessionResponse::kStepsAck:
      if (!batches_.empty() && message.steps_ack().batch() == batches_.front().batch()) {
        batches_.pop_front();
        next_steps_ = steps_.empty() && batches_.empty() && !finished_ ? next_steps_ : last_heard_;
      }
      break;
    case v1::SessionResponse::kPublishAnswer:
      if (lease_ && SameLease(*lease_, message.publish_answer().lease())) {
        may_publish_ = message.publish_answer().granted();
      }
      break;
    case v1::SessionResponse::kFinishedAck:
      if (finished_ && SameLease(finished_->lease(), message.finished_ack().lease())) {
        finished_.reset();
        lease_.reset();
      }
      break;
    default:
      break;
  }
  changed_.notify_all();
}

void WorkerSession::OnHeartbeatAck(const v1::HeartbeatAck& ack) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (const auto sent = heartbeats_.find(ack.number()); sent != heartbeats_.end()) {
    last_acknowledged_ = sent->second;
    if (lease_ && ack.lease_valid()) lease_end_ = sent->second + lease_ttl_ * 5 / 6;
    heartbeats_.erase(heartbeats_.begin(), std::next(sent));
  }
  changed_.notify_all();
  if (!lease_ || finished_ || ack.stop() == told_ || ack.stop() == v1::STOP_REASON_UNSPECIFIED) {
    return;
  }
  told_ = ack.stop();
  lock.unlock();
  if (ack.stop() == v1::STOP_REASON_LEASE_LOST) {
    options_.on_fence("the lease was lost");
  } else if (options_.on_stop) {
    options_.on_stop(ack.stop());
  }
}

void WorkerSession::OnOffer(const v1::LeaseOffer& offer) {
  if (lease_ || draining_) return;  // It ends by its time.
  offer_ = offer;
  lease_ = offer.lease();
  // The coordinator's clock for it began after it answered a heartbeat.
  lease_end_ = last_acknowledged_ + lease_ttl_ * 5 / 6;
  told_ = v1::STOP_REASON_UNSPECIFIED;
  steps_.clear();
  batches_.clear();
  next_batch_ = 1;
  progress_ = v1::JobProgress();
  asking_ = false;
  may_publish_.reset();
  next_heartbeat_ = Clock::now();
}

std::optional<v1::LeaseOffer> WorkerSession::WaitForOffer(milliseconds timeout) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (!waiting_) next_heartbeat_ = Clock::now();
  waiting_ = true;
  changed_.notify_all();
  changed_.wait_for(lock, timeout, [this] { return offer_ || ending_ || !fatal_.ok(); });
  if (!offer_) return std::nullopt;
  waiting_ = false;
  return std::exchange(offer_, std::nullopt);
}

void WorkerSession::Drain() {
  std::lock_guard<std::mutex> lock(mutex_);
  draining_ = true;
  next_heartbeat_ = Clock::now();
  changed_.notify_all();
}

void WorkerSession::AddStep(v1::StepRecord step) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!lease_) return;
  Advance(step, progress_);
  // Progress inside a step is a state, not an event: only the newest counts.
  const bool is_progress = step.kind() == v1::StepRecord::KIND_PROGRESS;
  if (is_progress && !steps_.empty() && steps_.back().kind() == v1::StepRecord::KIND_PROGRESS) {
    steps_.back() = std::move(step);
    return;
  }
  steps_.push_back(std::move(step));
}

bool WorkerSession::MayPublish() {
  std::unique_lock<std::mutex> lock(mutex_);
  asking_ = true;
  next_steps_ = Clock::now();
  changed_.notify_all();
  while (!may_publish_ && lease_) {
    changed_.wait_for(lock, kRetryInterval);
  }
  asking_ = false;
  return lease_ && may_publish_.value_or(false);
}

bool WorkerSession::Finish(v1::Finished finished) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (!lease_) return false;
  *finished.mutable_lease() = *lease_;
  finished_ = std::move(finished);
  next_steps_ = Clock::now();
  changed_.notify_all();
  while (finished_ && fatal_.ok()) {
    // After the lease's end the coordinator knows better; nothing is written any more.
    if (Clock::now() > lease_end_ + lease_ttl_) break;
    changed_.wait_for(lock, kRetryInterval);
  }
  const bool kept = !finished_;
  finished_.reset();
  lease_.reset();
  return kept;
}

void WorkerSession::Goodbye() {
  std::unique_lock<std::mutex> lock(mutex_);
  if (attached_ && call_ != nullptr) {
    goodbye_asked_ = true;
    changed_.notify_all();
    changed_.wait_for(lock, milliseconds(2000), [this] { return call_ == nullptr; });
  }
}

bool WorkerSession::HeardWithin(milliseconds time) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return Clock::now() - last_heard_ < time;
}

absl::Status WorkerSession::fatal() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return fatal_;
}

void WorkerSession::WatchLease() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!ending_) {
    if (lease_ && !finished_ && Clock::now() > lease_end_) {
      lock.unlock();
      options_.on_fence("the coordinator did not renew the lease in time");
      lock.lock();
      lease_.reset();
    }
    changed_.wait_for(lock, milliseconds(200), [this] { return ending_; });
  }
}

}  // namespace llmc
