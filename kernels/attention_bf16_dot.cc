#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/attention.h"

// GCC 12 warns of the undefined operands inside its own intrinsics.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")

namespace llmc::kernels {
namespace {

constexpr int64_t kLanes = 16;
constexpr int64_t kRows = 12;          // Query rows of one block: 24 sums stay in registers.
constexpr int64_t kTile = 2 * kLanes;  // Columns of one block.

int64_t RoundUp(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

inline __m512 Dot(__m512 sum, __m512i a, __m512i b) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}

uint32_t PairAt(const uint16_t* numbers) {
  uint32_t pair;
  std::memcpy(&pair, numbers, sizeof(pair));
  return pair;
}

// exp of x <= 0, to 2 units in the last place; 0 below the smallest normal number.
inline __m512 ExpOfNegative(__m512 x) {
  x = _mm512_max_ps(x, _mm512_set1_ps(-87.3f));
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693145752f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(1.42860677e-6f), r);
  __m512 p = _mm512_set1_ps(1.0f / 720);
  for (const float coefficient : {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) {
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(coefficient));
  }
  return _mm512_scalef_ps(p, n);
}

// Sums of kRows x kTile: sum over steps of a[row][step] * b[step][column], where
// a number is a pair of BF16 numbers.
struct Block {
  const uint32_t* a[kRows];
  const uint32_t* b = nullptr;
  int64_t b_stride = 0;  // Pairs from one step to the next.
  int64_t num_steps = 0;
};

inline void Multiply(const Block& block, __m512 (&sums)[kRows][2]) {
  for (auto& sum : sums) sum[0] = sum[1] = _mm512_setzero_ps();
  for (int64_t step = 0; step < block.num_steps; ++step) {
    const uint32_t* const b = block.b + step * block.b_stride;
    const __m512i b0 = _mm512_loadu_si512(b);
    const __m512i b1 = _mm512_loadu_si512(b + kLanes);
#pragma GCC unroll 12
    for (int64_t row = 0; row < kRows; ++row) {
      const __m512i a = _mm512_set1_epi32(
          static_cast<int>(PairAt(reinterpret_cast<const uint16_t*>(block.a[row] + step))));
      sums[row][0] = Dot(sums[row][0], a, b0);
      sums[row][1] = Dot(sums[row][1], a, b1);
    }
  }
}

// Attention of one call; buffers are reused from head to head.
class Attention {
 public:
  explicit Attention(const AttentionCall& call)
      : call_(call),
        key_columns_(RoundUp(call.tokens, kTile)),
        value_columns_(RoundUp(call.head_dim, kTile)),
        keys_(call.head_dim / 2 * key_columns_),
        values_(key_columns_ / 2 * value_columns_),
        scores_(kRows * key_columns_),
        weights_(kRows * key_columns_ / 2) {}

  void Run() {
    const int64_t group = call_.num_heads / call_.num_key_value_heads;
    for (int64_t g = 0; g < call_.num_key_value_heads; ++g) {
      PackKeys(g);
      PackValues(g);
      for (int64_t head = g * group; head < (g + 1) * group; ++head) {
        for (int64_t first = 0; first < call_.tokens; first += kRows) AttendRows(head, first);
      }
    }
  }

 private:
  // keys_[c / 2][token]: numbers c and c + 1 of a key.
  void PackKeys(int64_t g) {
    for (int64_t t = 0; t < call_.tokens; ++t) {
      const uint16_t* const row = call_.key.row(g, t);
      for (int64_t c = 0; c < call_.head_dim; c += 2) {
        keys_[c / 2 * key_columns_ + t] = PairAt(row + c);
      }
    }
  }

  // values_[token / 2][c]: number c of tokens token and token + 1.
  void PackValues(int64_t g) {
    for (int64_t t = 0; t < call_.tokens; t += 2) {
      const uint16_t* const even = call_.value.row(g, t);
      const uint16_t* const odd = t + 1 < call_.tokens ? call_.value.row(g, t + 1) : nullptr;
      uint32_t* const pairs = &values_[t / 2 * value_columns_];
      for (int64_t c = 0; c < call_.head_dim; ++c) {
        pairs[c] = even[c] | (odd == nullptr ? 0u : static_cast<uint32_t>(odd[c]) << 16);
      }
    }
  }

  // The last rows of the sample stand in for those beyond it; they are not stored.
  int64_t RowOf(int64_t first, int64_t r) const { return std::min(first + r, call_.tokens - 1); }

  int64_t FirstKey(int64_t token) const {
    return call_.window > 0 ? std::max<int64_t>(0, token - call_.window + 1) : 0;
  }

  void AttendRows(int64_t head, int64_t first) {
    begin_ = FirstKey(first) / kTile * kTile;
    end_ = RoundUp(std::min(first + kRows, call_.tokens), kTile);
    Score(head, first);
    float inverse_sums[kRows];
    for (int64_t r = 0; r < kRows; ++r) inverse_sums[r] = 1.0f / Softmax(r, RowOf(first, r));
    Weigh(head, first, inverse_sums);
  }

  void Score(int64_t head, int64_t first) {
    Block block;
    for (int64_t r = 0; r < kRows; ++r) {
      block.a[r] = reinterpret_cast<const uint32_t*>(call_.query.row(head, RowOf(first, r)));
    }
    block.b_stride = key_columns_;
    block.num_steps = call_.head_dim / 2;
    const __m512 scale = _mm512_set1_ps(call_.scale);
    for (int64_t key = begin_; key < end_; key += kTile) {
      block.b = &keys_[key];
      __m512 sums[kRows][2];
      Multiply(block, sums);
      for (int64_t r = 0; r < kRows; ++r) {
        float* const out = &scores_[r * key_columns_ + key];
        _mm512_storeu_ps(out, _mm512_mul_ps(sums[r][0], scale));
        _mm512_storeu_ps(out + kLanes, _mm512_mul_ps(sums[r][1], scale));
      }
    }
  }

  // Which of keys [key, key + kLanes) row `token` attends to.
  __mmask16 MaskOf(int64_t token, int64_t key) const {
    const auto below = [](int64_t n) {
      return static_cast<uint32_t>((1u << std::clamp<int64_t>(n, 0, kLanes)) - 1);
    };
    return static_cast<__mmask16>(below(token + 1 - key) & ~below(FirstKey(token) - key));
  }

  // Scores of row r to weights; returns their sum, at least 1.
  float Softmax(int64_t r, int64_t token) {
    const float* const scores = &scores_[r * key_columns_];
    const __m512 least = _mm512_set1_ps(-3.4e38f);
    __m512 largest = least;
    for (int64_t key = begin_; key < end_; key += kLanes) {
      const __m512 score = _mm512_mask_loadu_ps(least, MaskOf(token, key), scores + key);
      largest = _mm512_max_ps(largest, score);
    }
    const __m512 offset = _mm512_set1_ps(_mm512_reduce_max_ps(largest));
    __m512 sum = _mm512_setzero_ps();
    uint32_t* const weights = &weights_[r * key_columns_ / 2];
    for (int64_t key = begin_; key < end_; key += kLanes) {
      const __m512 score = _mm512_sub_ps(_mm512_loadu_ps(scores + key), offset);
      const __m512 weight = _mm512_maskz_mov_ps(MaskOf(token, key), ExpOfNegative(score));
      sum = _mm512_add_ps(sum, weight);
      const __m256bh rounded = _mm512_cvtneps_pbh(weight);
      std::memcpy(weights + key / 2, &rounded, sizeof(rounded));
    }
    return _mm512_reduce_add_ps(sum);
  }

  void Weigh(int64_t head, int64_t first, const float (&inverse_sums)[kRows]) {
    Block block;
    for (int64_t r = 0; r < kRows; ++r) {
      block.a[r] = &weights_[(r * key_columns_ + begin_) / 2];
    }
    block.b_stride = value_columns_;
    block.num_steps = (end_ - begin_) / 2;
    const int64_t num_rows = std::min(kRows, call_.tokens - first);
    for (int64_t column = 0; column < call_.head_dim; column += kTile) {
      block.b = &values_[begin_ / 2 * value_columns_ + column];
      __m512 sums[kRows][2];
      Multiply(block, sums);
      for (int64_t r = 0; r < num_rows; ++r) {
        uint16_t* const row =
            call_.out + ((first + r) * call_.num_heads + head) * call_.head_dim + column;
        const __m512 scale = _mm512_set1_ps(inverse_sums[r]);
        for (int64_t half = 0; half < 2; ++half) {
          Store(_mm512_mul_ps(sums[r][half], scale), call_.head_dim - column - half * kLanes,
                row + half * kLanes);
        }
      }
    }
  }

  static void Store(__m512 numbers, int64_t count, uint16_t* out) {
    if (count <= 0) return;
    const __m256bh rounded = _mm512_cvtneps_pbh(numbers);
    std::memcpy(out, &rounded, static_cast<size_t>(std::min(count, kLanes)) * sizeof(uint16_t));
  }

  const AttentionCall& call_;
  int64_t key_columns_;
  int64_t value_columns_;
  std::vector<uint32_t> keys_;     // [head_dim / 2, key_columns_], zero beyond the tokens.
  std::vector<uint32_t> values_;   // [key_columns_ / 2, value_columns_], zero outside.
  std::vector<float> scores_;      // [kRows, key_columns_]
  std::vector<uint32_t> weights_;  // BF16 [kRows, key_columns_]
  int64_t begin_ = 0;              // Keys that a block of rows looks at.
  int64_t end_ = 0;
};

}  // namespace

void AttendBf16Dot(const AttentionCall& call) { Attention(call).Run(); }

}  // namespace llmc::kernels
#pragma GCC pop_options

namespace llmc::kernels {

bool HasAttentionBf16Dot() { return __builtin_cpu_supports("avx512bf16"); }

}  // namespace llmc::kernels
