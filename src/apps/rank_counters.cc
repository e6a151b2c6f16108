#include "apps/rank_counters.h"

#include <sys/resource.h>

#include "llmc/counters.h"

namespace llmc {
namespace {

double Seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}

void AddCollective(const char* operation, int64_t bytes, Counter nanoseconds,
                   v1::RankCounters& counters) {
  v1::CollectiveCounters& added = *counters.add_collectives();
  added.set_operation(operation);
  added.set_bytes(bytes);
  added.set_seconds(static_cast<double>(CountOf(nanoseconds)) * 1e-9);
}

}  // namespace

v1::RankCounters ReadRankCounters() {
  v1::RankCounters counters;
  struct rusage usage {};
  getrusage(RUSAGE_SELF, &usage);
  counters.set_cpu_seconds(Seconds(usage.ru_utime) + Seconds(usage.ru_stime));
  counters.set_model_read_bytes(CountOf(Counter::kModelReadBytes));
  counters.set_output_written_bytes(CountOf(Counter::kOutputWrittenBytes));
  counters.set_spill_read_bytes(CountOf(Counter::kSpillReadBytes));
  counters.set_spill_written_bytes(CountOf(Counter::kSpillWrittenBytes));
  counters.set_calibration_tokens(CountOf(Counter::kCalibrationTokens));
  AddCollective("reduce", CountOf(Counter::kReduceBytes), Counter::kReduceNanoseconds, counters);
  AddCollective("broadcast", CountOf(Counter::kBroadcastBytes), Counter::kBroadcastNanoseconds,
                counters);
  AddCollective("gather", CountOf(Counter::kGatherBytes), Counter::kGatherNanoseconds, counters);
  AddCollective("barrier", 0, Counter::kBarrierNanoseconds, counters);
  return counters;
}

}  // namespace llmc
