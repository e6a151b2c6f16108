// A pool's side of its session and lease. Used by rank 0.
//
// One thread keeps a stream open, whatever happens to the network or the
// coordinator, and sends heartbeats, steps and answers; nothing here waits for the
// work and the work waits for nothing here, but MayPublish and Finish.
#ifndef LLMC_CLIENT_WORKER_SESSION_H_
#define LLMC_CLIENT_WORKER_SESSION_H_

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "client/channel.h"
#include "llmc/v1/worker_service.grpc.pb.h"

namespace llmc {

struct WorkerSessionOptions {
  v1::Attach attach;  // pool, instance, version, ranks.
  // Called at most once per lease, on a thread of the session: the job shall stop
  // after its layer.
  std::function<void(v1::StopReason)> on_stop;
  // Called when this pool must not write any more. Expected not to return.
  std::function<void(const std::string& why)> on_fence;
};

class WorkerSession {
 public:
  using Clock = std::chrono::steady_clock;

  WorkerSession(const CoordinatorChannel& channel, WorkerSessionOptions options);
  ~WorkerSession();

  // The next job, if one comes within `timeout`. From here on the session holds its
  // lease until Finish.
  std::optional<v1::LeaseOffer> WaitForOffer(std::chrono::milliseconds timeout);
  // No further offers are wanted.
  void Drain();

  // What this pool did; any thread, never waits.
  void AddStep(v1::StepRecord step);
  // True when the coordinator says so; waits for the answer while the lease lives.
  bool MayPublish();
  // Returns when the coordinator has kept it, or the lease is lost (false).
  bool Finish(v1::Finished finished);
  // Gives back what is held and ends the session; waits a moment for it to be sent.
  void Goodbye();

  // The coordinator answered at least once in the last `time`.
  bool HeardWithin(std::chrono::milliseconds time) const;
  // UNAUTHENTICATED and the like, on which trying again is no use; OK: none.
  absl::Status fatal() const;

 private:
  using Stream = grpc::ClientReaderWriter<v1::SessionRequest, v1::SessionResponse>;

  void Run();
  void RunStream();
  void ReadAll(Stream& stream);
  void OnMessage(const v1::SessionResponse& message);
  void OnHeartbeatAck(const v1::HeartbeatAck& ack);
  void OnOffer(const v1::LeaseOffer& offer);
  // What shall be sent now. Under the lock.
  std::vector<v1::SessionRequest> Outgoing(Clock::time_point now);
  void WatchLease();

  const CoordinatorChannel& channel_;
  const WorkerSessionOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::chrono::milliseconds lease_ttl_{30'000};
  std::chrono::milliseconds heartbeat_interval_{5'000};
  Clock::time_point last_heard_;
  Clock::time_point next_heartbeat_;
  Clock::time_point next_steps_;
  int64_t heartbeat_number_ = 0;
  std::map<int64_t, Clock::time_point> heartbeats_;  // Sent and not acknowledged.
  Clock::time_point last_acknowledged_;              // When the last acknowledged one was sent.
  bool attached_ = false;
  bool ending_ = false;
  bool draining_ = false;
  bool waiting_ = false;  // WaitForOffer is being called: heartbeats say idle.
  bool goodbye_asked_ = false;
  bool said_goodbye_ = false;
  std::optional<v1::LeaseOffer> offer_;
  std::optional<v1::LeaseId> lease_;
  Clock::time_point lease_end_;
  v1::StopReason told_ = v1::STOP_REASON_UNSPECIFIED;
  std::vector<v1::StepRecord> steps_;
  std::deque<v1::ReportSteps> batches_;  // Cut, not acknowledged.
  int64_t next_batch_ = 1;
  v1::JobProgress progress_;
  bool asking_ = false;
  std::optional<bool> may_publish_;
  std::optional<v1::Finished> finished_;
  absl::Status fatal_;
  grpc::ClientContext* call_ = nullptr;  // Of the open stream.
  std::thread runner_;
  std::thread watcher_;
};

}  // namespace llmc

#endif  // LLMC_CLIENT_WORKER_SESSION_H_
