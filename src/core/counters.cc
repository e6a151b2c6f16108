#include "llmc/counters.h"

#include <array>
#include <atomic>

namespace llmc {
namespace {

// On lines of their own: threads that count different things do not slow each other.
struct alignas(64) Cell {
  std::atomic<int64_t> value{0};
};

Cell& CellOf(Counter counter) {
  static std::array<Cell, kNumCounters> cells;
  return cells[static_cast<size_t>(counter)];
}

}  // namespace

void Count(Counter counter, int64_t amount) {
  CellOf(counter).value.fetch_add(amount, std::memory_order_relaxed);
}

int64_t CountOf(Counter counter) { return CellOf(counter).value.load(std::memory_order_relaxed); }

}  // namespace llmc
