// A watched job on a terminal: its states as lines, its steps as a bar.
#ifndef LLMC_CLIENT_WATCH_DISPLAY_H_
#define LLMC_CLIENT_WATCH_DISPLAY_H_

#include <memory>
#include <string>

#include "llmc/v1/job_service.pb.h"
#include "report/progress.h"

namespace llmc {

class WatchDisplay {
 public:
  WatchDisplay(std::string name, const ProgressOptions& options);

  void OnMessage(const v1::WatchJobResponse& message);
  void Finish() { bar_->Finish(); }

 private:
  void OnSnapshot(const v1::Job& job);
  void OnEvent(const v1::JobEvent& event);
  void PrintState(v1::JobState state, const std::string& why);

  const std::string name_;
  const ProgressOptions options_;
  int attempt_ = 0;
  std::unique_ptr<ProgressDisplay> bar_;  // Of one attempt.
};

}  // namespace llmc

#endif  // LLMC_CLIENT_WATCH_DISPLAY_H_
