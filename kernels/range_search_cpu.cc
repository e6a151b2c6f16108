#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/grid_rows.h"
#include "kernels/lane_sum.h"
#include "kernels/range_search.h"
#include "kernels/row_kernels.h"
#include "llmc/float_formats.h"
#include "llmc/parallel.h"

namespace llmc::kernels {
namespace {

double Option(const QuantizationArgs& args, const char* name, double fallback) {
  const auto it = args.observer_kwargs.find(name);
  return it == args.observer_kwargs.end() ? fallback : it->second;
}

// maxshrink, grid, norm, patience and expand of an observer.
struct Defaults {
  double maxshrink, grid, norm, patience, expand;
};

absl::StatusOr<Defaults> DefaultsOf(const std::string& observer) {
  if (observer == "mse" || observer == "memoryless_mse") return Defaults{0.20, 100, 2.4, 5, 1};
  if (observer == "imatrix_mse") return Defaults{0.95, 20, 3.0, 5, 1};
  const double shrink = 1 - 0.8 / 1.8;
  if (observer == "nvfp4_expanded_mse" || observer == "fouroversix" ||
      observer == "nvfp4_expanded_imatrix") {
    return Defaults{shrink, 200, 2.4, 1000, 1.8};
  }
  return absl::InvalidArgumentError(
      absl::StrCat("observer: ", observer,
                   " does not look at weights, expected memoryless_minmax, memoryless_mse, "
                   "imatrix_mse, nvfp4_expanded_mse or nvfp4_expanded_imatrix"));
}

float PowerOf(DType dtype, float magnitude, float exponent) {
  const float square = RoundTo(dtype, magnitude * magnitude);
  if (exponent == 2.0f) return square;
  if (exponent == 3.0f) return RoundTo(dtype, square * magnitude);
  const double power = std::pow(static_cast<double>(magnitude), static_cast<double>(exponent));
  return RoundTo(dtype, static_cast<float>(power));
}

// |difference|^norm for differences that are numbers of a 16-bit dtype.
class PowerTable {
 public:
  PowerTable(DType dtype, double norm) : dtype_(dtype), powers_(PowersOf(dtype, norm)) {}

  void Apply(float* differences, int64_t n) const {
    uint16_t bits[kTileColumns];
    NarrowSpan(dtype_, differences, n, bits);
    for (int64_t i = 0; i < n; ++i) differences[i] = powers_[bits[i] & 0x7fff];
  }

 private:
  DType dtype_;
  std::vector<float> powers_;
};

// |difference|^norm in float32.
void PowerInFloat(float* differences, int64_t n, double norm) {
  const float exponent = static_cast<float>(norm);
  for (int64_t i = 0; i < n; ++i) {
    const float x = std::fabs(differences[i]);
    if (exponent == 2.0f) {
      differences[i] = x * x;
    } else if (exponent == 3.0f) {
      differences[i] = x * x * x;
    } else {
      differences[i] = std::pow(x, exponent);
    }
  }
}

// One run of a search over a weight.
class Searcher {
 public:
  Searcher(const TensorView& weight, const GridLayout& layout, const GridRule& rule,
           const SearchRule& search)
      : weight_(weight), layout_(layout), rule_(rule), search_(search) {
    code_.dtype = rule.dtype;
    code_.element = rule.element;
    code_.zero = rule.symmetric ? ZeroPoint::kNone : ZeroPoint::kPerColumn;
    code_.q_min = rule.q_min;
    code_.q_max = rule.q_max;
    number_ = {rule.dtype, rule.element, 0};
    in_dtype_ = ErrorIsInDType(rule, search);
    if (in_dtype_) table_ = std::make_unique<PowerTable>(rule.dtype, search.norm);
  }

  absl::StatusOr<std::vector<Extrema>> Run(std::span<const float> importance);

 private:
  struct Best {
    float error = 0;
    int candidate = -1;  // -1: the observed extrema, none improved.
  };
  using Improved = std::array<bool, kMaxCandidates>;

  absl::Status Observe();
  Extrema Candidate(size_t scale, int candidate) const {
    return CandidateRange(rule_, search_, observed_[scale], candidate);
  }
  void Evaluate(size_t scale, int end, Best& best, Improved& improved) const;
  float Error(size_t scale, const GridPoint& point) const;
  float TensorError(const GridPoint& point) const;
  void AddRowTerms(int64_t row, int64_t first, int64_t n, const GridPoint& point,
                   float* terms) const;
  void EvaluateAll(int end, Improved& improved);

  const TensorView& weight_;
  const GridLayout& layout_;
  const GridRule& rule_;
  const SearchRule& search_;
  CodeRule code_;
  NumberRule number_;
  bool in_dtype_ = false;  // Differences, powers and errors are rounded to the dtype.
  std::unique_ptr<PowerTable> table_;
  std::vector<float> importance_;  // Divided by its mean; empty: all the same.
  std::vector<Extrema> observed_;
  std::vector<Best> best_;
};

absl::Status Searcher::Observe() {
  observed_.resize(static_cast<size_t>(layout_.num_scales()));
  if (layout_.scale_rows == 1 && layout_.row_span == std::max<int64_t>(layout_.rows, 1) &&
      layout_.scale_columns == 1) {
    LLMC_ASSIGN_OR_RETURN(observed_[0], FindExtrema(weight_));
  } else {
    LLMC_RETURN_IF_ERROR(FindExtrema(weight_).status());
    const int64_t count = layout_.scale_columns;
    ParallelFor(layout_.scale_rows, [&](int64_t r) {
      std::vector<float> min(static_cast<size_t>(count));
      std::vector<float> max(static_cast<size_t>(count));
      const int64_t first = r * layout_.row_span;
      SpanExtrema(weight_, layout_, rule_.symmetric, first,
                  std::min(layout_.rows, first + layout_.row_span), min.data(), max.data());
      for (int64_t g = 0; g < count; ++g) observed_[r * count + g] = {min[g], max[g]};
    });
  }
  const float expand = static_cast<float>(search_.expand);
  for (Extrema& e : observed_) {
    e = {RoundTo(rule_.dtype, e.min * expand), RoundTo(rule_.dtype, e.max * expand)};
  }
  return absl::OkStatus();
}

// The error terms of columns [first, first + n) of a row, n <= kTileColumns.
void Searcher::AddRowTerms(int64_t row, int64_t first, int64_t n, const GridPoint& point,
                           float* terms) const {
  float scale[kTileColumns];
  float zero[kTileColumns];
  float numbers[kTileColumns];
  uint8_t codes[kTileColumns];
  std::fill(scale, scale + n, point.scale);
  std::fill(zero, zero + n, point.zero);
  const std::byte* bytes =
      weight_.bytes.data() + (row * layout_.columns + first) * ElementSize(weight_.dtype);
  WidenSpan(weight_.dtype, bytes, n, numbers);
  QuantizeSpan(code_, bytes, n, scale, zero, codes);
  DequantizeSpan(number_, codes, n, scale, rule_.symmetric ? nullptr : zero, terms);
  for (int64_t i = 0; i < n; ++i) terms[i] -= numbers[i];
  if (in_dtype_) {
    table_->Apply(terms, n);
  } else {
    PowerInFloat(terms, n, search_.norm);
  }
  if (importance_.empty()) return;
  for (int64_t i = 0; i < n; ++i) terms[i] *= importance_[first + i];
}

// The terms of one scale's elements, row by row, summed in the reference's
// order.
float Searcher::Error(size_t scale, const GridPoint& point) const {
  const int64_t first_row = static_cast<int64_t>(scale) / layout_.scale_columns * layout_.row_span;
  const int64_t last_row = std::min(layout_.rows, first_row + layout_.row_span);
  const int64_t first = static_cast<int64_t>(scale) % layout_.scale_columns * layout_.column_span;
  const int64_t last = std::min(layout_.columns, first + layout_.column_span);
  thread_local std::vector<float> terms;
  // Blocks that the weight does not fill are completed by zeros.
  terms.assign(static_cast<size_t>(layout_.row_span * layout_.column_span), 0.0f);
  float* out = terms.data();
  for (int64_t row = first_row; row < last_row; ++row, out += layout_.column_span) {
    for (int64_t c = first; c < last; c += kTileColumns) {
      AddRowTerms(row, c, std::min(kTileColumns, last - c), point, out + (c - first));
    }
  }
  const int64_t count = static_cast<int64_t>(terms.size());
  return in_dtype_ ? RoundTo(rule_.dtype, LaneSumOfPairs(terms.data(), count))
                   : LaneSum(terms.data(), count);
}

// One scale for the whole weight: too long for one buffer, and shared by all
// threads. Rows are added in double precision, in their order.
float Searcher::TensorError(const GridPoint& point) const {
  std::vector<double> sums(static_cast<size_t>(layout_.rows));
  ParallelFor(layout_.rows, [&](int64_t row) {
    float terms[kTileColumns];
    double sum = 0;
    for (int64_t c = 0; c < layout_.columns; c += kTileColumns) {
      const int64_t n = std::min(kTileColumns, layout_.columns - c);
      AddRowTerms(row, c, n, point, terms);
      for (int64_t i = 0; i < n; ++i) sum += terms[i];
    }
    sums[static_cast<size_t>(row)] = sum;
  });
  double whole = 0;
  for (const double sum : sums) whole += sum;
  const float error = static_cast<float>(whole);
  return in_dtype_ ? RoundTo(rule_.dtype, error) : error;
}

// Candidates [0, end) of one scale; the first of the smallest errors wins.
void Searcher::Evaluate(size_t scale, int end, Best& best, Improved& improved) const {
  best = {LargestError(rule_, search_), -1};
  const bool tensor = layout_.num_scales() == 1 && layout_.rows > 1;
  for (int i = 0; i < end; ++i) {
    const GridPoint point = PointOf(rule_, Candidate(scale, i));
    const float error = tensor ? TensorError(point) : Error(scale, point);
    if (!(error < best.error)) continue;
    best = {error, i};
    improved[i] = true;
  }
}

void Searcher::EvaluateAll(int end, Improved& improved) {
  const int64_t scales = layout_.num_scales();
  if (scales == 1) return Evaluate(0, end, best_[0], improved);
  constexpr int64_t kScalesPerUnit = 64;
  const int64_t units = (scales + kScalesPerUnit - 1) / kScalesPerUnit;
  std::vector<Improved> parts(static_cast<size_t>(units), Improved{});
  ParallelFor(units, [&](int64_t unit) {
    const int64_t last = std::min(scales, (unit + 1) * kScalesPerUnit);
    for (int64_t s = unit * kScalesPerUnit; s < last; ++s) {
      Evaluate(static_cast<size_t>(s), end, best_[s], parts[unit]);
    }
  });
  for (const Improved& part : parts) {
    for (int i = 0; i < end; ++i) improved[i] = improved[i] || part[i];
  }
}

absl::StatusOr<std::vector<Extrema>> Searcher::Run(std::span<const float> importance) {
  LLMC_RETURN_IF_ERROR(Observe());
  if (search_.imatrix) importance_ = OverItsMean(importance);
  best_.resize(observed_.size());
  Improved improved = {};
  EvaluateAll(search_.num_candidates, improved);
  const int stop = StopAfter(search_, improved);
  const bool late = std::any_of(best_.begin(), best_.end(),
                                [&](const Best& best) { return best.candidate >= stop; });
  if (late) EvaluateAll(stop, improved);
  std::vector<Extrema> ranges(observed_.size());
  for (size_t i = 0; i < ranges.size(); ++i) ranges[i] = Candidate(i, best_[i].candidate);
  return ranges;
}

}  // namespace

absl::Status CheckImportance(std::span<const float> importance, int64_t columns) {
  if (importance.empty()) return absl::OkStatus();
  if (static_cast<int64_t>(importance.size()) != columns) {
    return absl::InvalidArgumentError(
        absl::StrCat("importance: ", importance.size(), " channels, expected ", columns));
  }
  for (const float x : importance) {
    if (std::isfinite(x) && x >= 0) continue;
    return absl::InvalidArgumentError("importance: negative or not finite, expected mean of x^2");
  }
  return absl::OkStatus();
}

std::vector<float> OverItsMean(std::span<const float> importance) {
  double sum = 0;
  for (const float x : importance) sum += x;
  const float mean = static_cast<float>(sum / static_cast<double>(importance.size()));
  std::vector<float> shares;
  for (const float x : importance) {
    shares.push_back(x / (mean + std::numeric_limits<float>::min()));
  }
  return shares;
}

std::vector<float> PowersOf(DType dtype, double norm) {
  constexpr int kMagnitudes = 32768;
  const float exponent = RoundTo(dtype, static_cast<float>(norm));
  std::vector<uint16_t> bits(kMagnitudes);
  for (int i = 0; i < kMagnitudes; ++i) bits[i] = static_cast<uint16_t>(i);
  std::vector<float> powers(kMagnitudes);
  WidenSpan(dtype, bits.data(), kMagnitudes, powers.data());
  for (float& power : powers) power = PowerOf(dtype, power, exponent);
  return powers;
}

bool ErrorIsInDType(const GridRule& rule, const SearchRule& search) {
  return !search.imatrix && rule.dtype != DType::kF32;
}

float LargestError(const GridRule& rule, const SearchRule& search) {
  if (!ErrorIsInDType(rule, search)) return std::numeric_limits<float>::max();
  return rule.dtype == DType::kBF16 ? FromBf16Bits(0x7f7f) : 65504.0f;
}

Extrema CandidateRange(const GridRule& rule, const SearchRule& search, Extrema observed,
                       int candidate) {
  if (candidate < 0) return observed;
  const float p = ShrinkOf(search, candidate);
  return {RoundTo(rule.dtype, observed.min * p), RoundTo(rule.dtype, observed.max * p)};
}

int StopAfter(const SearchRule& search, std::span<const bool> improved) {
  int idle = 0;
  for (int i = 0; i < search.num_candidates; ++i) {
    idle = improved[i] ? 0 : idle + 1;
    if (!improved[i] && search.patience > 0 && idle >= search.patience) return i + 1;
  }
  return search.num_candidates;
}

absl::StatusOr<SearchRule> SearchRuleOf(const QuantizationArgs& args) {
  const std::string observer = args.observer.value_or("memoryless_minmax");
  LLMC_ASSIGN_OR_RETURN(const Defaults defaults, DefaultsOf(observer));
  SearchRule rule;
  rule.imatrix = observer == "imatrix_mse" || observer == "nvfp4_expanded_imatrix";
  const double maxshrink = Option(args, "maxshrink", defaults.maxshrink);
  rule.grid = Option(args, "grid", defaults.grid);
  rule.norm = Option(args, "norm", defaults.norm);
  rule.expand = Option(args, "expand", defaults.expand);
  const double patience = Option(args, "patience", defaults.patience);
  const bool sound = maxshrink >= 0 && maxshrink <= 1 && rule.grid >= 1 && rule.norm > 0 &&
                     std::isfinite(rule.norm) && rule.expand >= 1 && rule.expand <= 16 &&
                     patience >= 0 && patience <= 1e6 && maxshrink * rule.grid < kMaxCandidates - 1;
  if (!sound) {
    return absl::InvalidArgumentError(
        "observer_kwargs: out of range, expected maxshrink in [0, 1], grid >= 1, norm > 0, "
        "expand in [1, 16], patience >= 0 and fewer than 1023 steps");
  }
  rule.patience = static_cast<int>(patience);
  const int steps = static_cast<int>(maxshrink * rule.grid);
  rule.num_candidates = rule.imatrix ? std::max(1, steps) + 1 : steps;
  return rule;
}

absl::StatusOr<std::vector<Extrema>> SearchRanges(const TensorView& weight,
                                                  const GridLayout& layout, const GridRule& rule,
                                                  const SearchRule& search,
                                                  std::span<const float> importance) {
  LLMC_RETURN_IF_ERROR(CheckImportance(importance, weight.dim(1)));
  return Searcher(weight, layout, rule, search).Run(importance);
}

}  // namespace llmc::kernels
