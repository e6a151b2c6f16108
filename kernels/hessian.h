// Second moments of a linear layer's inputs: X^T X.
//
// This is the H of GPTQ and SparseGPT up to a factor (E. Frantar et al.,
// arXiv:2210.17323, section 3: H = 2 X X^T with samples as columns).
#ifndef LLMC_KERNELS_HESSIAN_H_
#define LLMC_KERNELS_HESSIAN_H_

#include <cstdint>
#include <span>

#include "kernels/device_queue.h"
#include "kernels/triangle.h"
#include "llmc/dtype.h"
#include "llmc/status.h"

namespace llmc::kernels {

// Inputs of a layer, row-major, one token a row.
struct TokenRows {
  const void* data = nullptr;
  DType dtype = DType::kF32;  // kF32 or kBF16; AddGram on a device also kF16.
  int64_t tokens = 0;         // Rows, >= 0.
  int64_t features = 0;       // Columns.
  int64_t stride = 0;         // Elements from row to row, >= features.
};

// How products are formed; kBest takes the first that this CPU has.
enum class GramMethod : uint8_t {
  kBest,
  kBf16Dot,  // AVX512_BF16 dot products; BF16 input only.
  kFma,      // AVX-512 fused multiply-adds; BF16 is widened.
  kBlas,     // sgemm; BF16 is widened.
};

// Adds the upper triangle of x^T x to `gram`, f32 in the layout of
// Triangle(x.features), 64-byte aligned.
//
// Products are exact for BF16 (BF16 instructions where the CPU has them, which
// take subnormal inputs as zero), sums are in FP32 in token order. One unit of
// work is one tile on one thread, so the bits do not depend on the threads; they
// may depend on the kind of CPU. Calls with consecutive rows give sums that
// depend on where the rows were cut. Allocates a packed copy of at most 2,048 rows.
//
// kInvalidArgument: another dtype, a stride below `features`, a wrong size of
// `gram`. kUnimplemented: this CPU does not have `method`.
absl::Status AddGram(const TokenRows& x, std::span<float> gram,
                     GramMethod method = GramMethod::kBest);

// The same on a device: `gram`, f32 in the layout of Triangle(x.features), is added to.
//
// Tiles of the triangle are products on tensor cores for BF16 and F16, full FP32 (no
// TF32) for F32, with FP32 sums. The bits depend on the kind of device and on how rows are
// cut into calls, not on earlier calls or on the rest of the device. `gram` is read and
// written once a call, so calls of some thousand rows are the fast ones. Enqueues.
// kInvalidArgument as on the CPU.
absl::Status AddGram(const TokenRows& x, float* gram, DeviceQueue& queue);

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_HESSIAN_H_
