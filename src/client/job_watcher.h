// Follows one job to its end, whatever happens to the connection.
#ifndef LLMC_CLIENT_JOB_WATCHER_H_
#define LLMC_CLIENT_JOB_WATCHER_H_

#include <functional>
#include <string>

#include "client/channel.h"
#include "llmc/v1/job_service.grpc.pb.h"

namespace llmc {

class JobWatcher {
 public:
  // Called with every message, in order and once.
  using OnMessage = std::function<void(const v1::WatchJobResponse&)>;

  JobWatcher(const CoordinatorChannel& channel, std::string name, OnMessage on_message)
      : channel_(channel), name_(std::move(name)), on_message_(std::move(on_message)) {}

  // The state in which the job ended. kCancelled: Ctrl-C. Errors that a new
  // connection would not cure.
  absl::StatusOr<v1::JobState> Run();

 private:
  absl::Status RunStream();
  void Take(const v1::WatchJobResponse& message);

  const CoordinatorChannel& channel_;
  const std::string name_;
  const OnMessage on_message_;
  std::string token_;
  v1::JobState state_ = v1::JOB_STATE_UNSPECIFIED;
};

}  // namespace llmc

#endif  // LLMC_CLIENT_JOB_WATCHER_H_
