// What every Collective must do, run by each rank of a world of any size. Sums
// and extrema are exact, so equality is the check.
#ifndef LLMC_TESTS_COLLECTIVE_CONTRACT_H_
#define LLMC_TESTS_COLLECTIVE_CONTRACT_H_

#include "collective/collective.h"

namespace llmc {

// OK, or what was wrong on this rank. All ranks must call it.
absl::Status CheckCollectiveContract(Collective& world);

}  // namespace llmc

#endif  // LLMC_TESTS_COLLECTIVE_CONTRACT_H_
