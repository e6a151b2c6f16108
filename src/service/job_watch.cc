#include "service/job_watch.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "control/transition.h"
#include "service/job_filter.h"

namespace llmc {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kEventsAtATime = 200;
constexpr auto kLook = std::chrono::milliseconds(500);

}  // namespace

bool JobWatch::Send(v1::WatchJobResponse response) {
  response.set_sequence(sequence_);
  response.set_resume_token(
      SignToken(plane_.secret(), absl::StrCat("watch ", id_), absl::StrCat(sequence_)));
  return write_(response);
}

absl::Status JobWatch::Begin(const v1::WatchJobRequest& request) {
  id_ = std::string(JobIdOf(request.name()));
  LLMC_ASSIGN_OR_RETURN(const v1::Job job, plane_.Get(id_));
  if (!request.resume_token().empty()) {
    LLMC_ASSIGN_OR_RETURN(
        const std::string sequence,
        ReadToken(plane_.secret(), absl::StrCat("watch ", id_), request.resume_token()));
    if (!absl::SimpleAtoi(sequence, &sequence_)) {
      return absl::InvalidArgumentError("resume_token: not one of this server's");
    }
    return plane_.Events(id_, sequence_, 1).status();
  }
  sequence_ = job.sequence();
  v1::WatchJobResponse response;
  *response.mutable_snapshot() = job;
  if (!Send(std::move(response))) return absl::CancelledError("the client is gone");
  return absl::OkStatus();
}

absl::Status JobWatch::SendNewEvents(bool* done) {
  for (;;) {
    LLMC_ASSIGN_OR_RETURN(const v1::Job job, plane_.Get(id_));
    LLMC_ASSIGN_OR_RETURN(const std::vector<v1::JobEvent> events,
                          plane_.Events(id_, sequence_, kEventsAtATime));
    for (const v1::JobEvent& event : events) {
      sequence_ = event.sequence();
      v1::WatchJobResponse response;
      *response.mutable_event() = event;
      if (!Send(std::move(response))) return absl::CancelledError("the client is gone");
    }
    *done = IsEnd(job.state()) && sequence_ >= job.sequence();
    if (*done || events.empty()) return absl::OkStatus();
  }
}

absl::Status JobWatch::Run(const v1::WatchJobRequest& request) {
  LLMC_RETURN_IF_ERROR(Begin(request));
  const Clock::time_point end = Clock::now() + kMaxWatchTime;
  Clock::time_point last_sent = Clock::now();
  int64_t version = -1;
  while (Clock::now() < end) {
    if (gone_()) return absl::CancelledError("the client is gone");
    if (plane_.stopping()) {
      return WithReason("SHUTTING_DOWN", absl::UnavailableError("the coordinator stops"));
    }
    const int64_t sequence_before = sequence_;
    const int64_t now = plane_.Version();
    bool done = false;
    if (now != version) LLMC_RETURN_IF_ERROR(SendNewEvents(&done));
    if (done) return absl::OkStatus();
    version = now;
    if (sequence_ != sequence_before) last_sent = Clock::now();
    if (Clock::now() - last_sent >= kWatchHeartbeat) {
      if (!Send({})) return absl::CancelledError("the client is gone");
      last_sent = Clock::now();
    }
    (void)plane_.WaitForChange(version, kLook);
  }
  return absl::OkStatus();
}

}  // namespace llmc
