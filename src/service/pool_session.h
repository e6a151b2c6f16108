// One stream of one pool: what it says, and what it is told.
#ifndef LLMC_SERVICE_POOL_SESSION_H_
#define LLMC_SERVICE_POOL_SESSION_H_

#include <atomic>
#include <functional>
#include <mutex>
#include <string>

#include "llmc/v1/worker_service.pb.h"
#include "service/control_plane.h"
#include "service/metrics.h"

namespace llmc {

class PoolSession {
 public:
  // `write` sends one message; false: the stream is gone.
  using Write = std::function<bool(const v1::SessionResponse&)>;
  PoolSession(ControlPlane& plane, Metrics& metrics, std::string instance, Write write)
      : plane_(plane),
        metrics_(metrics),
        instance_(std::move(instance)),
        write_(std::move(write)) {}

  // Answers one message of the worker. An error ends the stream; a store that
  // cannot be written leaves the message without an answer, and the worker asks again.
  absl::Status OnMessage(const v1::SessionRequest& request);
  // Offers jobs and passes on what clients ask for, until `ended`.
  void Tell(const std::atomic<bool>& ended);

  bool said_goodbye() const { return said_goodbye_; }
  bool Send(const v1::SessionResponse& response);

 private:
  absl::Status OnHeartbeat(const v1::Heartbeat& heartbeat);
  absl::Status OnPublish(const v1::LeaseId& lease);
  void TellToStop();

  ControlPlane& plane_;
  Metrics& metrics_;
  const std::string instance_;
  const Write write_;
  std::mutex write_mutex_;
  std::mutex lease_mutex_;
  v1::LeaseId lease_;                                  // Under lease_mutex_.
  v1::StopReason told_ = v1::STOP_REASON_UNSPECIFIED;  // Under lease_mutex_.
  std::atomic<bool> said_goodbye_{false};
};

}  // namespace llmc

#endif  // LLMC_SERVICE_POOL_SESSION_H_
