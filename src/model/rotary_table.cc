#include "model/rotary_table.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "ATen/TensorOperators.h"
#include "ATen/ops/arange.h"
#include "ATen/ops/cat.h"
#include "ATen/ops/pow.h"
#include "ATen/ops/scalar_tensor.h"
#include "ATen/ops/tensor.h"
#include "ATen/ops/where.h"
#include "c10/core/InferenceMode.h"

namespace llmc {
namespace {

// A `dynamic` model has tables of its own for every length beyond the trained one.
constexpr size_t kMaxTables = 64;

// 0, 2/r, 4/r, ...: [r / 2].
at::Tensor Exponents(int64_t rotated) {
  return at::arange(0, rotated, 2, at::kLong).to(at::kFloat) / static_cast<double>(rotated);
}

at::Tensor DefaultFrequencies(double theta, int64_t rotated) {
  return at::pow(at::Scalar(theta), Exponents(rotated)).reciprocal();
}

// theta' = theta * (f L / M - (f - 1))^(r / (r - 2)), in float32 as the reference
// computes it.
at::Tensor DynamicFrequencies(const RopeParameters& rope, int64_t rotated, int64_t tokens) {
  const int64_t longest = std::max(tokens, rope.max_position_embeddings);
  const at::Tensor length = at::scalar_tensor(longest, at::kLong).to(at::kFloat);
  const at::Tensor ratio =
      length * rope.factor / static_cast<double>(rope.max_position_embeddings) -
      (rope.factor - 1.0);
  const double power = static_cast<double>(rotated) / static_cast<double>(rotated - 2);
  const at::Tensor theta = ratio.pow(power) * rope.theta;
  return at::pow(theta, Exponents(rotated)).reciprocal();
}

at::Tensor Llama3Frequencies(const RopeParameters& rope, int64_t rotated) {
  const double original = static_cast<double>(rope.original_max_position_embeddings);
  const double longest_kept = original / rope.high_freq_factor;
  const double shortest_scaled = original / rope.low_freq_factor;
  const at::Tensor plain = DefaultFrequencies(rope.theta, rotated);
  const at::Tensor wavelength = plain.reciprocal() * (2.0 * M_PI);
  const at::Tensor scaled = at::where(wavelength > shortest_scaled, plain / rope.factor, plain);
  // Equal factors leave no band between; the quotient is then never used but must
  // not divide by zero.
  const double band = std::max(rope.high_freq_factor - rope.low_freq_factor, 1e-30);
  const at::Tensor smooth = (wavelength.reciprocal() * original - rope.low_freq_factor) / band;
  const at::Tensor between = (-smooth + 1.0) * scaled / rope.factor + smooth * scaled;
  const at::Tensor is_between =
      (wavelength >= longest_kept).logical_and(wavelength <= shortest_scaled);
  if (rope.high_freq_factor == rope.low_freq_factor) return scaled;
  return at::where(is_between, between, scaled);
}

// The dimension whose wave turns `rotations` times within the original length.
double CorrectionDim(const RopeParameters& rope, int64_t rotated, double rotations) {
  const double original = static_cast<double>(rope.original_max_position_embeddings);
  return static_cast<double>(rotated) * std::log(original / (rotations * 2.0 * M_PI)) /
         (2.0 * std::log(rope.theta));
}

at::Tensor YarnFrequencies(const RopeParameters& rope, int64_t rotated) {
  double low = CorrectionDim(rope, rotated, rope.beta_fast);
  double high = CorrectionDim(rope, rotated, rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(rotated - 1));
  if (low == high) high += 0.001;
  const at::Tensor ramp = ((at::arange(rotated / 2, at::kFloat) - low) / (high - low)).clamp(0, 1);
  const at::Tensor keep = -ramp + 1.0;
  const at::Tensor powers = at::pow(at::Scalar(rope.theta), Exponents(rotated));
  return (powers * rope.factor).reciprocal() * (-keep + 1.0) + powers.reciprocal() * keep;
}

at::Tensor LongropeFrequencies(const RopeParameters& rope, int64_t rotated, int64_t tokens) {
  const bool is_long = tokens > rope.original_max_position_embeddings;
  const at::Tensor factors =
      at::tensor(is_long ? rope.long_factor : rope.short_factor, at::kDouble).to(at::kFloat);
  return (factors * at::pow(at::Scalar(rope.theta), Exponents(rotated))).reciprocal();
}

// m(f, k) of YaRN (Peng et al. 2023).
double Mscale(double factor, double k) {
  return factor <= 1.0 ? 1.0 : 0.1 * k * std::log(factor) + 1.0;
}

}  // namespace

RotaryTable::RotaryTable(RopeParameters rope, int64_t head_dim)
    : rope_(std::move(rope)), head_dim_(head_dim) {}

at::Tensor RotaryTable::InverseFrequencies(int64_t tokens) const {
  switch (rope_.type) {
    case RopeType::kLinear:
      return DefaultFrequencies(rope_.theta, head_dim_) / rope_.factor;
    case RopeType::kDynamic:
      return tokens > rope_.max_position_embeddings && head_dim_ > 2
                 ? DynamicFrequencies(rope_, head_dim_, tokens)
                 : DefaultFrequencies(rope_.theta, head_dim_);
    case RopeType::kLlama3:
      return Llama3Frequencies(rope_, head_dim_);
    case RopeType::kYarn:
      return YarnFrequencies(rope_, head_dim_);
    case RopeType::kLongrope:
      return LongropeFrequencies(rope_, head_dim_, tokens);
    case RopeType::kDefault:
      break;
  }
  return DefaultFrequencies(rope_.theta, head_dim_);
}

double RotaryTable::AttentionScaling() const {
  if (rope_.type != RopeType::kYarn && rope_.type != RopeType::kLongrope) return 1.0;
  if (rope_.attention_factor) return *rope_.attention_factor;
  if (rope_.type == RopeType::kLongrope) {
    const double original = static_cast<double>(rope_.original_max_position_embeddings);
    return rope_.factor <= 1.0 ? 1.0 : std::sqrt(1.0 + std::log(rope_.factor) / std::log(original));
  }
  if (rope_.mscale && rope_.mscale_all_dim) {
    return Mscale(rope_.factor, *rope_.mscale) / Mscale(rope_.factor, *rope_.mscale_all_dim);
  }
  return Mscale(rope_.factor, 1.0);
}

int64_t RotaryTable::LengthClass(int64_t tokens) const {
  if (rope_.type == RopeType::kDynamic && tokens > rope_.max_position_embeddings) return tokens;
  if (rope_.type == RopeType::kLongrope) return tokens > rope_.original_max_position_embeddings;
  return 0;
}

RotaryTable::CosSin RotaryTable::Compute(int64_t tokens, at::ScalarType dtype,
                                         at::Device device) const {
  // Ordinary tensors, so that a table first used under inference mode also serves
  // a forward with gradients.
  c10::InferenceMode ordinary(false);
  const at::Tensor frequencies = InverseFrequencies(tokens);
  const at::Tensor half = at::arange(tokens, at::kFloat).unsqueeze(1) * frequencies.unsqueeze(0);
  const at::Tensor angles = at::cat({half, half}, -1);
  const double scaling = AttentionScaling();
  return {(angles.cos() * scaling).to(device, dtype), (angles.sin() * scaling).to(device, dtype)};
}

RotaryTable::CosSin RotaryTable::Get(int64_t tokens, at::ScalarType dtype, at::Device device) {
  const Key key(LengthClass(tokens), dtype, static_cast<int>(device.type()), device.index());
  std::lock_guard<std::mutex> lock(mutex_);
  auto it = tables_.find(key);
  if (it == tables_.end() || it->second.cos.size(0) < tokens) {
    if (tables_.size() >= kMaxTables) tables_.clear();
    it = tables_.insert_or_assign(key, Compute(tokens, dtype, device)).first;
  }
  return {it->second.cos.narrow(0, 0, tokens), it->second.sin.narrow(0, 0, tokens)};
}

}  // namespace llmc
