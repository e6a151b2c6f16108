#include "modifiers/smooth_quant.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "modifiers/smoothing.h"
#include "modifiers/widen.h"

namespace llmc {
namespace {

constexpr float kSmallestFactor = 1e-5f;

}  // namespace

float SmoothQuantFactor(const SmoothQuantModifier& fields, float range, float weight_absmax) {
  float factor = range;
  if (fields.algorithm == SmoothAlgorithm::kLogEqualization) {
    factor = range / std::log2(2.0f + range);
  } else if (weight_absmax > 0) {
    const float alpha = static_cast<float>(fields.smoothing_strength);
    factor = std::pow(range, alpha) / std::pow(2.0f * weight_absmax, 1.0f - alpha);
  }
  return std::max(factor, kSmallestFactor);
}

absl::StatusOr<std::vector<float>> SmoothQuantTransform::Factors(const PlannedTransform& transform,
                                                                 LayerChange& change) const {
  const SmoothMapping& mapping = *transform.smoothing;
  const ChannelExtremaStatistic& channels =
      *change.statistics->at(transform.needs.begin()->first).channels;
  const std::vector<float> min = channels.Min();
  const std::vector<float> max = channels.Max();
  if (!(min[0] <= max[0])) return std::vector<float>();
  std::vector<float> range(min.size());
  for (size_t i = 0; i < range.size(); ++i) range[i] = max[i] - min[i];
  std::vector<float> absmax(range.size(), 0.0f);
  for (const std::string& consumer : mapping.consumers) {
    LLMC_ASSIGN_OR_RETURN(const HostTensor* weight,
                          change.dense->Get(absl::StrCat(consumer, ".weight")));
    MaxMagnitudes(*weight, absmax);
  }
  range = LargestOfSource(mapping, *change.plan->model, range);
  absmax = LargestOfSource(mapping, *change.plan->model, absmax);
  std::vector<float> factors(range.size());
  for (size_t i = 0; i < factors.size(); ++i) {
    factors[i] = SmoothQuantFactor(fields_, range[i], absmax[i]);
    if (std::isfinite(factors[i])) continue;
    return absl::InvalidArgumentError(absl::StrCat("input of ", mapping.consumers[0], ", channel ",
                                                   i, ": range ", range[i], ", largest weight ",
                                                   absmax[i], ", expected finite numbers"));
  }
  return factors;
}

absl::Status SmoothQuantTransform::Apply(LayerChange& change) const {
  for (const PlannedTransform* transform : change.transforms) {
    const absl::StatusOr<std::vector<float>> factors = Factors(*transform, change);
    LLMC_RETURN_IF_ERROR(change.collective->AgreeOnStatus(factors.status()));
    if (factors->empty()) continue;
    LLMC_RETURN_IF_ERROR(
        change.collective->AgreeOnStatus(ApplySmoothing(*transform, *factors, change)));
  }
  return absl::OkStatus();
}

}  // namespace llmc
