// The lines that show a ProgressState.
#ifndef LLMC_SRC_REPORT_PROGRESS_FRAME_H_
#define LLMC_SRC_REPORT_PROGRESS_FRAME_H_

#include <string>
#include <vector>

#include "report/progress_state.h"
#include "report/terminal.h"

namespace llmc {

inline constexpr int kMaxRankLines = 16;

// The live display: the bar, what happens now, and one line per rank when
// `rank_lines`. No line is wider than terminal.columns - 1.
std::vector<std::string> LiveFrame(ProgressState& state, const Terminal& terminal,
                                   const std::string& title, bool rank_lines);

// "[12/32] layer 11 in 14.2 s (load 0.40, capture 5.10, ...), worst error
// 3.1e-03 mlp.down_proj, 1.80 GB, 4:40 left".
std::string FinishedLayerLine(const ProgressState& state, const FinishedLayer& layer);

// "[12/32] layer 12: Solve for 31.0 s, 4:40 left".
std::string SignOfLifeLine(const ProgressState& state);

// "Commit in 1.20 s": a step that belongs to no layer has ended.
std::string FinishedStepLine(const StepEvent& event, double seconds);

// "warning: model.layers.3.mlp.up_proj: Cholesky failed ...", escaped, with
// colour when the terminal has it.
std::string WarningLine(const StepEvent& event, const Terminal& terminal);

}  // namespace llmc

#endif  // LLMC_SRC_REPORT_PROGRESS_FRAME_H_
