#include "report/step_totals.h"

#include <algorithm>

namespace llmc {
namespace {

double Length(const StepInterval& interval) {
  return std::max(0.0, interval.end_s - interval.begin_s);
}

}  // namespace

std::map<int, StepSeconds> SecondsByRank(const std::vector<StepInterval>& steps) {
  std::map<int, StepSeconds> by_rank;
  for (const StepInterval& interval : steps) {
    by_rank[interval.rank][static_cast<size_t>(interval.step)] += Length(interval);
  }
  return by_rank;
}

std::map<int64_t, StepSeconds> SlowestByLayer(const std::vector<StepInterval>& steps) {
  std::map<int64_t, StepSeconds> by_layer;
  for (const StepInterval& interval : steps) {
    if (interval.layer < 0) continue;
    double& slowest = by_layer[interval.layer][static_cast<size_t>(interval.step)];
    slowest = std::max(slowest, Length(interval));
  }
  return by_layer;
}

bool RunsBeside(Step step) { return step == Step::kLoad || step == Step::kWrite; }

double BusySeconds(const StepSeconds& seconds) {
  double busy = 0;
  for (int s = 0; s < kStepCount; ++s) {
    if (!RunsBeside(static_cast<Step>(s))) busy += seconds[s];
  }
  return busy;
}

}  // namespace llmc
