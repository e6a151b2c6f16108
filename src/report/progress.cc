#include "report/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "report/progress_frame.h"
#include "report/progress_state.h"

namespace llmc {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kRedrawSeconds = 0.1;
constexpr double kSignOfLifeSeconds = 30;
constexpr auto kLiveTick = std::chrono::milliseconds(250);
constexpr auto kPlainTick = std::chrono::seconds(1);

// Progress is a courtesy: a closed or full pipe must not fail the job.
void WriteAll(int fd, absl::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    text.remove_prefix(static_cast<size_t>(written));
  }
}

}  // namespace

class ProgressDisplay::Impl {
 public:
  explicit Impl(const ProgressOptions& options)
      : options_(options), terminal_(DetectTerminal(options.fd, options.color)) {
    live_ = terminal_.is_live && !options.plain && !options.quiet;
    if (options.ticks && !options.quiet) {
      ticker_ = std::jthread([this](std::stop_token stop) { RunTicker(stop); });
    }
  }

  void OnEvent(const StepEvent& event) {
    const std::lock_guard lock(mutex_);
    if (ended_) return;
    const double step_begin_s = StepBegin(event);
    const std::optional<FinishedLayer> finished = state_.Add(event);
    heard_at_ = Clock::now();
    if (event.kind == StepEvent::Kind::kWarning) Emit(WarningLine(event, terminal_));
    if (options_.quiet) return;
    if (live_) {
      if (finished || event.time_s - drawn_s_ >= kRedrawSeconds) Draw();
      return;
    }
    if (finished) {
      Emit(FinishedLayerLine(state_, *finished));
    } else if (event.kind == StepEvent::Kind::kEnd && event.layer < 0 && IsLeader(event.rank)) {
      Emit(FinishedStepLine(event, event.time_s - step_begin_s));
    }
  }

  void PrintLine(absl::string_view line) {
    const std::lock_guard lock(mutex_);
    Emit(EscapeForTerminal(line));
  }

  void Tick(double time_s) {
    const std::lock_guard lock(mutex_);
    TickLocked(time_s);
  }

  void Finish() {
    {
      const std::lock_guard lock(mutex_);
      if (!ended_) WriteAll(options_.fd, TakeFrameAway());
      ended_ = true;
    }
    if (ticker_.joinable()) {
      ticker_.request_stop();
      ticker_.join();
    }
  }

 private:
  bool IsLeader(int rank) const { return state_.ranks().begin()->first == rank; }

  double StepBegin(const StepEvent& event) const {
    const auto found = state_.ranks().find(event.rank);
    return found == state_.ranks().end() ? event.time_s : found->second.begin_s;
  }

  void TickLocked(double time_s) {
    if (ended_ || options_.quiet) return;
    state_.SetTime(time_s);
    if (live_) {
      Draw();
    } else if (time_s - written_s_ >= kSignOfLifeSeconds) {
      Emit(SignOfLifeLine(state_));
    }
  }

  void RunTicker(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    const Clock::duration interval =
        live_ ? Clock::duration(kLiveTick) : Clock::duration(kPlainTick);
    while (!wake_.wait_for(lock, stop, interval, [&] { return stop.stop_requested(); })) {
      if (stop.stop_requested()) return;
      const Clock::time_point now = Clock::now();
      const double silent_s = std::chrono::duration<double>(now - heard_at_).count();
      heard_at_ = now;
      TickLocked(state_.time_s() + silent_s);
    }
  }

  // Goes to the first column of the frame's first row. A terminal made narrower
  // since has wrapped the old lines, so their rows are counted anew.
  std::string ToFrameStart() const {
    if (frame_.empty()) return "";
    int rows = -1;
    for (const std::string& line : frame_) {
      rows += std::max(1, (DisplayWidth(line) + terminal_.columns - 1) / terminal_.columns);
    }
    return rows > 0 ? absl::StrCat("\r\x1b[", rows, "A") : "\r";
  }

  std::string TakeFrameAway() {
    if (frame_.empty()) return "";
    const std::string text = absl::StrCat(ToFrameStart(), "\x1b[J");
    frame_.clear();
    return text;
  }

  void Draw() {
    terminal_.columns = TerminalColumns(options_.fd);
    const std::string start = ToFrameStart();
    frame_ = LiveFrame(state_, terminal_, options_.title, options_.rank_lines);
    const std::string lines = absl::StrJoin(frame_, "\x1b[K\n");
    WriteAll(options_.fd, absl::StrCat("\x1b[?25l", start, lines, "\x1b[K\x1b[J\x1b[?25h"));
    drawn_s_ = state_.time_s();
  }

  // Writes one finished line; the frame, when there is one, moves below it.
  void Emit(absl::string_view line) {
    if (live_) terminal_.columns = TerminalColumns(options_.fd);
    const bool redraw = !frame_.empty() && !ended_;
    WriteAll(options_.fd, absl::StrCat(TakeFrameAway(), line, "\n"));
    written_s_ = state_.time_s();
    if (redraw) Draw();
  }

  const ProgressOptions options_;
  std::mutex mutex_;
  Terminal terminal_;
  bool live_ = false;
  bool ended_ = false;
  ProgressState state_;
  std::vector<std::string> frame_;  // As it stands on the terminal.
  double drawn_s_ = -1;             // Job time of the last frame.
  double written_s_ = 0;            // Job time of the last line.
  Clock::time_point heard_at_ = Clock::now();
  std::condition_variable_any wake_;
  std::jthread ticker_;  // Last: it uses everything above.
};

ProgressDisplay::ProgressDisplay(const ProgressOptions& options)
    : impl_(std::make_unique<Impl>(options)) {}

ProgressDisplay::~ProgressDisplay() { impl_->Finish(); }

void ProgressDisplay::OnEvent(const StepEvent& event) { impl_->OnEvent(event); }

StepSink ProgressDisplay::Sink() {
  return [this](const StepEvent& event) { OnEvent(event); };
}

void ProgressDisplay::PrintLine(absl::string_view line) { impl_->PrintLine(line); }

void ProgressDisplay::Tick(double time_s) { impl_->Tick(time_s); }

void ProgressDisplay::Finish() { impl_->Finish(); }

}  // namespace llmc
