// What this process has read, written, computed and waited for since it began: a few
// numbers that only grow, for metrics.
#ifndef LLMC_COUNTERS_H_
#define LLMC_COUNTERS_H_

#include <cstdint>

namespace llmc {

enum class Counter : uint8_t {
  kModelReadBytes,      // Of checkpoints.
  kOutputWrittenBytes,  // Of weight files.
  kSpillReadBytes,      // Activations that did not fit into memory.
  kSpillWrittenBytes,
  kCalibrationTokens,  // Run through a layer: every token counts once a layer.
  // Per kind of collective operation: bytes that this rank passed in, and the time
  // until the operation returned, mostly waiting for peers.
  kReduceBytes,
  kReduceNanoseconds,
  kBroadcastBytes,
  kBroadcastNanoseconds,
  kGatherBytes,
  kGatherNanoseconds,
  kBarrierNanoseconds,
};
inline constexpr int kNumCounters = static_cast<int>(Counter::kBarrierNanoseconds) + 1;

// Thread-safe and cheap: one relaxed atomic addition. `amount` >= 0.
void Count(Counter counter, int64_t amount);
int64_t CountOf(Counter counter);

}  // namespace llmc

#endif  // LLMC_COUNTERS_H_
