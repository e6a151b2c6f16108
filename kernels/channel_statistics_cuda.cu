#include "absl/strings/str_cat.h"
#include "kernels/channel_statistics.h"
#include "kernels/cuda_queue.cuh"
#include "kernels/element.cuh"

namespace llmc::kernels {
namespace {

constexpr int kThreads = 128;
constexpr int64_t kSegmentTokens = 256;

// Sums and extrema of one channel over some tokens, or of all of them.
struct Partial {
  double magnitudes;
  double squares;
  int32_t min;
  int32_t max;
};

__device__ Partial Empty() { return {0, 0, Ordered(INFINITY), Ordered(-INFINITY)}; }

// Block (i, s): channels [128 i, ...) over the tokens of segment s.
__global__ void SegmentsKernel(TokenRows x, Partial* partials) {
  const int64_t channel = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (channel >= x.features) return;
  const int64_t first = static_cast<int64_t>(blockIdx.y) * kSegmentTokens;
  const int64_t end = first + kSegmentTokens < x.tokens ? first + kSegmentTokens : x.tokens;
  Partial sum = Empty();
#pragma unroll 8
  for (int64_t token = first; token < end; ++token) {
    const float value = LoadElement(x.dtype, x.data, token * x.stride + channel);
    const double wide = value;
    sum.magnitudes += fabs(wide);
    sum.squares += wide * wide;
    const int32_t ordered = Ordered(value);
    sum.min = ordered < sum.min ? ordered : sum.min;
    sum.max = ordered > sum.max ? ordered : sum.max;
  }
  partials[blockIdx.y * x.features + channel] = sum;
}

// Adds the segments up in their order.
__global__ void ChannelsKernel(const Partial* partials, int64_t num_segments, int64_t features,
                               DeviceChannelStatistics out) {
  const int64_t channel = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (channel >= features) return;
  Partial sum = Empty();
  for (int64_t s = 0; s < num_segments; ++s) {
    const Partial part = partials[s * features + channel];
    sum.magnitudes += part.magnitudes;
    sum.squares += part.squares;
    sum.min = part.min < sum.min ? part.min : sum.min;
    sum.max = part.max > sum.max ? part.max : sum.max;
  }
  if (out.min != nullptr) out.min[channel] = FromOrdered(sum.min);
  if (out.max != nullptr) out.max[channel] = FromOrdered(sum.max);
  if (out.magnitudes != nullptr) out.magnitudes[channel] = sum.magnitudes;
  if (out.squares != nullptr) out.squares[channel] = sum.squares;
}

}  // namespace

absl::Status ChannelStatistics(const TokenRows& x, const DeviceChannelStatistics& out,
                               DeviceQueue& queue) {
  if (x.dtype != DType::kF32 && x.dtype != DType::kBF16) {
    return absl::InvalidArgumentError("channel statistics: expected F32 or BF16 rows");
  }
  const int64_t num_segments = (x.tokens + kSegmentTokens - 1) / kSegmentTokens;
  constexpr int64_t kMostSegments = 65535;  // Of the second size of a grid.
  if (x.tokens < 0 || num_segments > kMostSegments || x.features <= 0 || x.stride < x.features) {
    return absl::InvalidArgumentError(absl::StrCat("channel statistics: ", x.tokens, " tokens of ",
                                                   x.features, " features, stride ", x.stride));
  }
  LLMC_ASSIGN_OR_RETURN(DeviceBuffer partials,
                        DeviceBuffer::Allocate(queue, num_segments * x.features * sizeof(Partial)));
  const dim3 grid(NumBlocks(x.features, kThreads), static_cast<unsigned>(num_segments));
  LLMC_RETURN_IF_ERROR(Launch(queue, {grid, kThreads}, SegmentsKernel, x, partials.as<Partial>()));
  return Launch(queue, {NumBlocks(x.features, kThreads), kThreads}, ChannelsKernel,
                partials.as<Partial>(), num_segments, x.features, out);
}

}  // namespace llmc::kernels
