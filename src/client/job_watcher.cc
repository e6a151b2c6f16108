#include "client/job_watcher.h"

#include <atomic>
#include <chrono>
#include <csignal>
#include <thread>

#include "rpc/rpc_status.h"

namespace llmc {
namespace {

volatile std::sig_atomic_t interrupted = 0;

void OnInterrupt(int) { interrupted = 1; }

bool HasEnded(v1::JobState state) {
  return state == v1::JOB_STATE_SUCCEEDED || state == v1::JOB_STATE_FAILED ||
         state == v1::JOB_STATE_CANCELLED;
}

// Cancels a call when Ctrl-C is pressed; a blocked Read would not notice.
class InterruptWatch {
 public:
  explicit InterruptWatch(grpc::ClientContext& call)
      : thread_([this, &call] {
          while (!done_ && interrupted == 0) {
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
          }
          if (interrupted != 0) call.TryCancel();
        }) {}
  ~InterruptWatch() {
    done_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> done_{false};
  std::thread thread_;
};

}  // namespace

void JobWatcher::Take(const v1::WatchJobResponse& message) {
  token_ = message.resume_token();
  if (message.has_snapshot()) state_ = message.snapshot().state();
  if (message.event().has_state_change()) state_ = message.event().state_change().to();
  on_message_(message);
}

absl::Status JobWatcher::RunStream() {
  grpc::ClientContext call;
  channel_.Prepare(call, /*is_stream=*/true);
  InterruptWatch watch(call);
  v1::WatchJobRequest request;
  request.set_name(name_);
  request.set_resume_token(token_);
  const auto stub = v1::JobService::NewStub(channel_.channel());
  const auto stream = stub->WatchJob(&call, request);
  v1::WatchJobResponse message;
  while (stream->Read(&message)) Take(message);
  return FromRpcStatus(stream->Finish());
}

absl::StatusOr<v1::JobState> JobWatcher::Run() {
  std::signal(SIGINT, OnInterrupt);
  auto wait = std::chrono::milliseconds(250);
  for (;;) {
    const std::string token_before = token_;
    const absl::Status status = RunStream();
    if (interrupted != 0) return absl::CancelledError("interrupted");
    if (status.ok() && HasEnded(state_)) return state_;
    if (absl::IsOutOfRange(status)) {
      token_.clear();  // Too old: begin with a snapshot.
      continue;
    }
    if (!status.ok() && !absl::IsUnavailable(status) && !absl::IsDeadlineExceeded(status)) {
      return status;
    }
    // Unreachable from the first: somebody should know.
    if (!status.ok() && token_.empty()) return status;
    if (token_ != token_before) wait = std::chrono::milliseconds(250);
    std::this_thread::sleep_for(wait);
    wait = std::min(wait * 2, std::chrono::milliseconds(10'000));
  }
}

}  // namespace llmc
