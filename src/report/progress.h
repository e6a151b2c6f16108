// The progress of a job on stderr: a live bar on a terminal, lines elsewhere.
#ifndef LLMC_SRC_REPORT_PROGRESS_H_
#define LLMC_SRC_REPORT_PROGRESS_H_

#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "llmc/step.h"
#include "report/terminal.h"

namespace llmc {

struct ProgressOptions {
  int fd = 2;  // Borrowed; stays open while the display lives.
  ColorMode color = ColorMode::kAuto;
  bool quiet = false;       // Only warnings are written.
  bool rank_lines = false;  // On a terminal: one line per rank under the bar (at most 16).
  bool plain = false;       // Lines even on a terminal (--no-progress=live).
  bool ticks = true;        // A thread keeps clock and ETA moving between events.
  std::string title = "Compressing";  // The first word of the bar.
};

// Thread-safe. Events may come from any rank and any thread.
//
// A layer counts as finished when its Write has ended on every rank that began
// it, or when its Propagate ended without a Solve (a resumed run replays it).
//
// On a live terminal a frame is one write(2) that leaves the cursor visible, so
// a process that is killed leaves a usable terminal; no line is wider than the
// terminal. Elsewhere there is one line per finished layer, and a sign of life
// when 30 s pass without one. Names and messages are escaped.
class ProgressDisplay {
 public:
  explicit ProgressDisplay(const ProgressOptions& options);
  ~ProgressDisplay();  // Calls Finish().

  ProgressDisplay(const ProgressDisplay&) = delete;
  ProgressDisplay& operator=(const ProgressDisplay&) = delete;

  void OnEvent(const StepEvent& event);

  // Forwards to OnEvent; the display must outlive it.
  StepSink Sink();

  // Writes a line of another origin (a log) without disturbing the bar.
  void PrintLine(absl::string_view line);

  // Says that job time is now `time_s`: redraws, or writes the sign of life.
  // The ticking thread does this by itself; tests call it.
  void Tick(double time_s);

  // Takes the bar away and ends the thread. Later events are ignored.
  void Finish();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmc

#endif  // LLMC_SRC_REPORT_PROGRESS_H_
