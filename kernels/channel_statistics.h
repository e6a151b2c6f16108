// Per-channel statistics of a linear layer's inputs: what SmoothQuant
// (arXiv:2211.10438), AWQ (arXiv:2306.00978) and Wanda (arXiv:2306.11695) know about
// activations.
#ifndef LLMC_KERNELS_CHANNEL_STATISTICS_H_
#define LLMC_KERNELS_CHANNEL_STATISTICS_H_

#include <span>

#include "kernels/hessian.h"
#include "llmc/status.h"

namespace llmc::kernels {

// Smallest and largest value of every channel of `x` over its tokens, into `min` and
// `max`, both [features]; +infinity and -infinity without tokens. On the calling
// thread. kInvalidArgument: another dtype, wrong sizes, or a value that is not finite.
absl::Status ChannelExtrema(const TokenRows& x, std::span<float> min, std::span<float> max);

// Sum over tokens of |x| of every channel, into `sums`, [features]: float32 over blocks
// of tokens, blocks in double, in token order. On the calling thread.
absl::Status ChannelMagnitudes(const TokenRows& x, std::span<double> sums);

// Sum over tokens of x^2 of every channel, into `sums`, [features], in double and in
// token order. On the calling thread.
absl::Status ChannelSquares(const TokenRows& x, std::span<double> sums);

// All three on a device, each output [features] or null; min and max are +infinity and
// -infinity without tokens. Magnitudes and squares are summed in double, over segments of
// 256 tokens in token order, segments in order, so they may differ from the CPU's in their
// last bits; extrema do not. Infinities and NaNs show in the extrema: a NaN as the least or
// largest value, by its sign. Enqueues.
struct DeviceChannelStatistics {
  float* min = nullptr;
  float* max = nullptr;
  double* magnitudes = nullptr;
  double* squares = nullptr;
};
absl::Status ChannelStatistics(const TokenRows& x, const DeviceChannelStatistics& out,
                               DeviceQueue& queue);

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_CHANNEL_STATISTICS_H_
