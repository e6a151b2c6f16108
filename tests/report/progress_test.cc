#include "report/progress.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "report/progress_state.h"

namespace llmc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

StepEvent Event(StepEvent::Kind kind, Step step, int64_t layer, double time_s) {
  StepEvent event;
  event.kind = kind;
  event.step = step;
  event.layer = layer;
  event.num_layers = 4;
  event.time_s = time_s;
  return event;
}

// Everything written so far to the read end, which must not block.
std::string Drain(int fd) {
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  std::string text;
  char buffer[4096];
  for (ssize_t n; (n = read(fd, buffer, sizeof(buffer))) > 0;) text.append(buffer, n);
  return text;
}

// A pipe: not a terminal.
class PlainProgress : public ::testing::Test {
 protected:
  PlainProgress() {
    EXPECT_EQ(pipe(fds_), 0);
    options_.fd = fds_[1];
    options_.ticks = false;
  }
  ~PlainProgress() override {
    close(fds_[0]);
    close(fds_[1]);
  }
  std::string Output() { return Drain(fds_[0]); }

  int fds_[2];
  ProgressOptions options_;
};

void RunLayer(ProgressDisplay& display, int64_t layer, double begin_s) {
  double now = begin_s;
  for (Step step :
       {Step::kLoad, Step::kCapture, Step::kReduce, Step::kSolve, Step::kPropagate, Step::kWrite}) {
    display.OnEvent(Event(StepEvent::Kind::kBegin, step, layer, now));
    if (step == Step::kSolve) {
      StepEvent linear = Event(StepEvent::Kind::kLinear, step, layer, now);
      linear.module = absl::StrCat("model.layers.", layer, ".mlp.down_proj");
      linear.output_error = 0.00314;
      display.OnEvent(linear);
    }
    now += 1;
    StepEvent end = Event(StepEvent::Kind::kEnd, step, layer, now);
    end.rss_bytes = 1'800'000'000;
    display.OnEvent(end);
  }
}

TEST_F(PlainProgress, FinishedLayers_AreOneLineEach) {
  {
    ProgressDisplay display(options_);
    for (int layer = 0; layer < 4; ++layer) RunLayer(display, layer, 6.0 * layer);
  }
  const std::vector<std::string> lines = absl::StrSplit(Output(), '\n', absl::SkipEmpty());
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0],
            "[1/4] layer 0 in 6.00 s (load 1.00, capture 1.00, reduce 1.00, solve 1.00, propagate "
            "1.00, write 1.00), worst error 3.14e-03 model.layers.0.mlp.down_proj, 1.80 GB, "
            "0:18 left");
  EXPECT_THAT(lines[3], HasSubstr("0:00 left"));
}

TEST_F(PlainProgress, NothingFinishesFor30s_GivesASignOfLife) {
  ProgressDisplay display(options_);
  display.OnEvent(Event(StepEvent::Kind::kBegin, Step::kSolve, 2, 5));
  display.Tick(20);
  EXPECT_EQ(Output(), "");
  display.Tick(36);
  EXPECT_EQ(Output(), "[0/4] layer 2: Solve for 31.0 s\n");
  display.Tick(50);
  EXPECT_EQ(Output(), "");
  display.Tick(66);
  EXPECT_EQ(Output(), "[0/4] layer 2: Solve for 1 min 01 s\n");
}

TEST_F(PlainProgress, Warning_IsEscapedAndOnItsOwnLine) {
  ProgressDisplay display(options_);
  StepEvent event = Event(StepEvent::Kind::kWarning, Step::kSolve, 0, 1);
  event.module = "evil\x1b[2J\nname";
  event.message = "Cholesky failed\r\x07";
  display.OnEvent(event);
  EXPECT_EQ(Output(), "warning: evil\\x1b[2J\\nname: Cholesky failed\\r\\x07\n");
}

TEST_F(PlainProgress, Quiet_ShowsWarningsOnly) {
  options_.quiet = true;
  ProgressDisplay display(options_);
  RunLayer(display, 0, 0);
  display.Tick(500);
  StepEvent event = Event(StepEvent::Kind::kWarning, Step::kSolve, 0, 1);
  event.message = "odd";
  display.OnEvent(event);
  EXPECT_EQ(Output(), "warning: odd\n");
}

TEST_F(PlainProgress, ColorAlways_ColoursWarnings) {
  options_.color = ColorMode::kAlways;
  ProgressDisplay display(options_);
  StepEvent event = Event(StepEvent::Kind::kWarning, Step::kSolve, 0, 1);
  event.message = "odd";
  display.OnEvent(event);
  EXPECT_EQ(Output(), "\x1b[33mwarning:\x1b[0m odd\n");
}

TEST_F(PlainProgress, StepsOfTheJob_AreToldWhenTheyEnd) {
  ProgressDisplay display(options_);
  display.OnEvent(Event(StepEvent::Kind::kBegin, Step::kCommit, -1, 3));
  display.OnEvent(Event(StepEvent::Kind::kEnd, Step::kCommit, -1, 4.5));
  EXPECT_EQ(Output(), "Commit in 1.50 s\n");
}

TEST_F(PlainProgress, ResumedLayer_IsCountedButNotTimed) {
  ProgressDisplay display(options_);
  for (Step step : {Step::kLoad, Step::kPropagate}) {
    display.OnEvent(Event(StepEvent::Kind::kBegin, step, 0, 1));
    display.OnEvent(Event(StepEvent::Kind::kEnd, step, 0, 2));
  }
  EXPECT_EQ(Output(), "[1/4] layer 0 kept from before\n");
  RunLayer(display, 1, 2);
  EXPECT_THAT(Output(), HasSubstr("0:12 left")) << "two more layers of 6 s";
}

TEST_F(PlainProgress, EventsAfterFinish_AreIgnored) {
  ProgressDisplay display(options_);
  display.Finish();
  RunLayer(display, 0, 0);
  display.Tick(500);
  display.Finish();
  EXPECT_EQ(Output(), "");
}

TEST_F(PlainProgress, ReaderIsGone_DoesNotFail) {
  ASSERT_EQ(fcntl(fds_[1], F_SETFL, O_NONBLOCK), 0);
  ProgressDisplay display(options_);
  for (int i = 0; i < 3000; ++i) display.PrintLine(std::string(100, 'x'));
  EXPECT_GT(Output().size(), 0u);
}

TEST_F(PlainProgress, ManyThreads_WriteWholeLines) {
  ProgressDisplay display(options_);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&display] {
      for (int i = 0; i < 50; ++i) display.PrintLine("one whole line");
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Output(), absl::StrReplaceAll(std::string(200, 'x'), {{"x", "one whole line\n"}}));
}

TEST(ProgressState, SeveralRanks_LayerFinishesWithTheLastWrite) {
  ProgressState state;
  for (int rank : {0, 1}) {
    StepEvent event = Event(StepEvent::Kind::kBegin, Step::kWrite, 0, 1);
    event.rank = rank;
    EXPECT_FALSE(state.Add(event).has_value());
  }
  StepEvent end = Event(StepEvent::Kind::kEnd, Step::kWrite, 0, 2);
  EXPECT_FALSE(state.Add(end).has_value());
  end.rank = 1;
  EXPECT_TRUE(state.Add(end).has_value());
  EXPECT_FALSE(state.Add(end).has_value()) << "only once";
  EXPECT_EQ(state.num_finished(), 1);
}

TEST(ProgressState, Fraction_NeverGoesBackAndReachesOne) {
  ProgressState state;
  double last = 0;
  for (int layer = 0; layer < 4; ++layer) {
    state.Add(Event(StepEvent::Kind::kBegin, Step::kWrite, layer, layer * 10));
    for (double t : {2.0, 9.0, 30.0}) {
      state.SetTime(layer * 10 + t);
      EXPECT_GE(state.FractionDone(), last);
      last = state.FractionDone();
      EXPECT_LT(last, 1);
    }
    state.Add(Event(StepEvent::Kind::kEnd, Step::kWrite, layer, layer * 10 + 10));
  }
  EXPECT_EQ(state.FractionDone(), 1);
}

// Enough of a terminal to see what a person would: text, cursor, erasing.
class Screen {
 public:
  explicit Screen(size_t columns) : columns_(columns), rows_(1) {}

  void Write(absl::string_view text) {
    while (!text.empty()) {
      if (absl::StartsWith(text, "\x1b[")) {
        const size_t end = text.find_first_not_of("0123456789;?", 2);
        Control(text.substr(2, end - 2), text[end]);
        text.remove_prefix(end + 1);
      } else {
        Put(text[0]);
        text.remove_prefix(1);
      }
    }
  }

  const std::vector<std::string>& rows() const { return rows_; }
  bool cursor_visible() const { return cursor_visible_; }

 private:
  void Put(char c) {
    if (c == '\r') {
      column_ = 0;
    } else if (c == '\n') {
      if (++row_ == rows_.size()) rows_.emplace_back();
    } else {
      ASSERT_LT(column_, columns_) << "a line wraps";
      std::string& row = rows_[row_];
      row.resize(std::max(row.size(), column_ + 1), ' ');
      row[column_++] = c;
    }
  }

  void Control(absl::string_view number, char what) {
    if (what == 'A') {
      const size_t up = std::stoul(std::string(number));
      ASSERT_LE(up, row_);
      row_ -= up;
    } else if (what == 'K') {
      rows_[row_].resize(std::min(rows_[row_].size(), column_));
    } else if (what == 'J') {
      rows_.resize(row_ + 1);
      rows_[row_].resize(std::min(rows_[row_].size(), column_));
    } else if (number == "?25") {
      cursor_visible_ = what == 'h';
    } else {
      ASSERT_EQ(what, 'm') << "an unexpected sequence";
    }
  }

  const size_t columns_;
  std::vector<std::string> rows_;
  size_t row_ = 0, column_ = 0;
  bool cursor_visible_ = true;
};

// A pseudo-terminal of 100 columns.
class LiveProgress : public ::testing::Test {
 protected:
  static constexpr int kColumns = 100;

  LiveProgress() {
    setenv("TERM", "xterm", 1);
    setenv("LC_ALL", "C", 1);
    unsetenv("NO_COLOR");
    main_ = posix_openpt(O_RDWR | O_NOCTTY);
    EXPECT_EQ(grantpt(main_), 0);
    EXPECT_EQ(unlockpt(main_), 0);
    options_.fd = open(ptsname(main_), O_RDWR | O_NOCTTY);
    EXPECT_GE(options_.fd, 0);
    Resize(kColumns);
    options_.ticks = false;
    reader_ = std::thread([this] { Read(); });
  }
  ~LiveProgress() override {
    close(options_.fd);  // The reader then sees the end.
    reader_.join();
    close(main_);
  }

  void Resize(int columns) {
    winsize size{};
    size.ws_col = static_cast<unsigned short>(columns);
    size.ws_row = 24;
    EXPECT_EQ(ioctl(main_, TIOCSWINSZ, &size), 0);
  }

  // Everything written so far: a mark is sent after it and waited for.
  std::string Output() {
    constexpr absl::string_view kMark = "\x01";
    EXPECT_EQ(write(options_.fd, kMark.data(), kMark.size()), 1);
    std::unique_lock lock(mutex_);
    arrived_.wait(lock, [&] { return absl::StrContains(seen_, kMark); });
    const size_t mark = seen_.find('\x01');
    std::string text = seen_.substr(0, mark);
    seen_.erase(0, mark + 1);
    return text;
  }

  int main_ = -1;
  ProgressOptions options_;

 private:
  // A terminal holds 4 KiB only, so somebody must read all the time.
  void Read() {
    char buffer[4096];
    for (ssize_t n; (n = read(main_, buffer, sizeof(buffer))) > 0;) {
      const std::lock_guard lock(mutex_);
      seen_.append(buffer, static_cast<size_t>(n));
      arrived_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable arrived_;
  std::string seen_;
  std::thread reader_;
};

TEST_F(LiveProgress, RunningLayer_ShowsBarAndStep) {
  Screen screen(kColumns);
  ProgressDisplay display(options_);
  RunLayer(display, 0, 0);
  RunLayer(display, 1, 6);
  display.OnEvent(Event(StepEvent::Kind::kBegin, Step::kCapture, 2, 12));
  display.Tick(15);
  screen.Write(Output());
  ASSERT_EQ(screen.rows().size(), 2u);
  EXPECT_THAT(screen.rows()[0], HasSubstr("Compressing ####"));
  EXPECT_THAT(screen.rows()[0], HasSubstr("2/4 layers  62%  0:15 elapsed  0:09 left"));
  EXPECT_THAT(screen.rows()[1], HasSubstr("layer 2  Capture  3.00 s"));
  EXPECT_THAT(screen.rows()[1], HasSubstr("worst error 3.14e-03"));
  EXPECT_TRUE(screen.cursor_visible());
}

TEST_F(LiveProgress, Finish_TakesTheBarAway) {
  Screen screen(kColumns);
  {
    ProgressDisplay display(options_);
    RunLayer(display, 0, 0);
  }
  screen.Write(Output());
  EXPECT_THAT(screen.rows(), ElementsAre(""));
  EXPECT_TRUE(screen.cursor_visible());
}

TEST_F(LiveProgress, WarningsAndLogLines_StandAboveTheBar) {
  Screen screen(kColumns);
  ProgressDisplay display(options_);
  RunLayer(display, 0, 0);
  StepEvent event = Event(StepEvent::Kind::kWarning, Step::kSolve, 1, 6.01);
  event.message = "Cholesky failed";
  display.OnEvent(event);
  display.PrintLine("a log line");
  display.Tick(8);
  screen.Write(Output());
  ASSERT_EQ(screen.rows().size(), 4u);
  EXPECT_EQ(screen.rows()[0], "warning: Cholesky failed");
  EXPECT_EQ(screen.rows()[1], "a log line");
  EXPECT_THAT(screen.rows()[2], HasSubstr("Compressing"));
}

TEST_F(LiveProgress, HostileTitle_CannotMoveTheCursor) {
  options_.title = "\x1b[5Aevil\n";
  Screen screen(kColumns);
  ProgressDisplay display(options_);
  RunLayer(display, 0, 0);
  screen.Write(Output());
  EXPECT_THAT(screen.rows()[0], HasSubstr("\\x1b[5Aevil\\n"));
}

TEST_F(LiveProgress, NarrowTerminal_DoesNotWrap) {
  for (int columns : {20, 25, 33, 48}) {
    Resize(columns);
    Screen screen(static_cast<size_t>(columns));
    options_.rank_lines = true;
    ProgressDisplay display(options_);
    RunLayer(display, 0, 0);
    display.Tick(7);
    screen.Write(Output());
    EXPECT_EQ(screen.rows().size(), 3u) << columns;
    display.Finish();
    Output();
  }
}

TEST_F(LiveProgress, NoColor_WritesNoColour) {
  setenv("NO_COLOR", "1", 1);
  {
    ProgressDisplay display(options_);
    RunLayer(display, 0, 0);
  }
  unsetenv("NO_COLOR");
  const std::string text = Output();
  EXPECT_THAT(text, HasSubstr("Compressing"));
  for (const char* color : {"\x1b[36m", "\x1b[2m", "\x1b[0m"}) {
    EXPECT_THAT(text, Not(HasSubstr(color)));
  }
}

TEST_F(LiveProgress, DumbTerminal_GetsPlainLines) {
  setenv("TERM", "dumb", 1);
  ProgressDisplay display(options_);
  RunLayer(display, 0, 0);
  const std::string text = Output();
  EXPECT_THAT(text, HasSubstr("[1/4] layer 0 in 6.00 s"));
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
}

TEST_F(LiveProgress, RankLines_AreLimited) {
  Screen screen(kColumns);
  options_.rank_lines = true;
  ProgressDisplay display(options_);
  for (int rank = 0; rank < 20; ++rank) {
    StepEvent event = Event(StepEvent::Kind::kBegin, Step::kSolve, 0, 1);
    event.rank = rank;
    display.OnEvent(event);
  }
  display.Tick(4);
  screen.Write(Output());
  ASSERT_EQ(screen.rows().size(), 2u + 16 + 1);
  EXPECT_THAT(screen.rows()[2], HasSubstr("rank   0  layer    0  Solve"));
  EXPECT_EQ(screen.rows()[18], "  and 4 more ranks");
}

TEST_F(LiveProgress, TickingThread_EndsWithTheDisplay) {
  options_.ticks = true;
  for (int i = 0; i < 20; ++i) {
    ProgressDisplay display(options_);
    RunLayer(display, 0, 0);
  }
  EXPECT_THAT(Output(), HasSubstr("Compressing"));
}

}  // namespace
}  // namespace llmc
