// The coordinator with its store, a clock and a lock: what gRPC and HTTP call.
#ifndef LLMC_SERVICE_CONTROL_PLANE_H_
#define LLMC_SERVICE_CONTROL_PLANE_H_

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "control/coordinator.h"
#include "control/job_store.h"
#include "llmc/status.h"

namespace llmc {

// Told of what has become durable, under the lock: metrics and logs.
class ChangeObserver {
 public:
  virtual ~ChangeObserver() = default;
  virtual void OnChange(const Change& change, std::chrono::duration<double> commit_time) = 0;
};

// Thread-safe. Every method that changes something returns after it is durable;
// kUnavailable when the store cannot be written, and then nothing has changed.
class ControlPlane {
 public:
  ControlPlane(std::unique_ptr<JobStore> store, const CoordinatorOptions& options,
               ChangeObserver* observer);
  ~ControlPlane();

  // Reads the store and begins to let time pass. Once.
  absl::Status Start();
  // Watchers and sessions end; nothing changes any more.
  void Stop();
  bool stopping() const;

  using Verb = std::function<absl::StatusOr<Decision>(const Coordinator&, Now)>;
  // The job as it is afterwards; empty when it was deleted.
  absl::StatusOr<v1::Job> Decide(const Verb& verb);

  absl::StatusOr<v1::Job> Get(absl::string_view id) const;
  // The job that an earlier request made; kNotFound.
  absl::StatusOr<store::v1::JobRecord> GetByRequest(absl::string_view request_id) const;
  // Up to `limit` jobs that `wanted` says yes to, newest first, without recipe_text
  // and partition; `last`: where the last one stood.
  std::vector<v1::Job> List(const std::optional<Coordinator::Position>& after, size_t limit,
                            const std::function<bool(const v1::Job&)>& wanted,
                            Coordinator::Position* last) const;
  // Every job, newest first, under the lock.
  void Visit(const std::function<void(const v1::Job&)>& visit) const;
  std::vector<v1::Pool> Pools() const;
  absl::StatusOr<std::string> Report(absl::string_view id) const;
  // kOutOfRange: events after `after` are no longer kept.
  absl::StatusOr<std::vector<v1::JobEvent>> Events(absl::string_view id, int64_t after,
                                                   int limit) const;

  absl::StatusOr<v1::Attached> Attach(const v1::Attach& request);
  void Detach(absl::string_view instance, bool goodbye);
  absl::StatusOr<v1::HeartbeatAck> Beat(absl::string_view instance, const v1::Heartbeat& beat);
  absl::StatusOr<v1::ReportRankResponse> BeatRank(const v1::ReportRankRequest& request);
  // None: nothing to do now.
  absl::StatusOr<std::optional<v1::LeaseOffer>> NextLease(absl::string_view instance);
  absl::Status ReportSteps(absl::string_view instance, const v1::ReportSteps& report);
  absl::StatusOr<bool> AskPublish(absl::string_view instance, const v1::LeaseId& lease);
  absl::Status Finish(absl::string_view instance, const v1::Finished& finished);

  // Counts changes; waits until it is no longer `seen`, or for `timeout`.
  int64_t Version() const;
  int64_t WaitForChange(int64_t seen, std::chrono::milliseconds timeout) const;

  // A consistent copy of the store in `file`, a new file. Others wait meanwhile.
  absl::Status BackUp(const std::filesystem::path& file);
  const std::filesystem::path& state_dir() const { return store_->directory(); }

  bool store_failing() const;
  StoreSize store_size() const;
  const std::string& secret() const { return store_->secret(); }
  const CoordinatorOptions& options() const { return coordinator_.options(); }

 private:
  static Now ReadClocks();
  // Store, apply, tell. Under the lock.
  absl::Status Commit(const Change& change, Now now);
  void LetTimePass();

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::unique_ptr<JobStore> store_;
  Coordinator coordinator_;
  ChangeObserver* const observer_;
  int64_t version_ = 0;
  bool stopping_ = false;
  std::unique_ptr<std::thread> ticker_;
};

}  // namespace llmc

#endif  // LLMC_SERVICE_CONTROL_PLANE_H_
