// The device overloads of a build without CUDA.

#include "kernels/channel_statistics.h"
#include "kernels/cholesky.h"
#include "kernels/compress.h"
#include "kernels/device_queue.h"
#include "kernels/fixed_point.h"
#include "kernels/gptq_solve.h"
#include "kernels/hessian.h"
#include "kernels/prune_by_score.h"
#include "kernels/sparsegpt_solve.h"
#include "kernels/weight_grid.h"

namespace llmc::kernels {
namespace {

absl::Status NoCuda() { return absl::UnimplementedError(WhyNoDevice()); }

}  // namespace

struct DeviceQueue::Impl {};

int NumDevices() { return 0; }
std::string WhyNoDevice() { return "this build has no CUDA"; }
absl::StatusOr<DeviceFacts> FactsOfDevice(int) { return NoCuda(); }

DeviceQueue::DeviceQueue(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DeviceQueue::~DeviceQueue() = default;
absl::StatusOr<std::unique_ptr<DeviceQueue>> DeviceQueue::Create(int, void*) { return NoCuda(); }
int DeviceQueue::device() const { return 0; }
void* DeviceQueue::stream() const { return nullptr; }
bool DeviceQueue::SharesHostMemory() { return false; }
absl::Status DeviceQueue::Synchronize() { return NoCuda(); }
absl::Status DeviceQueue::CopyToDevice(const void*, int64_t, void*) { return NoCuda(); }
absl::Status DeviceQueue::CopyToHost(const void*, int64_t, void*) { return NoCuda(); }
absl::Status DeviceQueue::Zero(void*, int64_t) { return NoCuda(); }

absl::StatusOr<DeviceEvent> DeviceEvent::Record(DeviceQueue&) { return NoCuda(); }
absl::Status DeviceEvent::Wait() const { return NoCuda(); }
absl::StatusOr<double> DeviceEvent::SecondsSince(const DeviceEvent&) const { return NoCuda(); }

absl::StatusOr<DeviceBuffer> DeviceBuffer::Allocate(DeviceQueue&, int64_t) { return NoCuda(); }
absl::StatusOr<PinnedBuffer> PinnedBuffer::Allocate(int64_t) { return NoCuda(); }

absl::Status AddGram(const TokenRows&, float*, DeviceQueue&) { return NoCuda(); }

absl::Status DiagonalExponents(const Triangle&, const float*, int16_t*, DeviceQueue&) {
  return NoCuda();
}

absl::Status AddToFixedPoint(const Triangle&, const DeviceFixedPointScale&, float*, int64_t*,
                             DeviceQueue&) {
  return NoCuda();
}

absl::Status ExpandFixedPoint(const Triangle&, const DeviceFixedPointScale&, const ExpandCall&,
                              DeviceQueue&) {
  return NoCuda();
}

absl::StatusOr<DeviceInverseFactor> FactorInverseHessian(const float*, int64_t,
                                                         std::span<const int32_t>,
                                                         const InverseFactorOptions&,
                                                         DeviceQueue&) {
  return NoCuda();
}

absl::Status GptqSolve(const GptqProblem&, const GptqSolveOptions&, DeviceQueue&) {
  return NoCuda();
}

absl::Status OutputErrors(const OutputErrorCall&, DeviceQueue&) { return NoCuda(); }

absl::Status SparseGptSolve(const SparseGptProblem&, const SparseGptOptions&, double*, double*,
                            DeviceQueue&) {
  return NoCuda();
}

absl::Status ChannelStatistics(const TokenRows&, const DeviceChannelStatistics&, DeviceQueue&) {
  return NoCuda();
}

absl::StatusOr<WeightGrid> ComputeWeightGrid(const DeviceWeight&, const QuantizationArgs&,
                                             const WeightGridOptions&) {
  return NoCuda();
}

absl::StatusOr<std::vector<StoredTensor>> CompressWeight(const DeviceWeight&, const WeightGrid&,
                                                         const QuantizationArgs&, Format,
                                                         const CompressOptions&) {
  return NoCuda();
}

absl::Status DecompressWeight(const CompressedModule&, const DecompressOptions&,
                              const DenseOnDevice&) {
  return NoCuda();
}

absl::Status FakeQuantWeight(const DeviceWeight&, const WeightGrid&, const QuantizationArgs&,
                             const CompressOptions&, void*) {
  return NoCuda();
}

absl::Status PruneByScore(const DeviceScoredRows&, double, const MaskStructure&, DeviceQueue&) {
  return NoCuda();
}

absl::StatusOr<Extrema> FindExtrema(const DeviceWeight&) { return NoCuda(); }

absl::StatusOr<float> SearchedAbsMax(const DeviceWeight&, const QuantizationArgs&,
                                     const WeightGridOptions&) {
  return NoCuda();
}

}  // namespace llmc::kernels
