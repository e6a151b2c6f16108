#include "verify/weight_distance.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace llmc {
namespace {

struct Limits {
  double relative_error;  // Largest.
  double mean_off;        // Largest |mean multiplier - 1|.
  double deviation;       // Largest, for 128 elements a scale.
  bool single_scales;     // Whether one scale alone tells enough.
};

Limits LimitsOf(const QuantizationArgs& args) {
  if (args.type == NumberType::kFloat) {
    return args.num_bits == 8 ? Limits{0.25, 0.10, 0.03, true} : Limits{0.6, 0.20, 0.05, true};
  }
  switch (args.num_bits) {
    case 1:
    case 2:
      return {1.5, 0.6, 0.09, false};
    case 3:
      return {1.0, 0.3, 0.08, false};
    case 4:
      return {0.6, 0.15, 0.05, true};
    default:
      return {0.4, 0.10, 0.03, true};
  }
}

}  // namespace

WeightDistance::WeightDistance(const kernels::GridLayout& layout)
    : layout_(layout),
      cross_(static_cast<size_t>(layout.num_scales()), 0.0),
      square_(static_cast<size_t>(layout.num_scales()), 0.0) {}

void WeightDistance::Add(int64_t first_row, std::span<const float> dense,
                         std::span<const float> dequantized) {
  const int64_t columns = layout_.columns;
  if (first_row == 0 && !dense.empty()) dense_min_ = dense_max_ = dense[0];
  for (int64_t begin = 0; begin < static_cast<int64_t>(dense.size());
       begin += std::min(layout_.column_span, columns - begin % columns)) {
    const int64_t row = first_row + begin / columns;
    const int64_t column = begin % columns;
    const int64_t end = begin + std::min(layout_.column_span, columns - column);
    double cross = 0, square = 0, dense_square = 0;
    for (int64_t i = begin; i < end; ++i) {
      const double w = dense[i], d = dequantized[i];
      cross += w * d;
      square += d * d;
      dense_square += w * w;
      dense_min_ = std::min(dense_min_, dense[i]);
      dense_max_ = std::max(dense_max_, dense[i]);
    }
    const int64_t scale =
        row / layout_.row_span * layout_.scale_columns + column / layout_.column_span;
    cross_[scale] += cross;
    square_[scale] += square;
    dense_square_ += dense_square;
    error_ += dense_square - 2 * cross + square;
  }
}

double WeightDistance::relative_error() const {
  if (dense_square_ == 0) return error_ > 0 ? 1 : 0;
  return std::sqrt(std::max(0.0, error_) / dense_square_);
}

double WeightDistance::mean_multiplier() const {
  double cross = 0, square = 0;
  for (size_t g = 0; g < cross_.size(); ++g) {
    cross += cross_[g];
    square += square_[g];
  }
  return square == 0 ? 1 : cross / square;
}

double WeightDistance::multiplier_deviation() const {
  const double mean = mean_multiplier();
  double sum = 0, square = 0;
  for (size_t g = 0; g < cross_.size(); ++g) {
    if (square_[g] == 0) continue;
    const double off = cross_[g] / square_[g] - mean;
    sum += square_[g] * off * off;
    square += square_[g];
  }
  return square == 0 ? 0 : std::sqrt(sum / square);
}

// A single scale of notable weight whose multiplier lies outside [low, high].
std::string WeightDistance::WorstScale(double low, double high) const {
  double total = 0;
  for (double square : square_) total += square;
  const double notable = 1e-3 * total / static_cast<double>(square_.size());
  for (size_t g = 0; g < square_.size(); ++g) {
    const double multiplier = square_[g] > 0 ? cross_[g] / square_[g] : 1;
    if (square_[g] <= notable || (multiplier >= low && multiplier <= high)) continue;
    return absl::StrFormat(
        "the scale of row %d, group %d does not fit: its weights are %.3g times what it gives",
        g / layout_.scale_columns * layout_.row_span, g % layout_.scale_columns, multiplier);
  }
  return "";
}

std::string WeightDistance::Verdict(const QuantizationArgs& args) const {
  const Limits limits = LimitsOf(args);
  const double error = relative_error();
  if (!(error <= limits.relative_error)) {
    return absl::StrFormat("dequantised weight is off by %.3g of the dense one, expected below %g",
                           error, limits.relative_error);
  }
  const double mean = mean_multiplier();
  if (std::abs(mean - 1) > limits.mean_off) {
    return absl::StrFormat("scales do not fit: dense weights are %.3g times the dequantised ones",
                           mean);
  }
  const double elements = static_cast<double>(layout_.rows) * static_cast<double>(layout_.columns) /
                          static_cast<double>(std::max<int64_t>(1, layout_.num_scales()));
  const double limit = 0.02 + limits.deviation * std::sqrt(std::max(1.0, 128 / elements));
  const double deviation = multiplier_deviation();
  if (deviation > limit) {
    return absl::StrFormat(
        "scales do not fit their groups: multipliers vary by %.3g, expected below %.3g", deviation,
        limit);
  }
  return limits.single_scales && elements >= 16 ? WorstScale(0.6, 1.65) : "";
}

}  // namespace llmc
