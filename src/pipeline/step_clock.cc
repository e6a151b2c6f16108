#include "pipeline/step_clock.h"

#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "report/step_stream.h"

namespace llmc {

StepClock::StepClock(StepSink sink, int rank, std::function<void()> at_end)
    : sink_(std::move(sink)),
      rank_(rank),
      at_end_(std::move(at_end)),
      start_(std::chrono::steady_clock::now()) {}

double StepClock::SecondsAt(std::chrono::steady_clock::time_point time) const {
  return std::chrono::duration<double>(time - start_).count();
}

double StepClock::Now() const { return SecondsAt(std::chrono::steady_clock::now()); }

void StepClock::Emit(StepEvent event) { EmitAt(Now(), std::move(event)); }

void StepClock::EmitAt(double time_s, StepEvent event) {
  event.rank = rank_;
  event.num_layers = num_layers_;
  event.time_s = time_s;
  if (sink_) sink_(event);
  if (event.kind != StepEvent::Kind::kProgress) events_.push_back(std::move(event));
}

void StepClock::Begin(Step step, int64_t layer) {
  StepEvent event;
  event.kind = StepEvent::Kind::kBegin;
  event.step = step;
  event.layer = layer;
  Emit(std::move(event));
}

void StepClock::End(Step step, int64_t layer) {
  if (at_end_) at_end_();
  StepEvent event;
  event.kind = StepEvent::Kind::kEnd;
  event.step = step;
  event.layer = layer;
  event.done_frac = 1;
  event.rss_bytes = ResidentBytes();
  Emit(std::move(event));
}

void StepClock::Add(Step step, int64_t layer, const TimeSpan& span) {
  StepEvent event;
  event.kind = StepEvent::Kind::kBegin;
  event.step = step;
  event.layer = layer;
  EmitAt(SecondsAt(span.begin), event);
  event.kind = StepEvent::Kind::kEnd;
  event.done_frac = 1;
  event.rss_bytes = ResidentBytes();
  EmitAt(SecondsAt(span.end), std::move(event));
}

void StepClock::Progress(Step step, int64_t layer, double done_frac) {
  StepEvent event;
  event.kind = StepEvent::Kind::kProgress;
  event.step = step;
  event.layer = layer;
  event.done_frac = done_frac;
  Emit(std::move(event));
}

void StepClock::Linear(const SolvedModule& solved) {
  StepEvent event;
  event.kind = StepEvent::Kind::kLinear;
  event.step = Step::kSolve;
  event.layer = solved.planned->module.layer;
  event.module = solved.planned->module.name;
  event.output_error = solved.output_error.value_or(-1);
  SolveNote note;
  note.method = std::string(MethodName(solved.method));
  if (const auto pruned = pruned_by_.find(event.module); pruned != pruned_by_.end()) {
    note.method = absl::StrCat(pruned->second, " + ", note.method);
  }
  note.is_fallback = solved.is_fallback;
  note.damping_frac = solved.dampening_frac;
  note.num_tokens = solved.num_tokens;
  note.reason = solved.reason;
  event.message = ToString(note);
  Emit(std::move(event));
}

void StepClock::Pruned(const PrunedModule& pruned, const std::string& method) {
  StepEvent event;
  event.kind = StepEvent::Kind::kLinear;
  event.step = Step::kSolve;
  event.layer = pruned.transform->layer;
  event.module = pruned.transform->module;
  event.output_error = pruned.output_error.value_or(-1);
  SolveNote note;
  note.method = method;
  note.is_fallback = !pruned.fallback_reason.empty();
  note.damping_frac = pruned.dampening_frac;
  note.num_tokens = pruned.num_tokens;
  note.sparsity = pruned.sparsity;
  note.reason = pruned.fallback_reason;
  event.message = ToString(note);
  pruned_by_[event.module] = method;
  Emit(std::move(event));
}

void StepClock::Warn(Step step, const std::string& message) {
  StepEvent event;
  event.kind = StepEvent::Kind::kWarning;
  event.step = step;
  event.message = message;
  Emit(std::move(event));
}

int64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t size_pages = 0;
  int64_t resident_pages = 0;
  statm >> size_pages >> resident_pages;
  return resident_pages * sysconf(_SC_PAGE_SIZE);
}

int64_t PeakResidentBytes() {
  struct rusage usage {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

}  // namespace llmc
