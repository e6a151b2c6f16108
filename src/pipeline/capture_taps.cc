#include "pipeline/capture_taps.h"

#include <tuple>
#include <utility>

#include "ATen/ops/aminmax.h"
#include "kernels/channel_statistics.h"
#include "kernels/weight_grid.h"
#include "model/torch_tensor.h"

namespace llmc {
namespace {

// Smallest and largest value of every channel and sums over tokens, as `need` asks.
absl::Status AddChannels(const ComputeDevice& device, const at::Tensor& x,
                         const StatisticsNeed& need, SampleRanges& ranges) {
  const Shape features = {x.size(1)};
  const auto floats = [](const at::Tensor& t) { return static_cast<float*>(t.data_ptr()); };
  const auto doubles = [](const at::Tensor& t) { return static_cast<double*>(t.data_ptr()); };
  kernels::DeviceChannelStatistics out;
  if (need.channel_extrema) {
    LLMC_ASSIGN_OR_RETURN(ranges.channel_min, device.New(at::kFloat, features));
    LLMC_ASSIGN_OR_RETURN(ranges.channel_max, device.New(at::kFloat, features));
    out.min = floats(ranges.channel_min);
    out.max = floats(ranges.channel_max);
  }
  if (need.mean_magnitude) {
    LLMC_ASSIGN_OR_RETURN(ranges.magnitudes, device.New(at::kDouble, features));
    out.magnitudes = doubles(ranges.magnitudes);
  }
  if (need.squares || need.sample_norms) {
    LLMC_ASSIGN_OR_RETURN(ranges.squares, device.New(at::kDouble, features));
    out.squares = doubles(ranges.squares);
  }
  const kernels::TokenRows rows = RowsOf(x);
  if (!device.is_host()) return kernels::ChannelStatistics(rows, out, *device.queue());
  const size_t n = static_cast<size_t>(rows.features);
  if (out.min != nullptr) {
    LLMC_RETURN_IF_ERROR(kernels::ChannelExtrema(rows, {out.min, n}, {out.max, n}));
  }
  if (out.magnitudes != nullptr) {
    LLMC_RETURN_IF_ERROR(kernels::ChannelMagnitudes(rows, {out.magnitudes, n}));
  }
  return out.squares == nullptr ? absl::OkStatus()
                                : kernels::ChannelSquares(rows, {out.squares, n});
}

// The range that the scheme's observer finds for each of `num_channels` equal parts of
// `x`, which is contiguous and in host memory.
absl::StatusOr<std::vector<Extrema>> SearchRanges(const at::Tensor& x, const StatisticsNeed& need) {
  std::vector<Extrema> ranges;
  for (const at::Tensor& part : x.flatten().chunk(need.num_channels)) {
    LLMC_ASSIGN_OR_RETURN(const TensorView view, ViewOf(part));
    LLMC_ASSIGN_OR_RETURN(const kernels::Extrema extrema,
                          kernels::SearchActivationRange(view, *need.searched));
    ranges.push_back({extrema.min, extrema.max});
  }
  return ranges;
}

}  // namespace

kernels::TokenRows RowsOf(const at::Tensor& x) {
  kernels::TokenRows rows;
  rows.data = x.data_ptr();
  rows.dtype = x.scalar_type() == at::kBFloat16 ? DType::kBF16 : DType::kF32;
  rows.tokens = x.size(0);
  rows.features = x.size(1);
  rows.stride = x.stride(0);
  return rows;
}

void CaptureTaps::Input(absl::Span<const std::string> linears, const at::Tensor& x) {
  Keep(linears.front(), x);
}

at::Tensor CaptureTaps::ReplaceOutput(const std::string& linear, const at::Tensor& y) {
  Keep(OutputTap(linear), y);
  return y;
}

void CaptureTaps::Attention(const std::string& attention, AttentionStates& states) {
  const int64_t sample = batch_->samples[next_attention_++];
  KeepHeads(AttentionTap(attention, "q"), states.query, sample);
  KeepHeads(AttentionTap(attention, "k"), states.key, sample);
  KeepHeads(AttentionTap(attention, "v"), states.value, sample);
}

void CaptureTaps::InputOfHead(const at::Tensor& x) { Keep(needs_->begin()->first, x); }

const StatisticsNeed* CaptureTaps::NeedOf(const std::string& tap) const {
  const auto found = needs_->find(tap);
  return found == needs_->end() ? nullptr : &found->second;
}

void CaptureTaps::Keep(const std::string& tap, const at::Tensor& value) {
  const StatisticsNeed* const need = NeedOf(tap);
  if (need == nullptr) return;
  const at::Tensor x = value.contiguous();
  BatchActivation& activation = kept[tap];
  if (need->hessian) activation.rows = x;
  int64_t first = 0;
  for (size_t i = 0; i < batch_->samples.size(); ++i) {
    AddRanges(activation, *need, x.narrow(0, first, batch_->lengths[i]), batch_->samples[i]);
    first += batch_->lengths[i];
  }
}

void CaptureTaps::KeepHeads(const std::string& tap, const at::Tensor& states, int64_t sample) {
  const StatisticsNeed* const need = NeedOf(tap);
  if (need != nullptr) AddRanges(kept[tap], *need, states.contiguous(), sample);
}

void CaptureTaps::AddRanges(BatchActivation& activation, const StatisticsNeed& need,
                            const at::Tensor& x, int64_t sample) {
  SampleRanges& ranges = activation.ranges.emplace_back();
  ranges.sample = sample;
  ranges.tokens = x.size(0);
  if (need.channel_extrema || need.mean_magnitude || need.squares || need.sample_norms) {
    status.Update(AddChannels(*device_, x, need, ranges));
  }
  if (need.extrema) {
    std::tie(ranges.min, ranges.max) = at::aminmax(x.view({need.num_channels, -1}), 1);
    ranges.min = ranges.min.to(at::kFloat);
    ranges.max = ranges.max.to(at::kFloat);
  }
  if (!need.searched) return;
  // The search is the host's.
  absl::StatusOr<std::vector<Extrema>> searched = SearchRanges(x.cpu(), need);
  status.Update(searched.status());
  if (searched.ok()) ranges.searched = *std::move(searched);
}

}  // namespace llmc
