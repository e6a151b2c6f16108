#include "client/rank_beat.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "llmc/v1/worker_service.grpc.pb.h"

namespace llmc {
namespace {

using std::chrono::milliseconds;

constexpr size_t kMaxSteps = 20'000;  // Waiting to be sent; more are dropped.
constexpr milliseconds kMargin(1000);
constexpr milliseconds kSilence(6000);  // After which a connection is given up.

}  // namespace

RankBeat::RankBeat(const CoordinatorChannel& channel, RankBeatOptions options)
    : channel_(channel), options_(std::move(options)) {
  runner_ = std::thread([this] { Run(); });
}

RankBeat::~RankBeat() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ending_ = true;
    changed_.notify_all();
  }
  runner_.join();
}

void RankBeat::Hold(const std::optional<v1::LeaseId>& lease) {
  std::lock_guard<std::mutex> lock(mutex_);
  lease_ = lease;
  lease_known_ = false;
  steps_.clear();
  batch_.reset();
  next_batch_ = 1;
}

void RankBeat::AddStep(v1::StepRecord step) {
  if (step.kind() == v1::StepRecord::KIND_PROGRESS) return;
  std::lock_guard<std::mutex> lock(mutex_);
  if (steps_.size() < kMaxSteps) steps_.push_back(std::move(step));
}

void RankBeat::Flush(milliseconds timeout) {
  std::unique_lock<std::mutex> lock(mutex_);
  flushing_ = true;
  changed_.notify_all();
  changed_.wait_for(lock, timeout, [this] { return steps_.empty() && !batch_; });
  flushing_ = false;
}

v1::ReportRankRequest RankBeat::MakeRequest() {
  v1::ReportRankRequest request;
  request.set_instance(options_.instance);
  request.set_rank(options_.rank);
  request.set_rss_bytes(options_.resident_bytes());
  *request.mutable_counters() = options_.counters();
  if (!lease_) return request;
  *request.mutable_lease() = *lease_;
  if (!batch_ && !steps_.empty()) {
    batch_.emplace();
    *batch_->mutable_lease() = *lease_;
    batch_->set_rank(options_.rank);
    batch_->set_batch(next_batch_++);
    for (v1::StepRecord& step : steps_) *batch_->add_steps() = std::move(step);
    steps_.clear();
  }
  if (batch_) *request.mutable_steps() = *batch_;
  return request;
}

void RankBeat::OnResponse(const v1::ReportRankRequest& request,
                          const v1::ReportRankResponse& response, Clock::time_point sent) {
  std::unique_lock<std::mutex> lock(mutex_);
  std::string why;
  const bool is_current = lease_ && request.has_lease() &&
                          request.lease().incarnation() == lease_->incarnation() &&
                          request.lease().job() == lease_->job();
  if (response.silent_ranks_size() > 0) {
    why = absl::StrCat("rank ", absl::StrJoin(response.silent_ranks(), ", "), " hangs");
  } else if (is_current && !response.lease_valid()) {
    why = "the lease was lost";
  } else if (is_current) {
    lease_known_ = true;
    lease_end_ = sent + milliseconds(response.lease_ttl_ms()) - kMargin;
    if (batch_ && response.steps_kept()) batch_.reset();
  }
  changed_.notify_all();
  lock.unlock();
  if (!why.empty()) options_.on_fence(why);
}

void RankBeat::Report(const v1::ReportRankRequest& request, Clock::time_point deadline) {
  const std::shared_ptr<grpc::Channel> channel = channel_.channel();
  if (channel != heard_on_) {
    heard_on_ = channel;
    heard_ = Clock::now();
  }
  grpc::ClientContext call;
  channel_.Prepare(call);
  const Clock::time_point sent = Clock::now();
  call.set_deadline(std::chrono::system_clock::now() + (deadline - sent));
  v1::ReportRankResponse response;
  const grpc::Status status =
      v1::WorkerService::NewStub(channel)->ReportRank(&call, request, &response);
  if (status.error_code() != grpc::StatusCode::DEADLINE_EXCEEDED) heard_ = Clock::now();
  if (status.ok()) OnResponse(request, response, sent);
  if (Clock::now() - heard_ > kSilence) channel_.Renew(channel);
}

void RankBeat::Run() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!ending_) {
    const v1::ReportRankRequest request = MakeRequest();
    // Not beyond the lease: its end must not be noticed late.
    Clock::time_point deadline = Clock::now() + options_.interval;
    if (lease_ && lease_known_) deadline = std::min(deadline, lease_end_);
    lock.unlock();
    Report(request, deadline);
    lock.lock();
    if (lease_ && lease_known_ && Clock::now() > lease_end_) {
      lock.unlock();
      options_.on_fence("the coordinator did not confirm the lease in time");
      lock.lock();
    }
    changed_.wait_for(lock, options_.interval,
                      [this] { return ending_ || (flushing_ && (batch_ || !steps_.empty())); });
  }
}

}  // namespace llmc
