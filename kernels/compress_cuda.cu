#include <algorithm>
#include <vector>

#include "kernels/compress.h"
#include "kernels/compress_rows.h"
#include "kernels/cuda_queue.cuh"
#include "kernels/element.cuh"

namespace llmc::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kCodesPerThread = 8;  // Of any width: a whole number of bytes.

// A weight on its grid, as device code sees it.
struct GriddedWeight {
  const void* elements = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t row_span = 1;
  int64_t column_span = 1;
  int64_t scale_columns = 1;
  CodeRule rule;
  const float* scale = nullptr;  // Effective, [scale_rows, scale_columns].
  const float* zero = nullptr;   // The same; null: none.
};

__device__ int64_t ScaleAt(const GriddedWeight& w, int64_t row, int64_t column) {
  return row / w.row_span * w.scale_columns + column / w.column_span;
}

// The clamped quotient of an element, before it is rounded to the grid: as CodeOf in
// kernels/row_kernels_cpu.cc.
__device__ float QuotientOf(const GriddedWeight& w, int64_t row, int64_t column) {
  const CodeRule& rule = w.rule;
  const DType round = rule.round_quotient ? rule.dtype : DType::kF32;
  const int64_t at = ScaleAt(w, row, column);
  const float weight = LoadElement(rule.dtype, w.elements, row * w.columns + column);
  float t = RoundTo(round, weight / w.scale[at]);
  if (rule.zero == ZeroPoint::kPositiveZero) t = t + 0.0f;
  if (rule.zero == ZeroPoint::kPerColumn) t = RoundTo(round, t + w.zero[at]);
  return Clamp(t, rule.q_min, rule.q_max);
}

__device__ uint8_t CodeOf(const CodeRule& rule, float quotient) {
  if (rule.element == Element::kE4m3) return E4m3Bits(quotient);
  if (rule.element == Element::kE2m1) return E2m1Bits(quotient);
  return static_cast<uint8_t>(RoundToInt(quotient) + rule.code_offset);
}

struct PackedRows {
  int bits = 8;
  int64_t row_bytes = 0;
  uint8_t* out = nullptr;  // [rows, row_bytes]
};

// A thread for eight codes of a row, block (i, row); the last of a row also writes the
// zeros that fill its last word.
__global__ void PackKernel(GriddedWeight w, PackedRows packed) {
  const int64_t first =
      (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kCodesPerThread;
  if (first >= w.columns) return;
  const int64_t left = w.columns - first;
  const int count = left < kCodesPerThread ? static_cast<int>(left) : kCodesPerThread;
  for (int64_t row = blockIdx.y; row < w.rows; row += gridDim.y) {
    uint64_t codes = 0;
    for (int i = 0; i < count; ++i) {
      codes |= static_cast<uint64_t>(CodeOf(w.rule, QuotientOf(w, row, first + i)))
               << (i * packed.bits);
    }
    uint8_t* const out =
        packed.out + row * packed.row_bytes + first / kCodesPerThread * packed.bits;
    const bool is_last = left <= kCodesPerThread;
    if (packed.bits == 4 && !is_last && reinterpret_cast<uintptr_t>(out) % 4 == 0) {
      *reinterpret_cast<uint32_t*>(out) = static_cast<uint32_t>(codes);
      continue;
    }
    if (packed.bits == 8 && !is_last && reinterpret_cast<uintptr_t>(out) % 8 == 0) {
      *reinterpret_cast<uint64_t*>(out) = codes;
      continue;
    }
    const int64_t end = is_last ? packed.out + (row + 1) * packed.row_bytes - out : packed.bits;
    for (int64_t b = 0; b < end; ++b) {
      out[b] = b < 8 ? static_cast<uint8_t>(codes >> (8 * b)) : uint8_t{0};
    }
  }
}

// A thread for each element, block (i, row).
__global__ void FakeQuantKernel(GriddedWeight w, DType product, void* dense) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (column >= w.columns) return;
  for (int64_t row = blockIdx.y; row < w.rows; row += gridDim.y) {
    const int64_t at = ScaleAt(w, row, column);
    float q = RoundToGrid(w.rule.element, QuotientOf(w, row, column), w.rule.q_min, w.rule.q_max);
    if (w.zero != nullptr) q = q - w.zero[at];
    const float number = RoundTo(product, RoundTo(product, q) * w.scale[at]);
    StoreElement(w.rule.dtype, number, dense, row * w.columns + column);
  }
}

TensorView SizeOnly(const DeviceWeight& weight) {
  const int64_t bytes = weight.rows * weight.columns * ElementSize(weight.dtype);
  return {weight.dtype,
          {weight.rows, weight.columns},
          {static_cast<const std::byte*>(weight.elements), static_cast<size_t>(bytes)}};
}

// The effective scales and zero points of a grid on the device.
class UploadedGrid {
 public:
  static absl::StatusOr<UploadedGrid> Upload(const WeightGrid& grid, const GridLayout& layout,
                                             DeviceQueue& queue) {
    std::vector<float> scale;
    std::vector<float> zero;
    GridRow row;
    for (int64_t r = 0; r < layout.scale_rows; ++r) {
      LoadGridRow(grid, layout.scale_columns, r, row);
      scale.insert(scale.end(), row.scale.begin(), row.scale.end());
      zero.insert(zero.end(), row.zero.begin(), row.zero.end());
    }
    UploadedGrid uploaded;
    LLMC_RETURN_IF_ERROR(Copy(scale, uploaded.scale_, queue));
    if (!zero.empty()) LLMC_RETURN_IF_ERROR(Copy(zero, uploaded.zero_, queue));
    return uploaded;
  }

  GriddedWeight Apply(const DeviceWeight& weight, const GridLayout& layout,
                      const CodeRule& rule) const {
    return {weight.elements,    layout.rows,          layout.columns, layout.row_span,
            layout.column_span, layout.scale_columns, rule,           scale_.as<float>(),
            zero_.as<float>()};
  }

 private:
  static absl::Status Copy(const std::vector<float>& from, DeviceBuffer& to, DeviceQueue& queue) {
    const int64_t bytes = std::ssize(from) * static_cast<int64_t>(sizeof(float));
    LLMC_ASSIGN_OR_RETURN(to, DeviceBuffer::Allocate(queue, bytes));
    return queue.CopyToDevice(from.data(), bytes, to.as<float>());
  }

  DeviceBuffer scale_;
  DeviceBuffer zero_;
};

absl::Status CheckQueue(const DeviceWeight& weight) {
  return weight.queue != nullptr
             ? absl::OkStatus()
             : absl::InvalidArgumentError("weight: no queue, expected that of its device");
}

// Blocks for `columns` in parts of `per_block`, and rows; a block takes more than one row
// where there are more than a grid's second size holds.
dim3 GridOf(int64_t columns, int64_t per_block, int64_t rows) {
  constexpr int64_t kMostRows = 65535;
  return dim3(NumBlocks(columns, per_block), static_cast<unsigned>(std::min(rows, kMostRows)));
}

absl::Status PackRows(const DeviceWeight& weight, const RowJob& job, HostTensor& out) {
  DeviceQueue& queue = *weight.queue;
  if (out.num_bytes() == 0) return absl::OkStatus();
  LLMC_ASSIGN_OR_RETURN(const UploadedGrid grid,
                        UploadedGrid::Upload(*job.grid, job.layout, queue));
  LLMC_ASSIGN_OR_RETURN(DeviceBuffer packed, DeviceBuffer::Allocate(queue, out.num_bytes()));
  const PackedRows rows{job.packed_bits, job.row_bytes, packed.as<uint8_t>()};
  LLMC_RETURN_IF_ERROR(
      Launch(queue, {GridOf(weight.columns, kThreads * kCodesPerThread, weight.rows), kThreads},
             PackKernel, grid.Apply(weight, job.layout, job.rule), rows));
  LLMC_RETURN_IF_ERROR(queue.CopyToHost(packed.as<uint8_t>(), out.num_bytes(), out.bytes().data()));
  return queue.Synchronize();
}

}  // namespace

absl::StatusOr<std::vector<StoredTensor>> CompressWeight(const DeviceWeight& weight,
                                                         const WeightGrid& grid,
                                                         const QuantizationArgs& args,
                                                         Format format,
                                                         const CompressOptions& options) {
  LLMC_RETURN_IF_ERROR(CheckQueue(weight));
  LLMC_ASSIGN_OR_RETURN(RowJob job, PrepareJob(SizeOnly(weight), args, format, options));
  LLMC_RETURN_IF_ERROR(CheckGrid(grid, args, job.layout, weight.dtype));
  job.grid = &grid;
  StoredTensor stored = PrepareWeight(args, format, job);
  LLMC_RETURN_IF_ERROR(PackRows(weight, job, stored.tensor));
  const int64_t rows = options.total_rows > 0 ? options.total_rows : weight.rows;
  return Assemble(std::move(stored), grid, args, format, {rows, weight.columns});
}

absl::Status FakeQuantWeight(const DeviceWeight& weight, const WeightGrid& grid,
                             const QuantizationArgs& args, const CompressOptions& options,
                             void* dense) {
  LLMC_RETURN_IF_ERROR(CheckQueue(weight));
  LLMC_RETURN_IF_ERROR(CheckDenseWeight(SizeOnly(weight)));
  LLMC_RETURN_IF_ERROR(CheckArgs(args));
  LLMC_ASSIGN_OR_RETURN(const GridLayout layout, LayoutOf(args, weight.rows, weight.columns));
  LLMC_RETURN_IF_ERROR(CheckGrid(grid, args, layout, weight.dtype));
  if (weight.rows == 0 || weight.columns == 0) return absl::OkStatus();
  LLMC_ASSIGN_OR_RETURN(const UploadedGrid uploaded,
                        UploadedGrid::Upload(grid, layout, *weight.queue));
  const DType product = IsNvfp4(args) ? DType::kF32 : weight.dtype;
  return Launch(
      *weight.queue, {GridOf(weight.columns, kThreads, weight.rows), kThreads}, FakeQuantKernel,
      uploaded.Apply(weight, layout, CodeRuleOf(args, weight.dtype, options)), product, dense);
}

}  // namespace llmc::kernels
