#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/column_block.cuh"
#include "kernels/column_lanes.cuh"
#include "kernels/cuda_queue.cuh"
#include "kernels/gptq_solve.h"
#include "kernels/round_to_grid.h"

namespace llmc::kernels {
namespace {

// The CPU adds squares in float32 over blocks of at most so many columns.
constexpr int64_t kWidestLossBlock = 64;
constexpr int kStep = 16;

absl::Status CheckSizes(const GptqProblem& p, const GptqSolveOptions& options) {
  const SolveGrid& g = p.grid;
  const bool sizes_fit = p.rows > 0 && p.first_row >= 0 && p.in_features > 0 && g.num_groups > 0 &&
                         g.rows_per_scale > 0 && (g.group_index || g.group_size > 0) &&
                         options.block_size >= 1 && options.block_size <= 1024;
  const bool has_grid = g.type == NumberType::kInt ? g.num_bits >= 1 && g.num_bits <= 8
                                                   : g.num_bits == 4 || g.num_bits == 8;
  const bool rounds =
      g.scale_dtype == DType::kF32 || g.scale_dtype == DType::kBF16 || g.scale_dtype == DType::kF16;
  if (sizes_fit && has_grid && rounds && p.weight && p.inverse_factor && g.scale && p.row_loss &&
      p.row_change) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("GptqSolve: ", p.rows, " rows of ", p.in_features, " columns, ", g.num_groups,
                   " groups of ", g.num_bits, " bits, block_size ", options.block_size,
                   ": a size, width or scale dtype is out of range or an array is missing"));
}

// group[p] of the column at every position.
__global__ void GroupsKernel(SolveGrid grid, const int32_t* order, int64_t n, int32_t* group) {
  const int64_t p = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (p >= n) return;
  const int64_t column = order != nullptr ? order[p] : p;
  group[p] = grid.group_index != nullptr ? grid.group_index[column]
                                         : static_cast<int32_t>(column / grid.group_size);
}

struct RoundingShape {
  const float* scale = nullptr;
  const float* zero_point = nullptr;
  const int32_t* group = nullptr;   // [n], in visiting order.
  const uint32_t* zeros = nullptr;  // [n, ld / 32]; null: nothing is kept.
  int64_t first_row = 0;
  int64_t rows = 0;
  int64_t rows_per_scale = 1;
  int64_t num_groups = 1;
  int64_t words = 0;  // ld / 32
  float q_min = 0;
  float q_max = 0;
};

template <Element kElement, DType kScaleDType>
struct RoundingRule {
  static constexpr size_t kSharedBytes = 0;
  RoundingShape shape;

  struct Lane {
    int64_t scales = -1;  // Of its row; -1: a lane beyond the rows.
  };

  __device__ Lane MakeLane(int64_t row) const {
    if (row >= shape.rows) return {-1};
    return {(shape.first_row + row) / shape.rows_per_scale * shape.num_groups};
  }
  __device__ int step() const { return kStep; }
  __device__ void Begin(const ColumnContext&, Lane&) const {}

  // As RoundColumn in kernels/gptq_rows_loops.h.
  __device__ float Fix(const ColumnContext& context, float w, const Lane& lane) const {
    float scale = 1;
    float zero_point = 0;
    if (lane.scales >= 0) {
      const int64_t i = lane.scales + shape.group[context.column];
      scale = shape.scale[i];
      if (shape.zero_point != nullptr) zero_point = shape.zero_point[i];
    }
    const float code = RoundToGrid<kElement>(w / scale + zero_point, shape.q_min, shape.q_max);
    const float q = RoundTo<kScaleDType>((code - zero_point) * scale);
    if (shape.zeros == nullptr) return q;
    const uint32_t zeros = shape.zeros[context.column * shape.words + blockIdx.x];
    return (zeros >> context.lane & 1u) != 0 ? 0.0f : q;
  }
};

// Device memory of one call.
struct Scratch {
  DeviceBuffer position;  // I32 [n]; empty in the natural order.
  DeviceBuffer group;     // I32 [n]
  DeviceBuffer lanes;     // F32 [n, ld]
  DeviceBuffer zeros;     // U32 [n, ld / 32]; empty unless zeros are kept.
  DeviceBuffer error;     // F32 [kBlockColumns, ld]
};

absl::StatusOr<Scratch> Allocate(const GptqProblem& p, const GptqSolveOptions& options,
                                 DeviceQueue& queue) {
  const int64_t n = p.in_features;
  const int64_t ld = LanesOf(p.rows);
  Scratch s;
  if (p.order) {
    LLMC_ASSIGN_OR_RETURN(s.position, DeviceBuffer::Allocate(queue, n * 4));
  }
  if (options.keep_zeros) {
    LLMC_ASSIGN_OR_RETURN(s.zeros, DeviceBuffer::Allocate(queue, n * (ld / kWarp) * 4));
  }
  LLMC_ASSIGN_OR_RETURN(s.group, DeviceBuffer::Allocate(queue, n * 4));
  LLMC_ASSIGN_OR_RETURN(s.lanes, DeviceBuffer::Allocate(queue, n * ld * 4));
  LLMC_ASSIGN_OR_RETURN(s.error, DeviceBuffer::Allocate(queue, kBlockColumns * ld * 4));
  return s;
}

template <Element kElement, DType kScaleDType>
absl::Status SolveBlocks(const ColumnBlock& blocks, const RoundingShape& shape,
                         DeviceQueue& queue) {
  const RoundingRule<kElement, kScaleDType> rule{shape};
  ColumnBlock block = blocks;
  const int64_t most = BlockWidth(blocks.loss_columns);
  for (block.begin = 0; block.begin < block.n; block.begin += most) {
    block.width = static_cast<int>(std::min(most, block.n - block.begin));
    LLMC_RETURN_IF_ERROR(SolveBlock(block, rule, queue));
  }
  return absl::OkStatus();
}

template <Element kElement>
absl::Status SolveBlocks(DType scale_dtype, const ColumnBlock& blocks, const RoundingShape& shape,
                         DeviceQueue& queue) {
  if (scale_dtype == DType::kBF16) {
    return SolveBlocks<kElement, DType::kBF16>(blocks, shape, queue);
  }
  if (scale_dtype == DType::kF16) return SolveBlocks<kElement, DType::kF16>(blocks, shape, queue);
  return SolveBlocks<kElement, DType::kF32>(blocks, shape, queue);
}

absl::Status SolveLanes(const GptqProblem& p, const ColumnBlock& blocks, RoundingShape shape,
                        DeviceQueue& queue) {
  QuantizationArgs args;
  args.type = p.grid.type;
  args.num_bits = p.grid.num_bits;
  shape.q_min = static_cast<float>(RangeOf(args).min);
  shape.q_max = static_cast<float>(RangeOf(args).max);
  switch (ElementOf(args)) {
    case Element::kE4m3:
      return SolveBlocks<Element::kE4m3>(p.grid.scale_dtype, blocks, shape, queue);
    case Element::kE2m1:
      return SolveBlocks<Element::kE2m1>(p.grid.scale_dtype, blocks, shape, queue);
    default:
      return SolveBlocks<Element::kInt>(p.grid.scale_dtype, blocks, shape, queue);
  }
}

ColumnBlock BlocksOf(const GptqProblem& p, const GptqSolveOptions& options, Scratch& scratch) {
  ColumnBlock blocks;
  blocks.upper = p.inverse_factor;
  blocks.n = p.in_features;
  blocks.loss_columns = static_cast<int>(std::min(options.block_size, kWidestLossBlock));
  blocks.lanes = scratch.lanes.as<float>();
  blocks.error = scratch.error.as<float>();
  blocks.loss = p.row_loss;
  blocks.rows = p.rows;
  blocks.ld = LanesOf(p.rows);
  return blocks;
}

RoundingShape ShapeOf(const GptqProblem& p, const Scratch& scratch) {
  RoundingShape shape;
  shape.scale = p.grid.scale;
  shape.zero_point = p.grid.zero_point;
  shape.group = scratch.group.as<int32_t>();
  shape.zeros = scratch.zeros.as<uint32_t>();
  shape.first_row = p.first_row;
  shape.rows = p.rows;
  shape.rows_per_scale = p.grid.rows_per_scale;
  shape.num_groups = p.grid.num_groups;
  shape.words = LanesOf(p.rows) / kWarp;
  return shape;
}

// row_error[r] = sum_c error[c, r] * -product[c, r], a thread for each row.
__global__ void RowErrorsKernel(const float* error, const float* product, int64_t n, int64_t ld,
                                OutputErrorCall call) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row >= call.rows) return;
  double sum = 0;
  for (int64_t c = 0; c < n; ++c) {
    sum += static_cast<double>(error[c * ld + row]) * -static_cast<double>(product[c * ld + row]);
  }
  call.row_error[row] = sum;
}

// The rows of one call are taken so many at a time, to bound the memory.
constexpr int64_t kErrorRows = 4096;

absl::Status ErrorsOfRows(const OutputErrorCall& call, DeviceQueue& queue) {
  const int64_t n = call.in_features;
  const int64_t ld = LanesOf(call.rows);
  LLMC_ASSIGN_OR_RETURN(DeviceBuffer error, DeviceBuffer::Allocate(queue, n * ld * 4));
  LLMC_ASSIGN_OR_RETURN(DeviceBuffer product, DeviceBuffer::Allocate(queue, n * ld * 4));
  DeviceRows rows;
  rows.weight = const_cast<float*>(call.dense);  // LoadLanes only reads.
  rows.minus = call.quantized;
  rows.rows = call.rows;
  rows.in_features = n;
  LLMC_RETURN_IF_ERROR(LoadLanes(rows, {error.as<float>(), nullptr}, queue));
  LLMC_RETURN_IF_ERROR(queue.Zero(product.as<float>(), product.num_bytes()));
  LLMC_RETURN_IF_ERROR(UpdateLanes({.factor = call.hessian,
                                    .factor_stride = n,
                                    .error = error.as<float>(),
                                    .num_errors = n,
                                    .lanes = product.as<float>(),
                                    .columns = n,
                                    .ld = ld},
                                   queue));
  return Launch(queue, {NumBlocks(call.rows, kWarp), kWarp}, RowErrorsKernel, error.as<float>(),
                product.as<float>(), n, ld, call);
}

}  // namespace

absl::Status GptqSolve(const GptqProblem& problem, const GptqSolveOptions& options,
                       DeviceQueue& queue) {
  LLMC_RETURN_IF_ERROR(CheckSizes(problem, options));
  constexpr int kThreads = 256;
  const int64_t n = problem.in_features;
  LLMC_ASSIGN_OR_RETURN(Scratch scratch, Allocate(problem, options, queue));
  if (problem.order) {
    LLMC_RETURN_IF_ERROR(InvertOrder(problem.order, n, scratch.position.as<int32_t>(), queue));
  }
  LLMC_RETURN_IF_ERROR(Launch(queue, {NumBlocks(n, kThreads), kThreads}, GroupsKernel, problem.grid,
                              problem.order, n, scratch.group.as<int32_t>()));
  const DeviceRows rows{problem.weight, nullptr, problem.rows, n, scratch.position.as<int32_t>()};
  LLMC_RETURN_IF_ERROR(
      LoadLanes(rows, {scratch.lanes.as<float>(), scratch.zeros.as<uint32_t>()}, queue));
  LLMC_RETURN_IF_ERROR(queue.Zero(problem.row_loss, problem.rows * sizeof(double)));
  LLMC_RETURN_IF_ERROR(
      SolveLanes(problem, BlocksOf(problem, options, scratch), ShapeOf(problem, scratch), queue));
  return StoreLanes(scratch.lanes.as<float>(), rows, problem.row_change, queue);
}

absl::Status OutputErrors(const OutputErrorCall& call, DeviceQueue& queue) {
  if (call.rows < 0 || call.in_features <= 0 || !call.dense || !call.hessian || !call.row_error) {
    return absl::InvalidArgumentError("OutputErrors: a size is out of range or an array missing");
  }
  for (int64_t first = 0; first < call.rows; first += kErrorRows) {
    OutputErrorCall part = call;
    part.dense += first * call.in_features;
    if (part.quantized) part.quantized += first * call.in_features;
    part.row_error += first;
    part.rows = std::min(kErrorRows, call.rows - first);
    LLMC_RETURN_IF_ERROR(ErrorsOfRows(part, queue));
  }
  return absl::OkStatus();
}

}  // namespace llmc::kernels
