#include <algorithm>
#include <cstring>
#include <type_traits>

#include "kernels/cpu_clones.h"
#include "kernels/row_kernels.h"
#include "llmc/float_formats.h"

namespace llmc::kernels {
namespace {

template <DType kDType>
struct Dense;
template <>
struct Dense<DType::kBF16> {
  using Bits = uint16_t;
  static float ToFloat(Bits bits) { return FromBf16Bits(bits); }
  static Bits FromFloat(float value) {
    const bool nan = (std::bit_cast<uint32_t>(value) & 0x7fffffffu) > 0x7f800000u;
    return nan ? uint16_t{0x7fc0} : Bf16Bits(value);
  }
};
template <>
struct Dense<DType::kF16> {
  using Bits = uint16_t;
  static float ToFloat(Bits bits) { return FromF16Bits(bits); }
  static Bits FromFloat(float value) { return F16Bits(value); }
};
template <>
struct Dense<DType::kF32> {
  using Bits = uint32_t;
  static float ToFloat(Bits bits) { return std::bit_cast<float>(bits); }
  static Bits FromFloat(float value) { return std::bit_cast<uint32_t>(value); }
};

// Calls `visit.template operator()<kDType>()` for the run-time dtype.
template <typename Visit>
LLMC_INLINE void VisitDType(DType dtype, const Visit& visit) {
  if (dtype == DType::kBF16) {
    visit.template operator()<DType::kBF16>();
  } else if (dtype == DType::kF16) {
    visit.template operator()<DType::kF16>();
  } else {
    visit.template operator()<DType::kF32>();
  }
}

// Bits in an order that rises with the number: two's complement instead of sign
// and magnitude. Integer minima vectorise, float minima do not without
// -ffast-math. The mapping is its own inverse.
template <typename Bits>
LLMC_INLINE std::make_signed_t<Bits> Ordered(std::make_signed_t<Bits> bits) {
  using Signed = std::make_signed_t<Bits>;
  constexpr int kSignShift = sizeof(Bits) * 8 - 1;
  constexpr Signed kMagnitude = static_cast<Signed>(static_cast<Bits>(~Bits{0}) >> 1);
  return static_cast<Signed>(bits ^ (static_cast<Signed>(bits >> kSignShift) & kMagnitude));
}

template <DType kDType>
LLMC_INLINE float AbsMax(const typename Dense<kDType>::Bits* bits, int64_t n) {
  using Bits = typename Dense<kDType>::Bits;
  using Signed = std::make_signed_t<Bits>;
  constexpr Signed kMagnitude = static_cast<Signed>(static_cast<Bits>(~Bits{0}) >> 1);
  Signed largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    const Signed magnitude = static_cast<Signed>(static_cast<Signed>(bits[i]) & kMagnitude);
    largest = std::max(largest, magnitude);
  }
  return Dense<kDType>::ToFloat(static_cast<Bits>(largest));
}

template <DType kDType>
LLMC_INLINE void MinMax(const typename Dense<kDType>::Bits* bits, int64_t n, float* min,
                        float* max) {
  using Bits = typename Dense<kDType>::Bits;
  using Signed = std::make_signed_t<Bits>;
  Signed smallest = Ordered<Bits>(static_cast<Signed>(bits[0]));
  Signed largest = smallest;
  for (int64_t i = 0; i < n; ++i) {
    const Signed ordered = Ordered<Bits>(static_cast<Signed>(bits[i]));
    smallest = std::min(smallest, ordered);
    largest = std::max(largest, ordered);
  }
  *min = Dense<kDType>::ToFloat(static_cast<Bits>(Ordered<Bits>(smallest)));
  *max = Dense<kDType>::ToFloat(static_cast<Bits>(Ordered<Bits>(largest)));
}

template <DType kRound, Element kElement, ZeroPoint kZero>
LLMC_INLINE uint8_t CodeOf(float weight, float scale, float zero, const CodeRule& rule) {
  float t = RoundTo<kRound>(weight / scale);
  if constexpr (kZero == ZeroPoint::kPositiveZero) t = t + 0.0f;
  if constexpr (kZero == ZeroPoint::kPerColumn) t = RoundTo<kRound>(t + zero);
  const float clamped = Clamp(t, rule.q_min, rule.q_max);
  if constexpr (kElement == Element::kE4m3) return E4m3Bits(clamped);
  if constexpr (kElement == Element::kE2m1) return E2m1Bits(clamped);
  return static_cast<uint8_t>(RoundToInt(clamped) + rule.code_offset);
}

template <DType kDType, DType kRound, Element kElement, ZeroPoint kZero>
LLMC_INLINE void QuantizeLoop(const CodeRule& rule_in, const void* weight, int64_t n,
                              const float* __restrict scale, const float* __restrict zero,
                              uint8_t* __restrict codes) {
  const CodeRule rule = rule_in;  // A local copy: `codes` may alias the caller's.
  const auto* __restrict bits = static_cast<const typename Dense<kDType>::Bits*>(weight);
  for (int64_t i = 0; i < n; ++i) {
    const float z = kZero == ZeroPoint::kPerColumn ? zero[i] : 0.0f;
    codes[i] = CodeOf<kRound, kElement, kZero>(Dense<kDType>::ToFloat(bits[i]), scale[i], z, rule);
  }
}

// The sign of zero matters to FP8 codes only, and only integers and FP8 have
// zero points.
template <DType kDType, DType kRound>
LLMC_INLINE void QuantizeElements(const CodeRule& rule, const void* weight, int64_t n,
                                  const float* scale, const float* zero, uint8_t* codes) {
  constexpr auto kNone = ZeroPoint::kNone;
  constexpr auto kPositive = ZeroPoint::kPositiveZero;
  constexpr auto kColumn = ZeroPoint::kPerColumn;
  if (rule.element == Element::kE2m1) {
    QuantizeLoop<kDType, kRound, Element::kE2m1, kNone>(rule, weight, n, scale, zero, codes);
  } else if (rule.element == Element::kInt && rule.zero == kColumn) {
    QuantizeLoop<kDType, kRound, Element::kInt, kColumn>(rule, weight, n, scale, zero, codes);
  } else if (rule.element == Element::kInt) {
    QuantizeLoop<kDType, kRound, Element::kInt, kNone>(rule, weight, n, scale, zero, codes);
  } else if (rule.zero == kColumn) {
    QuantizeLoop<kDType, kRound, Element::kE4m3, kColumn>(rule, weight, n, scale, zero, codes);
  } else if (rule.zero == kPositive) {
    QuantizeLoop<kDType, kRound, Element::kE4m3, kPositive>(rule, weight, n, scale, zero, codes);
  } else {
    QuantizeLoop<kDType, kRound, Element::kE4m3, kNone>(rule, weight, n, scale, zero, codes);
  }
}

template <Element kElement>
LLMC_INLINE float NumberOf(uint8_t code, int32_t code_offset, const float* table) {
  if constexpr (kElement == Element::kInt) {
    return code_offset == 0 ? static_cast<float>(static_cast<int8_t>(code))
                            : static_cast<float>(static_cast<int32_t>(code) - code_offset);
  }
  return table[code];
}

template <DType kProduct, Element kElement>
LLMC_INLINE void DequantizeLoop(const NumberRule& rule, const uint8_t* __restrict codes, int64_t n,
                                const float* __restrict scale, const float* __restrict zero,
                                float* __restrict numbers, const float* __restrict table) {
  const int32_t offset = rule.code_offset;
  if (zero == nullptr) {
    for (int64_t i = 0; i < n; ++i) {
      const float q = RoundTo<kProduct>(NumberOf<kElement>(codes[i], offset, table));
      numbers[i] = RoundTo<kProduct>(q * scale[i]);
    }
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    const float q = NumberOf<kElement>(codes[i], offset, table);
    numbers[i] = Dequantize<kProduct>(q, scale[i], zero[i]);
  }
}

// Value of every code.
const float* TableOf(Element element) {
  struct Tables {
    float e4m3[256];
    float e2m1[256];
    Tables() {
      for (int i = 0; i < 256; ++i) {
        e4m3[i] = E4m3ToFloat(static_cast<uint8_t>(i));
        e2m1[i] = FromE2m1Bits(static_cast<uint8_t>(i & 15));
      }
    }
  };
  static const Tables tables;
  return element == Element::kE2m1 ? tables.e2m1 : tables.e4m3;
}

LLMC_CLONES void DequantizeWith(const NumberRule& rule, const uint8_t* codes, int64_t n,
                                const float* scale, const float* zero, float* numbers,
                                const float* table) {
  VisitDType(rule.product, [&]<DType kProduct>() LLMC_INLINE_LAMBDA {
    if (rule.element == Element::kInt) {
      DequantizeLoop<kProduct, Element::kInt>(rule, codes, n, scale, zero, numbers, table);
    } else {
      DequantizeLoop<kProduct, Element::kE4m3>(rule, codes, n, scale, zero, numbers, table);
    }
  });
}

}  // namespace

LLMC_CLONES void GroupAbsMax(DType dtype, const void* weight, int64_t columns, int64_t group_size,
                             float* absmax) {
  VisitDType(dtype, [&]<DType kDType>() LLMC_INLINE_LAMBDA {
    const auto* bits = static_cast<const typename Dense<kDType>::Bits*>(weight);
    for (int64_t first = 0; first < columns; first += group_size) {
      *absmax++ = AbsMax<kDType>(bits + first, std::min(group_size, columns - first));
    }
  });
}

LLMC_CLONES void GroupMinMax(DType dtype, const void* weight, int64_t columns, int64_t group_size,
                             float* min, float* max) {
  VisitDType(dtype, [&]<DType kDType>() LLMC_INLINE_LAMBDA {
    const auto* bits = static_cast<const typename Dense<kDType>::Bits*>(weight);
    for (int64_t first = 0; first < columns; first += group_size) {
      MinMax<kDType>(bits + first, std::min(group_size, columns - first), min++, max++);
    }
  });
}

LLMC_CLONES void QuantizeSpan(const CodeRule& rule, const void* weight, int64_t n,
                              const float* scale, const float* zero, uint8_t* codes) {
  VisitDType(rule.dtype, [&]<DType kDType>() LLMC_INLINE_LAMBDA {
    if (rule.round_quotient) {
      QuantizeElements<kDType, kDType>(rule, weight, n, scale, zero, codes);
    } else {
      QuantizeElements<kDType, DType::kF32>(rule, weight, n, scale, zero, codes);
    }
  });
}

void DequantizeSpan(const NumberRule& rule, const uint8_t* codes, int64_t n, const float* scale,
                    const float* zero, float* numbers) {
  DequantizeWith(rule, codes, n, scale, zero, numbers, TableOf(rule.element));
}

LLMC_CLONES void WidenSpan(DType dtype, const void* numbers, int64_t n, float* widened) {
  VisitDType(dtype, [&]<DType kDType>() LLMC_INLINE_LAMBDA {
    const auto* __restrict bits = static_cast<const typename Dense<kDType>::Bits*>(numbers);
    float* __restrict out = widened;
    for (int64_t i = 0; i < n; ++i) out[i] = Dense<kDType>::ToFloat(bits[i]);
  });
}

LLMC_CLONES void NarrowSpan(DType dtype, const float* numbers, int64_t n, void* narrowed) {
  VisitDType(dtype, [&]<DType kDType>() LLMC_INLINE_LAMBDA {
    const float* __restrict in = numbers;
    auto* __restrict bits = static_cast<typename Dense<kDType>::Bits*>(narrowed);
    for (int64_t i = 0; i < n; ++i) bits[i] = Dense<kDType>::FromFloat(in[i]);
  });
}

void ExpandSpan(const float* per_group, int64_t first, int64_t n, int64_t group_size,
                float* per_column) {
  int64_t group = first / group_size;
  int64_t end = std::min(n, (group + 1) * group_size - first);
  for (int64_t i = 0; i < n; end = std::min(n, end + group_size)) {
    std::fill(per_column + i, per_column + end, per_group[group++]);
    i = end;
  }
}

}  // namespace llmc::kernels
