// libFuzzer's entry. LLMC_FUZZ_READER is the function of readers.h to call.

#include <cstddef>
#include <cstdint>

#include "json_mutator.h"
#include "readers.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* text, size_t size, size_t max_size);

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  llmc::fuzz::LLMC_FUZZ_READER({reinterpret_cast<const char*>(data), size});
  return 0;
}

#if LLMC_FUZZ_JSON
// Two of three changes keep the input JSON.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned int seed) {
  if (seed % 3 != 0) {
    const size_t changed = llmc::fuzz::MutateJson(data, size, max_size, seed);
    if (changed != 0) return changed;
  }
  return LLVMFuzzerMutate(data, size, max_size);
}
#endif
