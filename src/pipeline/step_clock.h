// Turns the run of a job into StepEvents.
#ifndef LLMC_PIPELINE_STEP_CLOCK_H_
#define LLMC_PIPELINE_STEP_CLOCK_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "llmc/step.h"
#include "modifiers/modifier.h"
#include "modifiers/transform.h"

namespace llmc {

// From when to when something took.
struct TimeSpan {
  std::chrono::steady_clock::time_point begin = {};
  std::chrono::steady_clock::time_point end = {};
};

// Emits this rank's events to a sink and keeps them for the report.
// Not thread-safe.
class StepClock {
 public:
  // `at_end`, when given, is called whenever a step ends.
  StepClock(StepSink sink, int rank, std::function<void()> at_end = nullptr);

  void set_num_layers(int64_t num_layers) { num_layers_ = num_layers; }

  void Begin(Step step, int64_t layer);
  void End(Step step, int64_t layer);
  // A step that another thread has done; on the thread of the clock.
  void Add(Step step, int64_t layer, const TimeSpan& span);
  void Progress(Step step, int64_t layer, double done_frac);
  void Linear(const SolvedModule& solved);
  // `method`: "SparseGPT", ...; what quantises the module later is named beside it.
  void Pruned(const PrunedModule& pruned, const std::string& method);
  void Warn(Step step, const std::string& message);

  const std::vector<StepEvent>& events() const { return events_; }
  double Now() const;  // Seconds since the clock was made.

 private:
  double SecondsAt(std::chrono::steady_clock::time_point time) const;
  void Emit(StepEvent event);
  void EmitAt(double time_s, StepEvent event);

  StepSink sink_;
  int rank_;
  std::function<void()> at_end_;
  int64_t num_layers_ = 0;
  std::chrono::steady_clock::time_point start_;
  std::vector<StepEvent> events_;
  std::map<std::string, std::string> pruned_by_;  // Module -> method.
};

// Begins a step and ends it with the scope.
class StepScope {
 public:
  StepScope(StepClock& clock, Step step, int64_t layer = -1)
      : clock_(clock), step_(step), layer_(layer) {
    clock_.Begin(step_, layer_);
  }
  ~StepScope() { clock_.End(step_, layer_); }
  StepScope(const StepScope&) = delete;
  StepScope& operator=(const StepScope&) = delete;

 private:
  StepClock& clock_;
  Step step_;
  int64_t layer_;
};

// Resident memory of this process now, and the most it ever had. Bytes.
int64_t ResidentBytes();
int64_t PeakResidentBytes();

}  // namespace llmc

#endif  // LLMC_PIPELINE_STEP_CLOCK_H_
