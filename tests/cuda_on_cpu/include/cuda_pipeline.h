// Asynchronous copies from global to shared memory, done at once.
#ifndef LLMC_TESTS_CUDA_ON_CPU_CUDA_PIPELINE_H_
#define LLMC_TESTS_CUDA_ON_CPU_CUDA_PIPELINE_H_

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

inline void __pipeline_memcpy_async(void* to, const void* from, size_t bytes,
                                    size_t zero_filled = 0) {
  const bool is_aligned = reinterpret_cast<uintptr_t>(to) % bytes == 0 &&
                          reinterpret_cast<uintptr_t>(from) % bytes == 0;
  if ((bytes != 4 && bytes != 8 && bytes != 16) || !is_aligned || zero_filled > bytes) {
    std::fprintf(stderr, "__pipeline_memcpy_async: %zu bytes, %zu of them 0, or misaligned\n",
                 bytes, zero_filled);
    std::abort();
  }
  std::memcpy(to, from, bytes - zero_filled);
  std::memset(static_cast<char*>(to) + bytes - zero_filled, 0, zero_filled);
}
inline void __pipeline_commit() {}
inline void __pipeline_wait_prior(size_t) {}

#endif  // LLMC_TESTS_CUDA_ON_CPU_CUDA_PIPELINE_H_
