// What the events so far say about a running job. No clock, no output.
#ifndef LLMC_SRC_REPORT_PROGRESS_STATE_H_
#define LLMC_SRC_REPORT_PROGRESS_STATE_H_

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "llmc/step.h"
#include "report/eta.h"

namespace llmc {

inline constexpr int kNumSteps = static_cast<int>(Step::kVerify) + 1;

// What one rank is doing.
struct RankNow {
  Step step = Step::kPlan;
  int64_t layer = -1;
  double begin_s = 0;
  double done_frac = 0;
  int64_t rss_bytes = 0;
  bool idle = true;  // Between steps.
};

// A layer that has finished.
struct FinishedLayer {
  int64_t layer = 0;
  double seconds = 0;                            // First begin to finish.
  std::array<double, kNumSteps> step_seconds{};  // The slowest rank of each step.
  std::optional<double> worst_error;             // Over its linears.
  std::string worst_module;
  bool replayed = false;  // A resumed run had it already.
};

class ProgressState {
 public:
  // Takes one event in; the layer it finished, if any.
  std::optional<FinishedLayer> Add(const StepEvent& event);

  // Later than every event: job time goes on between them.
  void SetTime(double time_s);

  double time_s() const { return time_s_; }
  int64_t num_layers() const { return num_layers_; }
  int64_t num_finished() const { return static_cast<int64_t>(finished_.size()); }
  const std::map<int, RankNow>& ranks() const { return ranks_; }
  const std::optional<FinishedLayer>& last_finished() const { return last_finished_; }

  // The lowest rank, whose step the bar names; null before the first event.
  const RankNow* Leader() const;

  // Finished part of all layers in [0, 1]; never goes back. The current layer
  // counts by its time, up to 95 % of the usual one.
  double FractionDone();

  // Seconds until the last layer is done; nothing while unknown.
  std::optional<double> SecondsLeft() const;

 private:
  struct OpenLayer {
    double begin_s = 0;
    bool solved = false;                          // A Solve or Capture has begun.
    std::map<std::pair<int, Step>, double> open;  // rank, step -> begin
    std::set<int> writing_left;                   // Ranks that began it and have not ended Write.
    FinishedLayer result;
  };

  OpenLayer& LayerOf(const StepEvent& event);
  void Begin(const StepEvent& event);
  std::optional<FinishedLayer> End(const StepEvent& event);
  std::optional<FinishedLayer> FinishIfDone(const StepEvent& event, OpenLayer& layer);
  void NoteLinear(const StepEvent& event);

  double time_s_ = 0;
  double fraction_ = 0;
  int64_t num_layers_ = 0;
  std::map<int, RankNow> ranks_;
  std::map<int64_t, OpenLayer> open_;
  std::set<int64_t> finished_;
  std::optional<FinishedLayer> last_finished_;
  EtaEstimator eta_;
};

}  // namespace llmc

#endif  // LLMC_SRC_REPORT_PROGRESS_STATE_H_
