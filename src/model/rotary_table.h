// Cosines and sines of rotary position embeddings (Su et al. 2021), all scalings.
#ifndef LLMC_MODEL_ROTARY_TABLE_H_
#define LLMC_MODEL_ROTARY_TABLE_H_

#include <map>
#include <mutex>
#include <tuple>

#include "ATen/core/Tensor.h"
#include "architecture/model_spec.h"

namespace llmc {

// Shared by the layers of a model and by threads. The tables of a sample depend
// on its length for `dynamic` and `longrope`; the others are prefixes of one.
class RotaryTable {
 public:
  // cos and sin, each [tokens, head_dim]; column j and j + head_dim/2 are equal.
  struct CosSin {
    at::Tensor cos;
    at::Tensor sin;
  };

  RotaryTable(RopeParameters rope, int64_t head_dim);

  // Tables for positions 0 .. tokens-1 of a sample of `tokens` tokens: angles and
  // functions in float32, then cast to `dtype`.
  CosSin Get(int64_t tokens, at::ScalarType dtype, at::Device device);

  // float32 [head_dim / 2]: radians per position for a sample of `tokens` tokens.
  at::Tensor InverseFrequencies(int64_t tokens) const;
  // Multiplier of cos and sin.
  double AttentionScaling() const;

 private:
  // Length class, dtype, device type and index.
  using Key = std::tuple<int64_t, at::ScalarType, int, int>;

  int64_t LengthClass(int64_t tokens) const;
  CosSin Compute(int64_t tokens, at::ScalarType dtype, at::Device device) const;

  const RopeParameters rope_;
  const int64_t head_dim_;
  std::mutex mutex_;
  std::map<Key, CosSin> tables_;
};

}  // namespace llmc

#endif  // LLMC_MODEL_ROTARY_TABLE_H_
