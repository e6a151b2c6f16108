// A SQLite file system that fails, or ends the process at, its n-th operation.
#ifndef LLMC_TESTS_CONTROL_FAILING_VFS_H_
#define LLMC_TESTS_CONTROL_FAILING_VFS_H_

#include <cstdint>

namespace llmc {

enum class Fault : uint8_t { kNone, kError, kFull, kKill };

// Registers the VFS "failing" at the first call. From now on operation `at` (1-based:
// writes, syncs, truncations, opens, deletes) meets `fault`; 0: none does.
void SetFault(Fault fault, int64_t at);
// Operations since SetFault.
int64_t OperationsSeen();

}  // namespace llmc

#endif  // LLMC_TESTS_CONTROL_FAILING_VFS_H_
