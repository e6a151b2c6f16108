// Sums whose bits depend on what is added and not on the order or the ranks.
#ifndef LLMC_CALIBRATION_EXACT_SUMS_H_
#define LLMC_CALIBRATION_EXACT_SUMS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "collective/collective.h"
#include "llmc/status.h"

namespace llmc {

// `size` sums in 128-bit fixed point with 64 bits behind the point: what is added is
// cut there, and then integers are added. Not thread-safe.
class ExactSums {
 public:
  explicit ExactSums(int64_t size) : sums_(size) {}

  int64_t size() const { return static_cast<int64_t>(sums_.size()); }

  // Adds `values`, [size]. A value that is not finite or beyond 2^50 makes its sum
  // infinite for good.
  void Add(std::span<const double> values);

  // Collective call: afterwards every rank holds the sums over all ranks. Call once.
  absl::Status Reduce(Collective& collective);

  double Get(int64_t i) const;

 private:
  struct Sum {
    __extension__ typedef __int128 Fixed;
    Fixed value = 0;
    bool overflow = false;
  };
  std::vector<Sum> sums_;
};

}  // namespace llmc

#endif  // LLMC_CALIBRATION_EXACT_SUMS_H_
