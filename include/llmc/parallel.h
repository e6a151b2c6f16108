// The one source of threads inside a rank.
//
// Work is cut into units that do not depend on the number of threads, and a
// unit is computed by one thread, so results do not depend on it either.
#ifndef LLMC_PARALLEL_H_
#define LLMC_PARALLEL_H_

#include <cstdint>
#include <functional>

namespace llmc {

// Sets the number of threads ParallelFor uses, >= 1. Call before the first
// ParallelFor, from the main thread. Default: the CPUs this process may run on.
void SetNumThreads(int num_threads);
int NumThreads();

// Calls unit(i) once for every i in [0, num_units), on up to NumThreads()
// threads, the caller among them; returns when all are done. Units are handed
// out in rising order. A call from inside a unit runs serially. An exception
// thrown by a unit is rethrown here after the others have ended.
void ParallelFor(int64_t num_units, const std::function<void(int64_t)>& unit);

}  // namespace llmc

#endif  // LLMC_PARALLEL_H_
