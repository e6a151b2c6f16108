#include "report/progress_frame.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "llmc/byte_size.h"
#include "report/numbers.h"

namespace llmc {
namespace {

constexpr absl::string_view kReset = "\x1b[0m";
constexpr absl::string_view kDim = "\x1b[2m";
constexpr absl::string_view kCyan = "\x1b[36m";
constexpr absl::string_view kYellow = "\x1b[33m";
constexpr int kMinBar = 8;
constexpr int kMaxBar = 40;

std::string Painted(absl::string_view text, absl::string_view color, const Terminal& terminal) {
  return terminal.color ? absl::StrCat(color, text, kReset) : std::string(text);
}

std::string Repeat(absl::string_view text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) absl::StrAppend(&out, text);
  return out;
}

std::string Bar(double fraction, int width, const Terminal& terminal) {
  const int halves = static_cast<int>(std::floor(fraction * width * 2));
  const int full = halves / 2;
  if (!terminal.unicode) {
    return absl::StrCat(Painted(Repeat("#", full), kCyan, terminal), Repeat("-", width - full));
  }
  const bool half = halves % 2 == 1;
  const std::string done = absl::StrCat(Repeat("━", full), half ? "╸" : "");
  const int rest = width - full - (half ? 1 : 0);
  // Without colour the rest must look different by shape.
  const absl::string_view rest_mark = terminal.color ? "━" : "┄";
  return absl::StrCat(Painted(done, kCyan, terminal),
                      Painted(Repeat(rest_mark, rest), kDim, terminal));
}

std::string Left(const ProgressState& state) {
  const std::optional<double> left = state.SecondsLeft();
  return left ? absl::StrCat(FormatClock(*left), " left") : "";
}

std::string Percent(double fraction) {
  return absl::StrFormat("%3d%%", static_cast<int>(std::floor(fraction * 100)));
}

// From the fullest wording to the shortest.
std::vector<std::string> CountTexts(ProgressState& state, double fraction) {
  const std::string elapsed = FormatClock(state.time_s());
  if (state.num_layers() == 0) return {absl::StrCat(elapsed, " elapsed"), elapsed};
  const std::string count = absl::StrCat(state.num_finished(), "/", state.num_layers());
  std::string left = Left(state);
  if (!left.empty()) left.insert(0, "  ");
  const std::string percent = Percent(fraction);
  return {absl::StrCat(count, " layers ", percent, "  ", elapsed, " elapsed", left),
          absl::StrCat(count, " layers ", percent, left), absl::StrCat(count, left), count};
}

std::string BarLine(ProgressState& state, const Terminal& terminal, const std::string& title) {
  const int width = terminal.columns - 1;
  const double fraction = state.FractionDone();
  const std::string name = EscapeForTerminal(title);
  for (const std::string& text : CountTexts(state, fraction)) {
    const int room = width - DisplayWidth(name) - DisplayWidth(text) - 3;
    if (room < kMinBar) continue;
    return absl::StrCat(name, " ", Bar(fraction, std::min(room, kMaxBar), terminal), "  ", text);
  }
  return TruncateToWidth(CountTexts(state, fraction).back(), width, terminal.unicode);
}

std::string StepText(const RankNow& now, double time_s) {
  std::string text;
  if (now.layer >= 0) absl::StrAppend(&text, "layer ", now.layer, "  ");
  absl::StrAppend(&text, StepName(now.step));
  if (now.done_frac > 0)
    absl::StrAppend(&text, " ", absl::StripLeadingAsciiWhitespace(Percent(now.done_frac)));
  return absl::StrCat(text, "  ", FormatDuration(std::max(0.0, time_s - now.begin_s)));
}

std::string LastLayerText(const FinishedLayer& layer) {
  if (layer.replayed) return absl::StrCat("layer ", layer.layer, " kept from before");
  std::string text = absl::StrCat("last layer ", FormatDuration(layer.seconds));
  if (layer.worst_error) {
    absl::StrAppend(&text, ", worst error ", FormatFraction(*layer.worst_error));
  }
  return text;
}

std::string DetailLine(const ProgressState& state, const Terminal& terminal) {
  std::vector<std::string> parts;
  const RankNow* leader = state.Leader();
  if (leader != nullptr) parts.push_back(StepText(*leader, state.time_s()));
  if (state.last_finished()) parts.push_back(LastLayerText(*state.last_finished()));
  if (leader != nullptr && leader->rss_bytes > 0) {
    parts.push_back(absl::StrCat("memory ", FormatByteSize(leader->rss_bytes)));
  }
  const std::string text =
      absl::StrCat("  ", absl::StrJoin(parts, terminal.unicode ? "  ·  " : "  |  "));
  return Painted(TruncateToWidth(text, terminal.columns - 1, terminal.unicode), kDim, terminal);
}

std::string RankLine(int rank, const RankNow& now, double time_s, const Terminal& terminal) {
  const std::string what = now.idle ? "waits" : std::string(StepName(now.step));
  const std::string percent = now.idle || now.done_frac == 0 ? "" : Percent(now.done_frac);
  const std::string text =
      absl::StrFormat("  rank %3d  layer %4d  %-10s %4s  %10s  %s", rank, now.layer, what, percent,
                      FormatDuration(std::max(0.0, time_s - now.begin_s)),
                      now.rss_bytes > 0 ? FormatByteSize(now.rss_bytes) : "");
  return TruncateToWidth(text, terminal.columns - 1, terminal.unicode);
}

void AddRankLines(const ProgressState& state, const Terminal& terminal,
                  std::vector<std::string>* lines) {
  int shown = 0;
  for (const auto& [rank, now] : state.ranks()) {
    if (shown++ == kMaxRankLines) break;
    lines->push_back(RankLine(rank, now, state.time_s(), terminal));
  }
  const int hidden = static_cast<int>(state.ranks().size()) - kMaxRankLines;
  if (hidden > 0) {
    const std::string text = absl::StrCat("  and ", hidden, " more ranks");
    lines->push_back(TruncateToWidth(text, terminal.columns - 1, terminal.unicode));
  }
}

std::string Count(const ProgressState& state) {
  const std::string total = absl::StrCat(state.num_layers());
  return absl::StrFormat("[%*d/%s]", static_cast<int>(total.size()), state.num_finished(), total);
}

// "(load 0.40, capture 5.10)": the steps that took time.
std::string StepTimes(const FinishedLayer& layer) {
  std::vector<std::string> parts;
  for (int s = 0; s < kNumSteps; ++s) {
    if (layer.step_seconds[s] < 0.005) continue;
    const std::string name = absl::AsciiStrToLower(StepName(static_cast<Step>(s)));
    parts.push_back(absl::StrFormat("%s %.2f", name, layer.step_seconds[s]));
  }
  return parts.empty() ? "" : absl::StrCat(" (", absl::StrJoin(parts, ", "), ")");
}

}  // namespace

std::vector<std::string> LiveFrame(ProgressState& state, const Terminal& terminal,
                                   const std::string& title, bool rank_lines) {
  std::vector<std::string> lines = {BarLine(state, terminal, title), DetailLine(state, terminal)};
  if (rank_lines) AddRankLines(state, terminal, &lines);
  return lines;
}

std::string FinishedLayerLine(const ProgressState& state, const FinishedLayer& layer) {
  if (layer.replayed) {
    return absl::StrCat(Count(state), " layer ", layer.layer, " kept from before");
  }
  std::string line = absl::StrCat(Count(state), " layer ", layer.layer, " in ",
                                  FormatDuration(layer.seconds), StepTimes(layer));
  if (layer.worst_error) {
    absl::StrAppend(&line, ", worst error ", FormatFraction(*layer.worst_error), " ",
                    EscapeForTerminal(layer.worst_module));
  }
  const RankNow* leader = state.Leader();
  if (leader != nullptr && leader->rss_bytes > 0) {
    absl::StrAppend(&line, ", ", FormatByteSize(leader->rss_bytes));
  }
  const std::string left = Left(state);
  return left.empty() ? line : absl::StrCat(line, ", ", left);
}

std::string SignOfLifeLine(const ProgressState& state) {
  const RankNow* leader = state.Leader();
  if (leader == nullptr) return absl::StrCat("starting, ", FormatClock(state.time_s()), " elapsed");
  std::string line = state.num_layers() > 0 ? absl::StrCat(Count(state), " ") : "";
  if (leader->layer >= 0) absl::StrAppend(&line, "layer ", leader->layer, ": ");
  absl::StrAppend(&line, StepName(leader->step), " for ",
                  FormatDuration(std::max(0.0, state.time_s() - leader->begin_s)));
  const std::string left = Left(state);
  return left.empty() ? line : absl::StrCat(line, ", ", left);
}

std::string FinishedStepLine(const StepEvent& event, double seconds) {
  return absl::StrCat(StepName(event.step), " in ", FormatDuration(seconds));
}

std::string WarningLine(const StepEvent& event, const Terminal& terminal) {
  std::string line = absl::StrCat(Painted("warning:", kYellow, terminal), " ");
  if (!event.module.empty()) absl::StrAppend(&line, EscapeForTerminal(event.module), ": ");
  return absl::StrCat(line, EscapeForTerminal(event.message));
}

}  // namespace llmc
