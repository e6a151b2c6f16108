#include "modifiers/smoothing.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "llmc/parallel.h"
#include "modifiers/widen.h"

namespace llmc {
namespace {

// Rows of `tensor`, [rows, columns] or [rows], divided by `factors`, [rows].
void DivideRows(std::span<const float> factors, HostTensor& tensor) {
  HostTensor wide = Widen(tensor, 0, tensor.num_elements());
  const int64_t rows = static_cast<int64_t>(factors.size());
  const int64_t columns = tensor.num_elements() / rows;
  float* values = wide.as<float>();
  ParallelFor(rows, [&](int64_t r) {
    for (int64_t i = r * columns; i < (r + 1) * columns; ++i) values[i] /= factors[r];
  });
  Narrow(wide, 0, tensor);
}

}  // namespace

std::vector<float> ConsumerFactors(const SmoothMapping& mapping, const ModelSpec& spec,
                                   std::span<const float> source_factors) {
  if (mapping.kind != SmoothMapping::Kind::kValue) {
    return {source_factors.begin(), source_factors.end()};
  }
  const int64_t queries_per_key = spec.num_attention_heads / spec.num_key_value_heads;
  std::vector<float> factors;
  for (int64_t head = 0; head < spec.num_attention_heads; ++head) {
    const auto first = source_factors.begin() + head / queries_per_key * spec.head_dim;
    factors.insert(factors.end(), first, first + spec.head_dim);
  }
  return factors;
}

std::vector<float> LargestOfSource(const SmoothMapping& mapping, const ModelSpec& spec,
                                   std::span<const float> values) {
  if (mapping.kind != SmoothMapping::Kind::kValue) return {values.begin(), values.end()};
  const int64_t queries_per_key = spec.num_attention_heads / spec.num_key_value_heads;
  std::vector<float> largest(spec.num_key_value_heads * spec.head_dim,
                             -std::numeric_limits<float>::infinity());
  for (size_t i = 0; i < values.size(); ++i) {
    const int64_t head = static_cast<int64_t>(i) / spec.head_dim;
    float& of_source = largest[head / queries_per_key * spec.head_dim + i % spec.head_dim];
    of_source = std::max(of_source, values[i]);
  }
  return largest;
}

void MaxMagnitudes(const HostTensor& weight, std::span<float> absmax) {
  const int64_t columns = weight.dim(1);
  for (int64_t row = 0; row < weight.dim(0); ++row) {
    const HostTensor values = Widen(weight, row * columns, columns);
    for (int64_t c = 0; c < columns; ++c) {
      absmax[c] = std::max(absmax[c], std::fabs(values.as<float>()[c]));
    }
  }
}

absl::Status ApplySmoothing(const PlannedTransform& transform,
                            std::span<const float> source_factors, LayerChange& change) {
  const SmoothMapping& mapping = *transform.smoothing;
  const std::vector<float> factors = ConsumerFactors(mapping, *change.plan->model, source_factors);
  for (const std::string& name : transform.tensors) {
    LLMC_ASSIGN_OR_RETURN(HostTensor * tensor, change.dense->Get(name));
    const bool is_source = name == absl::StrCat(mapping.source, ".weight") ||
                           name == absl::StrCat(mapping.source, ".bias");
    if (is_source) {
      DivideRows(source_factors, *tensor);
    } else {
      ScaleColumns(factors, *tensor);
    }
  }
  for (const auto& [group, need] : transform.needs) {
    LLMC_RETURN_IF_ERROR(change.statistics->at(group).DivideBy(factors));
  }
  return absl::OkStatus();
}

}  // namespace llmc
