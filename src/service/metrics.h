// The coordinator's metric families. The one user of prometheus-cpp.
#ifndef LLMC_SERVICE_METRICS_H_
#define LLMC_SERVICE_METRICS_H_

#include <atomic>
#include <memory>
#include <string>

#include "service/control_plane.h"

namespace prometheus {
class Registry;
}

namespace llmc {

// A call that has ended.
struct CallEnd {
  std::string service;
  std::string method;
  std::string code;
};

// Thread-safe.
class Metrics : public ChangeObserver {
 public:
  Metrics();
  ~Metrics() override;

  void OnChange(const Change& change, std::chrono::duration<double> commit_time) override;
  void CountCall(const CallEnd& call, double seconds);
  void CountAuthFailure(const std::string& reason);
  void CountRenewal(bool valid);
  void SetCertificateExpiry(int64_t seconds);  // Since 1970, UTC.
  void AddWatchStream(int delta) { watch_streams_ += delta; }
  int watch_streams() const { return watch_streams_; }

  // Prometheus text format 0.0.4, gauges read from `plane` now.
  std::string Page(const ControlPlane& plane);

 private:
  struct Families;
  void CountEvent(const store::v1::JobRecord& record, const v1::JobEvent& event);
  void CountSteps(const v1::Job& job, const v1::StepBatch& steps);
  void CountStepEnd(const std::string& method, const v1::StepRecord& step, const std::string& key);
  void ReadProcess();
  void ReadJobs(const ControlPlane& plane);
  void ReadStore(const ControlPlane& plane);

  std::unique_ptr<prometheus::Registry> registry_;
  std::unique_ptr<Families> families_;
  std::atomic<int> watch_streams_{0};
};

}  // namespace llmc

#endif  // LLMC_SERVICE_METRICS_H_
