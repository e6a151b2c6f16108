#include "calibration/input_statistics.h"

#include "llmc/parallel.h"

namespace llmc {
namespace {

// H_ij / (d_i d_j).
void ScaleHessian(std::span<const double> divisors, HostTensor& hessian) {
  const int64_t n = hessian.dim(0);
  float* h = hessian.as<float>();
  ParallelFor(n, [&](int64_t i) {
    for (int64_t j = 0; j < n; ++j) {
      h[i * n + j] = static_cast<float>(h[i * n + j] / (divisors[i] * divisors[j]));
    }
  });
}

}  // namespace

const HostTensor& InputStatistics::Hessian() {
  if (!finished_) {
    finished_ = hessian->Finish();
    if (!divisors_.empty()) ScaleHessian(divisors_, *finished_);
  }
  return *finished_;
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

void InputStatistics::DivideBy(std::span<const float> factors) {
  kept_factor.reset();
  if (divisors_.empty()) divisors_.assign(factors.size(), 1.0);
  for (size_t i = 0; i < factors.size(); ++i) divisors_[i] *= factors[i];
  if (finished_) {
    ScaleHessian(std::vector<double>(factors.begin(), factors.end()), *finished_);
  }
  if (channels == nullptr) return;
  channels->DivideBy(factors);
  if (extrema != nullptr) *extrema = channels->OfAllChannels();
}

}  // namespace llmc
