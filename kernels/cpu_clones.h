// Several machine-code versions of one function, chosen when the program starts
// by what the CPU offers: AVX-512, AVX2, or what every x86-64 has.
#ifndef LLMC_KERNELS_CPU_CLONES_H_
#define LLMC_KERNELS_CPU_CLONES_H_

// A function so marked is compiled once for each level. Everything its loops
// call must be inline. Sanitizers cannot run the dispatcher (it runs before they
// are set up), so their builds have one version.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define LLMC_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define LLMC_CLONES
#endif

#define LLMC_INLINE inline __attribute__((always_inline))
#define LLMC_INLINE_LAMBDA __attribute__((always_inline))

#endif  // LLMC_KERNELS_CPU_CLONES_H_
