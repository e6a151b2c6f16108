// One rank's sign of life, and its own fence.
#ifndef LLMC_CLIENT_RANK_BEAT_H_
#define LLMC_CLIENT_RANK_BEAT_H_

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "client/channel.h"
#include "llmc/v1/worker_service.pb.h"

namespace llmc {

struct RankBeatOptions {
  std::string instance;
  int rank = 0;
  std::chrono::milliseconds interval{2000};
  std::function<int64_t()> resident_bytes;
  std::function<v1::RankCounters()> counters;
  // This rank must not write any more, or a peer hangs. Expected not to return.
  std::function<void(const std::string& why)> on_fence;
};

// Reports this rank to the coordinator on a thread of its own. Ranks other than 0
// cannot see the session; they learn here that the lease is gone or that a peer,
// rank 0 among them, hangs.
class RankBeat {
 public:
  using Clock = std::chrono::steady_clock;

  RankBeat(const CoordinatorChannel& channel, RankBeatOptions options);
  ~RankBeat();

  // The job that this rank works on from now on; none: nothing to lose.
  void Hold(const std::optional<v1::LeaseId>& lease);
  // Sent with the next report. Never waits. Ranks other than 0 only.
  void AddStep(v1::StepRecord step);
  // Waits until the steps have been kept, for at most `timeout`.
  void Flush(std::chrono::milliseconds timeout);

 private:
  void Run();
  void Report(const v1::ReportRankRequest& request, Clock::time_point deadline);
  v1::ReportRankRequest MakeRequest();
  void OnResponse(const v1::ReportRankRequest& request, const v1::ReportRankResponse& response,
                  Clock::time_point sent);

  const CoordinatorChannel& channel_;
  const RankBeatOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<v1::LeaseId> lease_;
  Clock::time_point lease_end_;
  bool lease_known_ = false;  // A report has confirmed it.
  std::vector<v1::StepRecord> steps_;
  std::optional<v1::ReportSteps> batch_;  // Cut, not kept yet.
  int64_t next_batch_ = 1;
  bool flushing_ = false;
  bool ending_ = false;
  // Used by the runner only.
  std::shared_ptr<grpc::Channel> heard_on_;
  Clock::time_point heard_;  // On that channel, or since it is in use.
  std::thread runner_;
};

}  // namespace llmc

#endif  // LLMC_CLIENT_RANK_BEAT_H_
