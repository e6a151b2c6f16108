#include "calibration/input_statistics.h"

#include <algorithm>

#include "ATen/TensorOperators.h"
#include "ATen/ops/tensor.h"
#include "model/compute_device.h"
#include "model/torch_tensor.h"

namespace llmc {
namespace {

constexpr int64_t kRowsAtATime = 64;

// H_ij / (d_i d_j), in double, rounded once. In place.
absl::Status ScaleHessian(const ComputeDevice& device, const std::vector<double>& divisors,
                          const at::Tensor& hessian) {
  const int64_t n = hessian.size(0);
  return CatchTorch("Hessian", [&] {
    const at::Tensor d = at::tensor(divisors, at::kDouble).to(hessian.device());
    ForUnits(device, (n + kRowsAtATime - 1) / kRowsAtATime, [&](int64_t unit) {
      const int64_t first = unit * kRowsAtATime;
      const int64_t count = std::min(kRowsAtATime, n - first);
      const at::Tensor rows = hessian.narrow(0, first, count);
      const at::Tensor products = d.narrow(0, first, count).unsqueeze(1) * d.unsqueeze(0);
      rows.copy_(rows.to(at::kDouble) / products);
    });
  });
}

}  // namespace

absl::StatusOr<at::Tensor> InputStatistics::Hessian() {
  if (!finished_.defined()) {
    LLMC_ASSIGN_OR_RETURN(finished_, hessian->Finish());
    if (!divisors_.empty()) {
      LLMC_RETURN_IF_ERROR(ScaleHessian(hessian->device(), divisors_, finished_));
    }
  }
  return finished_;
}

std::vector<double> InputStatistics::MeanMagnitudes() const {
  std::vector<double> means(magnitudes->size());
  for (size_t i = 0; i < means.size(); ++i) {
    means[i] =
        tokens > 0 ? magnitudes->Get(static_cast<int64_t>(i)) / static_cast<double>(tokens) : 0.0;
    if (!divisors_.empty()) means[i] /= divisors_[i];
  }
  return means;
}

std::vector<double> InputStatistics::SquareSums() const {
  std::vector<double> sums(squares->size());
  for (size_t i = 0; i < sums.size(); ++i) {
    sums[i] = squares->Get(static_cast<int64_t>(i));
    if (!divisors_.empty()) sums[i] /= divisors_[i] * divisors_[i];
  }
  return sums;
}

absl::Status InputStatistics::DivideBy(std::span<const float> factors) {
  kept_factor.reset();
  if (divisors_.empty()) divisors_.assign(factors.size(), 1.0);
  for (size_t i = 0; i < factors.size(); ++i) divisors_[i] *= factors[i];
  if (finished_.defined()) {
    LLMC_RETURN_IF_ERROR(ScaleHessian(hessian->device(),
                                      std::vector<double>(factors.begin(), factors.end()),
                                      finished_));
  }
  if (channels == nullptr) return absl::OkStatus();
  channels->DivideBy(factors);
  if (extrema != nullptr) *extrema = channels->OfAllChannels();
  return absl::OkStatus();
}

}  // namespace llmc
