// Extrema and range searches on a device; the grid itself is made on the host from one
// range a scale, by the CPU's own code.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cuda_queue.cuh"
#include "kernels/element.cuh"
#include "kernels/grid_point_formulas.h"
#include "kernels/grid_rows.h"
#include "kernels/range_search.h"
#include "kernels/weight_grid.h"
#include "llmc/parallel.h"

namespace llmc::kernels {
namespace {

// GridLayout without its shape, which is a vector.
struct Spans {
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t row_span = 1;
  int64_t column_span = 1;
  int64_t scale_columns = 1;
};

Spans SpansOf(const GridLayout& layout) {
  return {layout.rows, layout.columns, layout.row_span, layout.column_span, layout.scale_columns};
}

// The elements of one scale, numbered row by row; edges that the weight does not fill are
// counted too.
struct Span {
  int64_t first_row;
  int64_t first_column;
};

__device__ Span SpanOfScale(const Spans& s, int64_t scale) {
  return {scale / s.scale_columns * s.row_span, scale % s.scale_columns * s.column_span};
}

// Where element t of a span lies in the weight; -1: beyond its edges.
__device__ int64_t ElementAt(const Spans& s, const Span& span, int64_t t) {
  const int64_t row = span.first_row + t / s.column_span;
  const int64_t column = span.first_column + t % s.column_span;
  return row < s.rows && column < s.columns ? row * s.columns + column : -1;
}

constexpr int kExtremaThreads = 128;
using Index = unsigned long long;  // What CUDA compares atomically.

struct DeviceExtrema {
  Spans spans;
  const void* weight = nullptr;
  DType dtype = DType::kF32;
  bool symmetric = false;  // The range is +- the largest magnitude.
  Extrema* ranges = nullptr;
  Index* first_bad = nullptr;  // Of an infinity or NaN.
};

// A block for each scale.
__global__ void ExtremaKernel(DeviceExtrema e) {
  __shared__ int32_t smallest;
  __shared__ int32_t largest;
  if (threadIdx.x == 0) {
    smallest = 0x7fffffff;
    largest = -0x7fffffff - 1;
  }
  __syncthreads();
  const Span span = SpanOfScale(e.spans, blockIdx.x);
  int32_t min = 0x7fffffff;
  int32_t max = -0x7fffffff - 1;
  for (int64_t t = threadIdx.x; t < e.spans.row_span * e.spans.column_span; t += kExtremaThreads) {
    const int64_t i = ElementAt(e.spans, span, t);
    if (i < 0) continue;
    float value = LoadElement(e.dtype, e.weight, i);
    if (!IsFinite(value)) atomicMin(e.first_bad, static_cast<Index>(i));
    if (e.symmetric) value = std::bit_cast<float>(std::bit_cast<uint32_t>(value) & 0x7fffffffu);
    const int32_t ordered = Ordered(value);
    min = ordered < min ? ordered : min;
    max = ordered > max ? ordered : max;
  }
  atomicMin(&smallest, min);
  atomicMax(&largest, max);
  __syncthreads();
  if (threadIdx.x != 0) return;
  const float high = FromOrdered(largest);
  e.ranges[blockIdx.x] = {e.symmetric ? -high : FromOrdered(smallest), high};
}

constexpr int kLanes = 16;  // As in kernels/lane_sum_cpu.cc.
constexpr int kRows = 4;
constexpr int kLevels = 4;
constexpr int kSumThreads = kLanes * kRows;

struct DeviceSearch {
  Spans spans;
  GridRule rule;
  const void* weight = nullptr;
  const Extrema* observed = nullptr;  // [scales]
  const float* shrink = nullptr;      // [num_candidates]
  const float* powers = nullptr;      // PowersOf; null: in float32.
  const float* importance = nullptr;  // [columns]; null: all the same.
  float exponent = 0;
  float largest_error = 0;
  int num_candidates = 0;
  int power = 4;                 // Of the cascade of partial sums.
  int* best = nullptr;           // [scales]: the candidate; -1: none.
  unsigned* improved = nullptr;  // [num_candidates]
  double* row_sums = nullptr;    // [num_candidates, rows]: for one scale of many rows.
};

__device__ float PowerInFloat(float x, float exponent) {
  if (exponent == 2.0f) return x * x;
  if (exponent == 3.0f) return x * x * x;
  return static_cast<float>(pow(static_cast<double>(x), static_cast<double>(exponent)));
}

__device__ GridPoint PointOfCandidate(const DeviceSearch& s, int64_t scale, int candidate) {
  const float p = s.shrink[candidate];
  const Extrema observed = s.observed[scale];
  return PointFor(
      s.rule, {RoundTo(s.rule.dtype, observed.min * p), RoundTo(s.rule.dtype, observed.max * p)});
}

// What element i adds to the error at a point: as AddRowTerms in
// kernels/range_search_cpu.cc, without the detour over codes.
__device__ float TermOf(const DeviceSearch& s, const GridPoint& point, int64_t i) {
  const GridRule& rule = s.rule;
  const float w = LoadElement(rule.dtype, s.weight, i);
  float t = RoundTo(rule.dtype, w / point.scale);
  if (!rule.symmetric) t = RoundTo(rule.dtype, t + point.zero);
  float q = RoundToGrid(rule.element, t, rule.q_min, rule.q_max);
  q = rule.symmetric ? q : q - point.zero;
  const float difference = RoundTo(rule.dtype, RoundTo(rule.dtype, q) * point.scale) - w;
  float term = s.powers != nullptr ? s.powers[NarrowBits(rule.dtype, difference) & 0x7fff]
                                   : PowerInFloat(fabsf(difference), s.exponent);
  if (s.importance != nullptr) term *= s.importance[i % s.spans.columns];
  return term;
}

struct TermSource {
  const DeviceSearch& search;
  Span span;
  GridPoint point;

  __device__ float operator[](int64_t t) const {
    const int64_t i = ElementAt(search.spans, span, t);
    return i < 0 ? 0.0f : TermOf(search, point, i);
  }
};

// One lane's part of a vector: kPairs adds the two halves of a vector of 32 first.
template <bool kPairs>
__device__ float VectorTerm(const TermSource& terms, int64_t vector, int lane) {
  if constexpr (kPairs) {
    const int64_t first = vector * 2 * kLanes + lane;
    const float low = terms[first];
    return low + terms[first + kLanes];
  }
  return terms[vector * kLanes + lane];
}

// LaneSum (kPairs: LaneSumOfPairs) of `count` terms by kSumThreads threads, in the CPU's
// order of additions; the result is thread 0's.
template <bool kPairs>
__device__ float SumOfTerms(const TermSource& terms, int64_t count, int power) {
  constexpr int kVector = kPairs ? 2 * kLanes : kLanes;
  __shared__ float lanes[kRows][kLanes];
  __shared__ float rest[kVector];
  const int lane = threadIdx.x % kLanes;
  const int row = threadIdx.x / kLanes;
  const int64_t vectors = count / kVector;
  const int64_t steps = vectors / kRows;
  float level[kLevels] = {};
  for (int64_t i = 0; i < steps;) {
    level[0] += VectorTerm<kPairs>(terms, i * kRows + row, lane);
    ++i;
#pragma unroll
    for (int j = 1; j < kLevels; ++j) {
      if ((i & ((int64_t{1} << (j * power)) - 1)) != 0) break;
      level[j] += level[j - 1];
      level[j - 1] = 0;
    }
  }
#pragma unroll
  for (int j = 1; j < kLevels; ++j) level[0] += level[j];
  if (row == 0) {
    for (int64_t v = steps * kRows; v < vectors; ++v) {
      level[0] += VectorTerm<kPairs>(terms, v, lane);
    }
  }
  __syncthreads();  // The sum before is taken.
  lanes[row][lane] = level[0];
  const int left = static_cast<int>(count - vectors * kVector);
  if (static_cast<int>(threadIdx.x) < left) {
    rest[threadIdx.x] = terms[vectors * kVector + threadIdx.x];
  }
  __syncthreads();
  if (threadIdx.x != 0) return 0;
  float sum = 0;
  for (int i = 0; i < left; ++i) sum += rest[i];
  for (int l = 0; l < kLanes; ++l) {
    sum += lanes[0][l] + lanes[1][l] + lanes[2][l] + lanes[3][l];
  }
  return sum;
}

// A block for each scale: all candidates, the first of the smallest errors wins.
template <bool kPairs>
__global__ void __launch_bounds__(kSumThreads) SearchKernel(DeviceSearch s) {
  const int64_t scale = blockIdx.x;
  const Span span = SpanOfScale(s.spans, scale);
  const int64_t count = s.spans.row_span * s.spans.column_span;
  float least = s.largest_error;
  int best = -1;
  for (int i = 0; i < s.num_candidates; ++i) {
    const TermSource terms{s, span, PointOfCandidate(s, scale, i)};
    float error = SumOfTerms<kPairs>(terms, count, s.power);
    if (threadIdx.x != 0) continue;
    if (kPairs) error = RoundTo(s.rule.dtype, error);
    if (!(error < least)) continue;
    least = error;
    best = i;
    atomicOr(&s.improved[i], 1u);
  }
  if (threadIdx.x == 0) s.best[scale] = best;
}

constexpr int kRowThreads = 64;

// Block (b, i): rows [64 b, ...) for candidate i, a thread for each row.
__global__ void RowSumsKernel(DeviceSearch s) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRowThreads + threadIdx.x;
  if (row >= s.spans.rows) return;
  const GridPoint point = PointOfCandidate(s, 0, static_cast<int>(blockIdx.y));
  double sum = 0;
  for (int64_t c = 0; c < s.spans.columns; ++c) sum += TermOf(s, point, row * s.spans.columns + c);
  s.row_sums[blockIdx.y * s.spans.rows + row] = sum;
}

int CeilLog2(int64_t n) { return n <= 2 ? 1 : std::bit_width(static_cast<uint64_t>(n - 1)); }

// A view whose bytes are on the device: only its size may be looked at.
TensorView SizeOnly(const DeviceWeight& weight) {
  const int64_t bytes = weight.rows * weight.columns * ElementSize(weight.dtype);
  return {weight.dtype,
          {weight.rows, weight.columns},
          {static_cast<const std::byte*>(weight.elements), static_cast<size_t>(bytes)}};
}

absl::Status Check(const DeviceWeight& weight) {
  if (weight.queue == nullptr) {
    return absl::InvalidArgumentError("weight: no queue, expected that of its device");
  }
  return CheckDenseWeight(SizeOnly(weight));
}

// kInvalidArgument naming the first infinity or NaN, as FirstBadRow::Check.
absl::Status BadElement(const DeviceWeight& weight, int64_t index) {
  std::array<std::byte, 4> bits = {};
  const int64_t size = ElementSize(weight.dtype);
  LLMC_RETURN_IF_ERROR(weight.queue->CopyToHost(
      static_cast<const std::byte*>(weight.elements) + index * size, size, bits.data()));
  LLMC_RETURN_IF_ERROR(weight.queue->Synchronize());
  const int64_t row = index / weight.columns;
  std::vector<std::byte> row_bytes(weight.columns * size);
  std::copy_n(bits.begin(), size, row_bytes.begin() + index % weight.columns * size);
  FirstBadRow bad;
  bad.Report(0);
  const absl::Status status =
      bad.Check({weight.dtype, {1, weight.columns}, {row_bytes.data(), row_bytes.size()}});
  // The message of a weight of one row, with the row it is.
  std::string message(status.message());
  const std::string from = "at row 0,";
  message.replace(message.find(from), from.size(), absl::StrCat("at row ", row, ","));
  return absl::InvalidArgumentError(message);
}

// The range of every scale. Waits.
absl::StatusOr<std::vector<Extrema>> RangesOf(const DeviceWeight& weight, const GridLayout& layout,
                                              bool symmetric) {
  DeviceQueue& queue = *weight.queue;
  std::vector<Extrema> ranges(layout.num_scales());
  if (weight.rows == 0 || weight.columns == 0) return ranges;
  const int64_t bytes = std::ssize(ranges) * static_cast<int64_t>(sizeof(Extrema));
  LLMC_ASSIGN_OR_RETURN(DeviceBuffer device, DeviceBuffer::Allocate(queue, bytes));
  LLMC_ASSIGN_OR_RETURN(DeviceBuffer bad, DeviceBuffer::Allocate(queue, sizeof(Index)));
  constexpr Index kNone = ~Index{0};
  Index first_bad = kNone;
  LLMC_RETURN_IF_ERROR(queue.CopyToDevice(&first_bad, sizeof(Index), bad.as<Index>()));
  const DeviceExtrema extrema{SpansOf(layout), weight.elements,      weight.dtype,
                              symmetric,       device.as<Extrema>(), bad.as<Index>()};
  LLMC_RETURN_IF_ERROR(Launch(queue, {static_cast<unsigned>(layout.num_scales()), kExtremaThreads},
                              ExtremaKernel, extrema));
  LLMC_RETURN_IF_ERROR(queue.CopyToHost(device.as<Extrema>(), bytes, ranges.data()));
  LLMC_RETURN_IF_ERROR(queue.CopyToHost(bad.as<Index>(), sizeof(Index), &first_bad));
  LLMC_RETURN_IF_ERROR(queue.Synchronize());
  if (first_bad != kNone) return BadElement(weight, static_cast<int64_t>(first_bad));
  return ranges;
}

bool IsOneScaleOfManyRows(const GridLayout& layout) {
  return layout.num_scales() == 1 && layout.rows > 1;
}

// One run of a search on a device.
class DeviceSearcher {
 public:
  DeviceSearcher(const DeviceWeight& weight, const GridSetup& setup, const SearchRule& search)
      : weight_(weight),
        layout_(setup.layout),
        rule_(setup.rule),
        search_(search),
        queue_(*weight.queue) {}

  absl::StatusOr<std::vector<Extrema>> Run(std::span<const float> importance) {
    LLMC_RETURN_IF_ERROR(CheckImportance(importance, weight_.columns));
    LLMC_RETURN_IF_ERROR(Observe());
    if (weight_.rows == 0 || weight_.columns == 0) return observed_;
    LLMC_RETURN_IF_ERROR(Upload(importance));
    LLMC_RETURN_IF_ERROR(Evaluate(search_.num_candidates));
    const int stop = StopAfter(search_, improved_);
    const bool is_late =
        std::any_of(best_.begin(), best_.end(), [stop](int best) { return best >= stop; });
    if (is_late) LLMC_RETURN_IF_ERROR(Evaluate(stop));
    std::vector<Extrema> ranges;
    for (size_t i = 0; i < observed_.size(); ++i) {
      ranges.push_back(CandidateRange(rule_, search_, observed_[i], best_[i]));
    }
    return ranges;
  }

 private:
  // The whole weight as one scale is observed as it is, like on the CPU.
  absl::Status Observe() {
    const bool is_whole = layout_.scale_rows == 1 && layout_.scale_columns == 1 &&
                          layout_.row_span == std::max<int64_t>(layout_.rows, 1);
    if (is_whole) {
      LLMC_ASSIGN_OR_RETURN(const Extrema whole, FindExtrema(weight_));
      observed_ = {whole};
    } else {
      LLMC_ASSIGN_OR_RETURN(observed_, RangesOf(weight_, layout_, rule_.symmetric));
    }
    const float expand = static_cast<float>(search_.expand);
    for (Extrema& e : observed_) {
      e = {RoundTo(rule_.dtype, e.min * expand), RoundTo(rule_.dtype, e.max * expand)};
    }
    return absl::OkStatus();
  }

  template <typename T>
  absl::StatusOr<const T*> UploadOne(const std::vector<T>& from) {
    const int64_t bytes = std::ssize(from) * static_cast<int64_t>(sizeof(T));
    LLMC_ASSIGN_OR_RETURN(DeviceBuffer buffer, DeviceBuffer::Allocate(queue_, bytes));
    LLMC_RETURN_IF_ERROR(queue_.CopyToDevice(from.data(), bytes, buffer.as<T>()));
    buffers_.push_back(std::move(buffer));
    return buffers_.back().template as<T>();
  }

  absl::Status Upload(std::span<const float> importance) {
    device_.spans = SpansOf(layout_);
    device_.rule = rule_;
    device_.weight = weight_.elements;
    device_.exponent = static_cast<float>(search_.norm);
    device_.largest_error = LargestError(rule_, search_);
    const int64_t vector = ErrorIsInDType(rule_, search_) ? 2 * kLanes : kLanes;
    const int64_t steps = layout_.row_span * layout_.column_span / vector / kRows;
    device_.power = std::max(4, CeilLog2(steps) / kLevels);
    std::vector<float> shrink;
    for (int i = 0; i < search_.num_candidates; ++i) shrink.push_back(ShrinkOf(search_, i));
    LLMC_ASSIGN_OR_RETURN(device_.shrink, UploadOne(shrink));
    LLMC_ASSIGN_OR_RETURN(device_.observed, UploadOne(observed_));
    if (ErrorIsInDType(rule_, search_)) {
      LLMC_ASSIGN_OR_RETURN(device_.powers, UploadOne(PowersOf(rule_.dtype, search_.norm)));
    }
    if (search_.imatrix && !importance.empty()) {
      LLMC_ASSIGN_OR_RETURN(device_.importance, UploadOne(OverItsMean(importance)));
    }
    const int64_t scales = layout_.num_scales();
    LLMC_ASSIGN_OR_RETURN(best_buffer_, DeviceBuffer::Allocate(queue_, scales * sizeof(int)));
    LLMC_ASSIGN_OR_RETURN(improved_buffer_,
                          DeviceBuffer::Allocate(queue_, kMaxCandidates * sizeof(unsigned)));
    device_.best = best_buffer_.as<int>();
    device_.improved = improved_buffer_.as<unsigned>();
    return absl::OkStatus();
  }

  // Candidates [0, end) of every scale. Waits.
  absl::Status Evaluate(int end) {
    improved_.fill(false);
    best_.assign(layout_.num_scales(), -1);
    if (end == 0) return absl::OkStatus();
    device_.num_candidates = end;
    if (IsOneScaleOfManyRows(layout_)) return EvaluateWhole();
    LLMC_RETURN_IF_ERROR(queue_.Zero(device_.improved, improved_buffer_.num_bytes()));
    const LaunchShape shape{static_cast<unsigned>(layout_.num_scales()), kSumThreads};
    LLMC_RETURN_IF_ERROR(device_.powers != nullptr
                             ? Launch(queue_, shape, SearchKernel<true>, device_)
                             : Launch(queue_, shape, SearchKernel<false>, device_));
    std::vector<unsigned> improved(end);
    LLMC_RETURN_IF_ERROR(queue_.CopyToHost(device_.best, best_buffer_.num_bytes(), best_.data()));
    LLMC_RETURN_IF_ERROR(
        queue_.CopyToHost(device_.improved, end * sizeof(unsigned), improved.data()));
    LLMC_RETURN_IF_ERROR(queue_.Synchronize());
    for (int i = 0; i < end; ++i) improved_[i] = improved[i] != 0;
    return absl::OkStatus();
  }

  // As TensorError and Evaluate of the CPU: rows in double, added up in their order.
  absl::Status EvaluateWhole() {
    const int64_t rows = layout_.rows;
    const int end = device_.num_candidates;
    std::vector<double> sums(end * rows);
    const int64_t bytes = std::ssize(sums) * static_cast<int64_t>(sizeof(double));
    LLMC_ASSIGN_OR_RETURN(DeviceBuffer buffer, DeviceBuffer::Allocate(queue_, bytes));
    device_.row_sums = buffer.as<double>();
    const dim3 grid(NumBlocks(rows, kRowThreads), static_cast<unsigned>(end));
    LLMC_RETURN_IF_ERROR(Launch(queue_, {grid, kRowThreads}, RowSumsKernel, device_));
    LLMC_RETURN_IF_ERROR(queue_.CopyToHost(device_.row_sums, bytes, sums.data()));
    LLMC_RETURN_IF_ERROR(queue_.Synchronize());
    float least = device_.largest_error;
    for (int i = 0; i < end; ++i) {
      double whole = 0;
      for (int64_t row = 0; row < rows; ++row) whole += sums[i * rows + row];
      float error = static_cast<float>(whole);
      if (device_.powers != nullptr) error = RoundTo(rule_.dtype, error);
      if (!(error < least)) continue;
      least = error;
      best_[0] = i;
      improved_[i] = true;
    }
    return absl::OkStatus();
  }

  const DeviceWeight& weight_;
  const GridLayout& layout_;
  const GridRule& rule_;
  const SearchRule& search_;
  DeviceQueue& queue_;
  DeviceSearch device_;
  std::vector<DeviceBuffer> buffers_;
  DeviceBuffer best_buffer_;
  DeviceBuffer improved_buffer_;
  std::vector<Extrema> observed_;
  std::vector<int> best_;
  std::array<bool, kMaxCandidates> improved_ = {};
};

absl::StatusOr<std::vector<Extrema>> Search(const DeviceWeight& weight,
                                            const QuantizationArgs& args, const GridSetup& setup,
                                            const WeightGridOptions& options) {
  LLMC_ASSIGN_OR_RETURN(const SearchRule search, SearchRuleOf(args));
  return DeviceSearcher(weight, setup, search).Run(options.importance);
}

float LargestMagnitude(const std::vector<Extrema>& ranges) {
  float largest = 0;
  for (const Extrema& e : ranges) largest = std::max({largest, -e.min, e.max});
  return largest;
}

// The ranges that the scales are made of.
absl::StatusOr<std::vector<Extrema>> Observed(const DeviceWeight& weight,
                                              const QuantizationArgs& args, const GridSetup& setup,
                                              const WeightGridOptions& options) {
  if (!IsMinMaxObserver(args)) return Search(weight, args, setup, options);
  if (args.strategy != Strategy::kTensor) {
    return RangesOf(weight, setup.layout, setup.rule.symmetric);
  }
  if (options.tensor_extrema) return std::vector<Extrema>{*options.tensor_extrema};
  LLMC_ASSIGN_OR_RETURN(const Extrema whole, FindExtrema(weight));
  return std::vector<Extrema>{whole};
}

absl::Status SetGlobalScale(const DeviceWeight& weight, const std::vector<Extrema>& ranges,
                            const WeightGridOptions& options, GridRule& rule) {
  const float absmax = options.fused_absmax.value_or(LargestMagnitude(ranges));
  if (!std::isfinite(absmax)) {
    return absl::InvalidArgumentError("fused_absmax: not finite, expected the absmax of weights");
  }
  rule.global_scale = GlobalScaleOf(absmax, weight.dtype, options.exact_f16_global_scale);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<WeightGrid> ComputeWeightGrid(const DeviceWeight& weight,
                                             const QuantizationArgs& args,
                                             const WeightGridOptions& options) {
  LLMC_RETURN_IF_ERROR(Check(weight));
  LLMC_ASSIGN_OR_RETURN(GridSetup setup, SetUpGrid(SizeOnly(weight), args));
  LLMC_ASSIGN_OR_RETURN(const std::vector<Extrema> ranges, Observed(weight, args, setup, options));
  if (IsNvfp4(args)) {
    LLMC_RETURN_IF_ERROR(SetGlobalScale(weight, ranges, options, setup.rule));
  }
  WeightGrid grid = AllocateGrid(setup.layout, setup.rule);
  constexpr int64_t kScalesPerUnit = 1024;
  const int64_t scales = std::ssize(ranges);
  ParallelFor((scales + kScalesPerUnit - 1) / kScalesPerUnit, [&](int64_t unit) {
    const int64_t end = std::min(scales, (unit + 1) * kScalesPerUnit);
    for (int64_t i = unit * kScalesPerUnit; i < end; ++i) {
      StorePoint(setup.rule, PointOf(setup.rule, ranges[i]), i, grid);
    }
  });
  return grid;
}

absl::StatusOr<Extrema> FindExtrema(const DeviceWeight& weight) {
  LLMC_RETURN_IF_ERROR(Check(weight));
  if (weight.rows == 0 || weight.columns == 0) return Extrema{};
  const GridLayout rows{weight.rows, weight.columns, 1, weight.columns, weight.rows, 1, {}};
  LLMC_ASSIGN_OR_RETURN(const std::vector<Extrema> ranges, RangesOf(weight, rows, false));
  Extrema whole = ranges[0];
  for (const Extrema& e : ranges) {
    whole = {std::min(whole.min, e.min), std::max(whole.max, e.max)};
  }
  return whole;
}

absl::StatusOr<float> SearchedAbsMax(const DeviceWeight& weight, const QuantizationArgs& args,
                                     const WeightGridOptions& options) {
  LLMC_RETURN_IF_ERROR(Check(weight));
  LLMC_ASSIGN_OR_RETURN(const GridSetup setup, SetUpGrid(SizeOnly(weight), args));
  LLMC_ASSIGN_OR_RETURN(const std::vector<Extrema> ranges, Observed(weight, args, setup, options));
  return LargestMagnitude(ranges);
}

}  // namespace llmc::kernels
