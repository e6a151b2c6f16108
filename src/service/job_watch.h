// One WatchJob stream: a snapshot, then every event once and in order.
#ifndef LLMC_SERVICE_JOB_WATCH_H_
#define LLMC_SERVICE_JOB_WATCH_H_

#include <functional>
#include <string>

#include "llmc/v1/job_service.pb.h"
#include "service/control_plane.h"

namespace llmc {

// A stream ends by itself after this long, so that balancers and upgrades work; the
// client goes on with its token.
inline constexpr auto kMaxWatchTime = std::chrono::hours(1);
inline constexpr auto kWatchHeartbeat = std::chrono::seconds(15);

class JobWatch {
 public:
  // `write` sends one message and is false when the client is gone; `gone` says so
  // while nothing is sent.
  using Write = std::function<bool(const v1::WatchJobResponse&)>;
  JobWatch(const ControlPlane& plane, Write write, std::function<bool()> gone)
      : plane_(plane), write_(std::move(write)), gone_(std::move(gone)) {}

  // OK when the job has ended and everything was sent. kOutOfRange: the token is too
  // old. kUnavailable: the server stops.
  absl::Status Run(const v1::WatchJobRequest& request);

 private:
  absl::Status Begin(const v1::WatchJobRequest& request);
  absl::Status SendNewEvents(bool* done);
  bool Send(v1::WatchJobResponse response);

  const ControlPlane& plane_;
  const Write write_;
  const std::function<bool()> gone_;
  std::string id_;
  int64_t sequence_ = 0;
};

}  // namespace llmc

#endif  // LLMC_SERVICE_JOB_WATCH_H_
