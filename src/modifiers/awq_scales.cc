#include "modifiers/awq_scales.h"

#include <algorithm>
#include <cmath>

#include "kernels/grid_layout.h"
#include "llmc/parallel.h"
#include "modifiers/widen.h"

namespace llmc {
namespace {

constexpr double kSmallestFactor = 1e-4;
constexpr double kWeightEpsilon = 1e-4;
constexpr float kChunkEpsilon = 1e-6f;
constexpr int64_t kColumnUnit = 256;

// Largest |w| of the elements of every scale.
std::vector<float> LargestOfScales(const HostTensor& wide, const kernels::GridLayout& layout) {
  std::vector<float> largest(layout.num_scales(), 0.0f);
  const float* w = wide.as<float>();
  ParallelFor(layout.scale_rows, [&](int64_t scale_row) {
    const int64_t last = std::min(layout.rows, (scale_row + 1) * layout.row_span);
    for (int64_t r = scale_row * layout.row_span; r < last; ++r) {
      for (int64_t c = 0; c < layout.columns; ++c) {
        float& of_scale = largest[scale_row * layout.scale_columns + c / layout.column_span];
        of_scale = std::max(of_scale, std::fabs(w[r * layout.columns + c]));
      }
    }
  });
  return largest;
}

}  // namespace

std::vector<AwqGridPoint> AwqGrid(const AwqModifier& fields) {
  std::vector<AwqGridPoint> grid;
  const auto add = [&](int64_t steps, bool plain, bool duo) {
    for (int64_t i = 0; i < steps; ++i) {
      const double ratio =
          steps > 1 ? static_cast<double>(i) / static_cast<double>(steps - 1) : 0.0;
      if (plain) grid.push_back({ratio, false});
      if (duo) grid.push_back({ratio, true});
    }
  };
  switch (fields.duo_scaling) {
    case DuoScaling::kTrue:
      grid.push_back({0.0, false});  // The identity.
      add(fields.n_grid - 1, false, true);
      break;
    case DuoScaling::kFalse:
      add(fields.n_grid, true, false);
      break;
    case DuoScaling::kBoth:
      add(fields.n_grid / 2, true, true);
      break;
  }
  return grid;
}

absl::Status AddNormalizedMagnitudes(const HostTensor& weight, const QuantizationArgs& args,
                                     std::span<double> sums) {
  LLMC_ASSIGN_OR_RETURN(const kernels::GridLayout layout,
                        kernels::LayoutOf(args, weight.dim(0), weight.dim(1)));
  const HostTensor wide = Widen(weight, 0, weight.num_elements());
  const std::vector<float> largest = LargestOfScales(wide, layout);
  const float* w = wide.as<float>();
  ParallelFor((layout.columns + kColumnUnit - 1) / kColumnUnit, [&](int64_t unit) {
    const int64_t last = std::min(layout.columns, (unit + 1) * kColumnUnit);
    for (int64_t r = 0; r < layout.rows; ++r) {
      const float* of_row = &largest[r / layout.row_span * layout.scale_columns];
      for (int64_t c = unit * kColumnUnit; c < last; ++c) {
        sums[c] +=
            std::fabs(w[r * layout.columns + c]) / (of_row[c / layout.column_span] + kChunkEpsilon);
      }
    }
  });
  return absl::OkStatus();
}

std::vector<float> AwqFactors(const AwqGridPoint& point, std::span<const double> activations,
                              std::span<const double> weights) {
  std::vector<double> raw(activations.size());
  for (size_t i = 0; i < raw.size(); ++i) {
    raw[i] = std::pow(activations[i], point.ratio);
    if (point.duo) raw[i] /= std::pow(weights[i], 1.0 - point.ratio) + kWeightEpsilon;
    raw[i] = std::max(raw[i], kSmallestFactor);
  }
  const auto [smallest, largest] = std::minmax_element(raw.begin(), raw.end());
  const double norm = std::sqrt(*smallest * *largest);
  std::vector<float> factors(raw.size());
  for (size_t i = 0; i < raw.size(); ++i) {
    const float factor = static_cast<float>(raw[i] / norm);
    factors[i] = std::isfinite(factor) && factor > 0 ? factor : 1.0f;
  }
  return factors;
}

}  // namespace llmc
