// Causal softmax attention of one sample in BF16, on the calling thread.
#ifndef LLMC_KERNELS_ATTENTION_H_
#define LLMC_KERNELS_ATTENTION_H_

#include <cstdint>

namespace llmc::kernels {

// BF16 numbers [heads, tokens, head_dim]; the last dimension is contiguous.
struct HeadStates {
  const uint16_t* data = nullptr;
  int64_t head_stride = 0;   // Elements.
  int64_t token_stride = 0;  // Elements.

  const uint16_t* row(int64_t head, int64_t token) const {
    return data + head * head_stride + token * token_stride;
  }
};

// out[t, h, :] = sum over keys s <= t of softmax(scale q[h, t] . k[g, s]) v[g, s],
// g = h / (num_heads / num_key_value_heads). Borrowed memory.
struct AttentionCall {
  HeadStates query;  // num_heads
  HeadStates key;    // num_key_value_heads
  HeadStates value;  // num_key_value_heads
  int64_t num_heads = 0;
  int64_t num_key_value_heads = 0;  // Divides num_heads.
  int64_t tokens = 0;
  int64_t head_dim = 0;  // Even.
  float scale = 1;
  int64_t window = 0;       // Keys s > t - window only; 0: all.
  uint16_t* out = nullptr;  // BF16 [tokens, num_heads, head_dim].
};

// Whether this CPU has the instructions.
bool HasAttentionBf16Dot();

// Products are summed in float32; exp(score - largest score of the row) is rounded
// to BF16 before it multiplies the values, as LibTorch does, and the sum of the
// unrounded ones divides in the end. All finite inputs give finite outputs.
void AttendBf16Dot(const AttentionCall& call);

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_ATTENTION_H_
