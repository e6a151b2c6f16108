#include "report/progress_state.h"

#include <algorithm>
#include <cmath>

namespace llmc {
namespace {

// NaN is worse than any number.
bool IsWorse(double error, const std::optional<double>& worst) {
  if (!worst) return true;
  return std::isnan(error) || error > *worst;
}

}  // namespace

std::optional<FinishedLayer> ProgressState::Add(const StepEvent& event) {
  SetTime(event.time_s);
  num_layers_ = std::max({num_layers_, event.num_layers, event.layer + 1});
  RankNow& now = ranks_[event.rank];
  if (event.rss_bytes > 0) now.rss_bytes = event.rss_bytes;
  switch (event.kind) {
    case StepEvent::Kind::kBegin:
      Begin(event);
      break;
    case StepEvent::Kind::kProgress:
      now.done_frac = event.done_frac;
      break;
    case StepEvent::Kind::kEnd:
      return End(event);
    case StepEvent::Kind::kLinear:
      NoteLinear(event);
      break;
    case StepEvent::Kind::kWarning:
      break;
  }
  return std::nullopt;
}

void ProgressState::SetTime(double time_s) {
  if (time_s > time_s_) time_s_ = time_s;
}

const RankNow* ProgressState::Leader() const {
  return ranks_.empty() ? nullptr : &ranks_.begin()->second;
}

ProgressState::OpenLayer& ProgressState::LayerOf(const StepEvent& event) {
  auto [found, is_new] = open_.try_emplace(event.layer);
  if (is_new) {
    found->second.begin_s = event.time_s;
    found->second.result.layer = event.layer;
  }
  return found->second;
}

void ProgressState::Begin(const StepEvent& event) {
  RankNow& now = ranks_[event.rank];
  now = {event.step, event.layer, event.time_s, 0, now.rss_bytes, false};
  if (event.layer < 0 || finished_.contains(event.layer)) return;
  OpenLayer& layer = LayerOf(event);
  layer.open[{event.rank, event.step}] = event.time_s;
  layer.writing_left.insert(event.rank);
  const bool computes = event.step == Step::kSolve || event.step == Step::kCapture;
  layer.solved = layer.solved || computes;
  // A prefetched Load begins long before its layer's turn; a plan's first Load is the start.
  eta_.Start(event.time_s);
}

std::optional<FinishedLayer> ProgressState::End(const StepEvent& event) {
  RankNow& now = ranks_[event.rank];
  if (now.step == event.step && now.layer == event.layer) now.idle = true;
  if (event.layer < 0 || finished_.contains(event.layer)) return std::nullopt;
  OpenLayer& layer = LayerOf(event);
  const auto began = layer.open.find({event.rank, event.step});
  if (began != layer.open.end()) {
    double& slowest = layer.result.step_seconds[static_cast<size_t>(event.step)];
    slowest = std::max(slowest, event.time_s - began->second);
    layer.open.erase(began);
  }
  return FinishIfDone(event, layer);
}

std::optional<FinishedLayer> ProgressState::FinishIfDone(const StepEvent& event, OpenLayer& layer) {
  const bool replayed = event.step == Step::kPropagate && !layer.solved;
  if (event.step == Step::kWrite || replayed) layer.writing_left.erase(event.rank);
  const bool last_step = event.step == Step::kWrite || replayed;
  if (!last_step || !layer.writing_left.empty()) return std::nullopt;
  layer.result.seconds = event.time_s - layer.begin_s;
  layer.result.replayed = replayed;
  if (replayed) {
    eta_ = EtaEstimator();
    eta_.Start(event.time_s);
  } else {
    eta_.Finish(event.time_s);
  }
  last_finished_ = layer.result;
  finished_.insert(event.layer);
  open_.erase(event.layer);
  return last_finished_;
}

void ProgressState::NoteLinear(const StepEvent& event) {
  if (event.layer < 0 || finished_.contains(event.layer) || event.output_error < 0) return;
  FinishedLayer& result = LayerOf(event).result;
  if (!IsWorse(event.output_error, result.worst_error)) return;
  result.worst_error = event.output_error;
  result.worst_module = event.module;
}

double ProgressState::FractionDone() {
  if (num_layers_ == 0) return 0;
  double done = static_cast<double>(num_finished());
  const std::optional<double> one = eta_.SecondsPerLayer();
  if (one && *one > 0 && num_finished() < num_layers_) {
    const double left = eta_.Remaining(1, time_s_).value_or(*one);
    done += std::min(0.95, 1 - left / *one);
  }
  fraction_ = std::max(fraction_, std::clamp(done / static_cast<double>(num_layers_), 0.0, 1.0));
  return fraction_;
}

std::optional<double> ProgressState::SecondsLeft() const {
  return eta_.Remaining(num_layers_ - num_finished(), time_s_);
}

}  // namespace llmc
