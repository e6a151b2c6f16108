#include "modifiers/widen.h"

#include <algorithm>
#include <utility>

#include "llmc/float_formats.h"
#include "llmc/parallel.h"
#include "model/torch_tensor.h"

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

void NarrowElements(const float* from, int64_t count, int64_t first, HostTensor& tensor) {
  ParallelFor((count + kUnit - 1) / kUnit, [&](int64_t unit) {
    for (int64_t i = unit * kUnit; i < std::min(count, (unit + 1) * kUnit); ++i) {
      StoreFloat(tensor.dtype(), from[i], tensor.bytes().data(), first + i);
    }
  });
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
  NarrowElements(from.as<float>(), from.num_elements(), first, tensor);
}

absl::StatusOr<at::Tensor> WidenRows(const ComputeDevice& device, const HostTensor& weight,
                                     int64_t first_row, int64_t num_rows) {
  const int64_t columns = weight.dim(1);
  const int64_t row_bytes = columns * ElementSize(weight.dtype());
  at::Tensor rows;
  if (device.is_host()) {
    HostTensor wide = Widen(weight, first_row * columns, num_rows * columns);
    LLMC_RETURN_IF_ERROR(CatchTorch(
        "weight", [&] { rows = ToTorch(std::move(wide)).view({num_rows, columns}); }));
    return rows;
  }
  const auto bytes = weight.bytes().subspan(first_row * row_bytes, num_rows * row_bytes);
  LLMC_ASSIGN_OR_RETURN(const at::Tensor stored,
                        device.Upload({weight.dtype(), {num_rows, columns}, bytes}));
  LLMC_RETURN_IF_ERROR(CatchTorch("weight", [&] { rows = stored.to(at::kFloat); }));
  return rows;
}

absl::Status NarrowRows(const ComputeDevice& device, const at::Tensor& rows, int64_t first_row,
                        HostTensor& weight) {
  const int64_t first = first_row * weight.dim(1);
  if (device.is_host()) {
    NarrowElements(static_cast<const float*>(rows.const_data_ptr()), rows.numel(), first, weight);
    return absl::OkStatus();
  }
  at::Tensor narrow;
  LLMC_RETURN_IF_ERROR(
      CatchTorch("weight", [&] { narrow = rows.to(TorchType(weight.dtype())); }));
  return device.Download(narrow, weight.bytes().subspan(first * ElementSize(weight.dtype()),
                                                        narrow.nbytes()));
}

void ScaleColumns(std::span<const float> factors, HostTensor& tensor) {
  ForColumns(factors, tensor, [](float value, float factor) { return value * factor; });
}

void DivideColumns(std::span<const float> factors, HostTensor& tensor) {
  ForColumns(factors, tensor, [](float value, float factor) { return value / factor; });
}

}  // namespace llmc
