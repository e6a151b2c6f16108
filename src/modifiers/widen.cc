#include "modifiers/widen.h"

#include <algorithm>

#include "llmc/float_formats.h"
#include "llmc/parallel.h"

namespace llmc {
namespace {

constexpr int64_t kUnit = 1 << 16;

float ToFloat(DType dtype, const std::byte* bytes, int64_t i) {
  switch (dtype) {
    case DType::kBF16:
      return Bf16ToFloat(reinterpret_cast<const uint16_t*>(bytes)[i]);
    case DType::kF16:
      return F16ToFloat(reinterpret_cast<const uint16_t*>(bytes)[i]);
    case DType::kI8:
      return static_cast<float>(reinterpret_cast<const int8_t*>(bytes)[i]);
    case DType::kF8E4M3:
      return E4m3ToFloat(reinterpret_cast<const uint8_t*>(bytes)[i]);
    default:
      return reinterpret_cast<const float*>(bytes)[i];
  }
}

void StoreFloat(DType dtype, float value, std::byte* bytes, int64_t i) {
  switch (dtype) {
    case DType::kBF16:
      reinterpret_cast<uint16_t*>(bytes)[i] = FloatToBf16(value);
      break;
    case DType::kF16:
      reinterpret_cast<uint16_t*>(bytes)[i] = FloatToF16(value);
      break;
    default:
      reinterpret_cast<float*>(bytes)[i] = value;
  }
}

template <typename Combine>
void ForColumns(std::span<const float> factors, HostTensor& tensor, const Combine& combine) {
  const int64_t columns = static_cast<int64_t>(factors.size());
  ParallelFor(tensor.num_elements() / columns, [&](int64_t row) {
    for (int64_t c = 0; c < columns; ++c) {
      const int64_t i = row * columns + c;
      const float value = ToFloat(tensor.dtype(), tensor.bytes().data(), i);
      StoreFloat(tensor.dtype(), combine(value, factors[c]), tensor.bytes().data(), i);
    }
  });
}

}  // namespace

HostTensor Widen(const HostTensor& tensor, int64_t first, int64_t count) {
  HostTensor wide(DType::kF32, {count});
  ParallelFor((count + kUnit - 1) / kUnit, [&](int64_t unit) {
    for (int64_t i = unit * kUnit; i < std::min(count, (unit + 1) * kUnit); ++i) {
      wide.as<float>()[i] = ToFloat(tensor.dtype(), tensor.bytes().data(), first + i);
    }
  });
  return wide;
}

void Narrow(const HostTensor& from, int64_t first, HostTensor& tensor) {
  const int64_t count = from.num_elements();
  ParallelFor((count + kUnit - 1) / kUnit, [&](int64_t unit) {
    for (int64_t i = unit * kUnit; i < std::min(count, (unit + 1) * kUnit); ++i) {
      StoreFloat(tensor.dtype(), from.as<float>()[i], tensor.bytes().data(), first + i);
    }
  });
}

void ScaleColumns(std::span<const float> factors, HostTensor& tensor) {
  ForColumns(factors, tensor, [](float value, float factor) { return value * factor; });
}

void DivideColumns(std::span<const float> factors, HostTensor& tensor) {
  ForColumns(factors, tensor, [](float value, float factor) { return value / factor; });
}

}  // namespace llmc
