// libFuzzer's entry. LLMC_FUZZ_READER is the function of readers.h to call.

#include <cstddef>
#include <cstdint>

#include "readers.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  llmc::fuzz::LLMC_FUZZ_READER({reinterpret_cast<const char*>(data), size});
  return 0;
}
