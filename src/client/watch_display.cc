#include "client/watch_display.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "client/job_text.h"
#include "rpc/job_messages.h"

namespace llmc {

WatchDisplay::WatchDisplay(std::string name, const ProgressOptions& options)
    : name_(std::move(name)), options_(options), bar_(std::make_unique<ProgressDisplay>(options)) {}

void WatchDisplay::OnMessage(const v1::WatchJobResponse& message) {
  if (message.has_snapshot()) OnSnapshot(message.snapshot());
  if (message.has_event()) OnEvent(message.event());
}

void WatchDisplay::PrintState(v1::JobState state, const std::string& why) {
  if (options_.quiet) return;
  bar_->PrintLine(
      absl::StrCat(name_, ": ", StateText(state), why.empty() ? "" : absl::StrCat(" (", why, ")")));
}

void WatchDisplay::OnSnapshot(const v1::Job& job) {
  PrintState(job.state(), job.has_error()           ? job.error().message()
                          : job.waits_for().empty() ? ""
                                                    : absl::StrCat("waits for ", job.waits_for()));
  attempt_ = job.attempt();
  // Who comes late has not seen the layers that are done: for the bar they are like
  // those that a resumed run only brings its samples through.
  StepEvent event;
  event.step = Step::kPropagate;
  event.num_layers = job.progress().num_layers();
  for (event.layer = 0; event.layer < job.progress().layers_done(); ++event.layer) {
    event.kind = StepEvent::Kind::kBegin;
    bar_->OnEvent(event);
    event.kind = StepEvent::Kind::kEnd;
    bar_->OnEvent(event);
  }
}

void WatchDisplay::OnEvent(const v1::JobEvent& event) {
  if (event.attempt() != attempt_) {
    attempt_ = event.attempt();
    bar_->Finish();
    bar_ = std::make_unique<ProgressDisplay>(options_);
  }
  if (event.has_state_change()) {
    PrintState(event.state_change().to(), event.state_change().reason());
  }
  for (const v1::StepRecord& step : event.steps().steps()) bar_->OnEvent(ToStepEvent(step));
}

}  // namespace llmc
