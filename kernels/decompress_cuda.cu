#include <algorithm>
#include <limits>

#include "kernels/compress.h"
#include "kernels/compressed_source.h"
#include "kernels/cuda_queue.cuh"
#include "kernels/element.cuh"

namespace llmc::kernels {
namespace {

constexpr int kThreads = 256;

// A compressed weight as device code sees it.
struct PackedWeight {
  const uint8_t* codes = nullptr;  // [rows, row_bytes]
  int64_t row_bytes = 0;
  int bits = 8;
  bool padded = false;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t row_span = 1;
  int64_t column_span = 1;
  int64_t scale_columns = 1;
  NumberRule rule;
  const float* scale = nullptr;              // [scale_rows, scale_columns]
  const float* zero = nullptr;               // The same; null: none.
  const int32_t* group_of_column = nullptr;  // Null: column / column_span.
};

// Value of an E4M3 code.
__device__ float FromE4m3Bits(uint8_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x80u) << 24;
  const uint32_t magnitude = code & 0x7fu;
  if (magnitude == 0x7fu) return std::bit_cast<float>(sign | 0x7fc00000u);
  // Subnormal: steps of 2^-9.
  const float subnormal = static_cast<float>(magnitude) * 0x1p-9f;
  const uint32_t normal = (magnitude << 20) + (uint32_t{120} << 23);
  return std::bit_cast<float>(sign | (magnitude < 8 ? std::bit_cast<uint32_t>(subnormal) : normal));
}

__device__ uint8_t CodeAt(const PackedWeight& w, int64_t row, int64_t column) {
  const uint8_t* const from = w.codes + row * w.row_bytes;
  if (w.bits == 8) return from[column];
  const unsigned field = (1u << w.bits) - 1;
  int64_t bit = column * w.bits;
  if (w.padded) {
    const int64_t per_word = 32 / w.bits;
    bit = column / per_word * 32 + column % per_word * w.bits;
  }
  unsigned word = from[bit / 8];
  // A code of up to 7 bits lies in at most two bytes.
  if (bit % 8 + w.bits > 8) word |= static_cast<unsigned>(from[bit / 8 + 1]) << 8;
  return static_cast<uint8_t>(word >> (bit % 8) & field);
}

__device__ float NumberOf(const NumberRule& rule, uint8_t code) {
  if (rule.element == Element::kE4m3) return FromE4m3Bits(code);
  if (rule.element == Element::kE2m1) return FromE2m1Bits(code & 15);
  return rule.code_offset == 0 ? static_cast<float>(static_cast<int8_t>(code))
                               : static_cast<float>(static_cast<int32_t>(code) - rule.code_offset);
}

// A thread for each element, block (i, row).
__global__ void DecompressKernel(PackedWeight w, DType dtype, void* dense) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (column >= w.columns) return;
  const int64_t group =
      w.group_of_column != nullptr ? w.group_of_column[column] : column / w.column_span;
  for (int64_t row = blockIdx.y; row < w.rows; row += gridDim.y) {
    const int64_t at = row / w.row_span * w.scale_columns + group;
    float q = NumberOf(w.rule, CodeAt(w, row, column));
    if (w.zero != nullptr) q = q - w.zero[at];
    const float number = RoundTo(w.rule.product, RoundTo(w.rule.product, q) * w.scale[at]);
    StoreElement(dtype, number, dense, row * w.columns + column);
  }
}

// Host arrays on the device for the length of a call.
class Uploads {
 public:
  explicit Uploads(DeviceQueue& queue) : queue_(queue) {}

  // Null for an empty array.
  template <typename T>
  absl::StatusOr<const T*> Add(const T* from, int64_t count) {
    if (count == 0) return static_cast<const T*>(nullptr);
    const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
    LLMC_ASSIGN_OR_RETURN(DeviceBuffer buffer, DeviceBuffer::Allocate(queue_, bytes));
    LLMC_RETURN_IF_ERROR(queue_.CopyToDevice(from, bytes, buffer.as<T>()));
    buffers_.push_back(std::move(buffer));
    return static_cast<const T*>(buffers_.back().as<T>());
  }

 private:
  DeviceQueue& queue_;
  std::vector<DeviceBuffer> buffers_;
};

absl::StatusOr<PackedWeight> Upload(const CompressedSource& source, Uploads& uploads) {
  PackedWeight w;
  w.row_bytes = source.row_bytes;
  w.bits = source.packed_bits;
  w.padded = source.padded;
  w.rows = source.layout.rows;
  w.columns = source.layout.columns;
  w.row_span = source.layout.row_span;
  w.column_span = source.layout.column_span;
  w.scale_columns = source.layout.scale_columns;
  w.rule = source.rule;
  LLMC_ASSIGN_OR_RETURN(
      w.codes, uploads.Add(source.weight->as<uint8_t>(), std::ssize(source.weight->bytes)));
  LLMC_ASSIGN_OR_RETURN(w.scale, uploads.Add(source.scale.data(), std::ssize(source.scale)));
  LLMC_ASSIGN_OR_RETURN(w.zero, uploads.Add(source.zero.data(), std::ssize(source.zero)));
  if (source.group_of_column != nullptr) {
    LLMC_ASSIGN_OR_RETURN(w.group_of_column,
                          uploads.Add(source.group_of_column->as<int32_t>(), w.columns));
  }
  return w;
}

}  // namespace

absl::Status DecompressWeight(const CompressedModule& module, const DecompressOptions& options,
                              const DenseOnDevice& dense) {
  if (dense.queue == nullptr) {
    return absl::InvalidArgumentError("dense: no queue, expected that of its device");
  }
  LLMC_ASSIGN_OR_RETURN(
      const CompressedSource source,
      ReadSource(module.lookup, module.args, module.format, module.shape, options));
  if (source.layout.rows == 0 || source.layout.columns == 0) return absl::OkStatus();
  Uploads uploads(*dense.queue);
  LLMC_ASSIGN_OR_RETURN(const PackedWeight weight, Upload(source, uploads));
  constexpr int64_t kMostRows = 65535;  // Of a grid's second size; a block then takes more.
  const dim3 grid(NumBlocks(weight.columns, kThreads),
                  static_cast<unsigned>(std::min(weight.rows, kMostRows)));
  return Launch(*dense.queue, {grid, kThreads}, DecompressKernel, weight, options.dtype,
                dense.elements);
}

}  // namespace llmc::kernels
