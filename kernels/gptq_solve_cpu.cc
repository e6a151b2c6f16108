#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/gemm.h"
#include "kernels/gptq_rows.h"
#include "kernels/gptq_solve.h"
#include "kernels/row_lanes.h"
#include "llmc/parallel.h"

namespace llmc::kernels {
namespace {

// Wider blocks are no faster: their errors leave the first-level cache.
constexpr int64_t kWidestBlock = 64;

using SolveFunction = void (*)(const GptqRows&);

SolveFunction BestSolve() {
  if (HasColumnWalkAvx512()) return SolveGptqRowsAvx512;
  return HasColumnWalkAvx2() ? SolveGptqRowsAvx2 : SolveGptqRowsGeneric;
}

int64_t GroupOf(const SolveGrid& grid, int64_t column) {
  return grid.group_index ? grid.group_index[column] : column / grid.group_size;
}

absl::Status CheckSizes(const GptqProblem& p, const GptqSolveOptions& options) {
  const SolveGrid& g = p.grid;
  const bool sizes_fit = p.rows > 0 && p.first_row >= 0 && p.in_features > 0 && g.num_groups > 0 &&
                         g.rows_per_scale > 0 && (g.group_index || g.group_size > 0);
  if (!sizes_fit || !p.weight || !p.inverse_factor || !g.scale) {
    return absl::InvalidArgumentError("GptqSolve: a size is not positive or an array is missing");
  }
  if (options.block_size < 1 || options.block_size > 1024) {
    return absl::InvalidArgumentError(
        absl::StrCat("GptqSolve: block_size ", options.block_size, ", expected 1..1024"));
  }
  const bool has_grid = g.type == NumberType::kInt ? g.num_bits >= 1 && g.num_bits <= 8
                                                   : g.num_bits == 4 || g.num_bits == 8;
  if (!has_grid) {
    return absl::InvalidArgumentError(absl::StrCat(
        "GptqSolve: num_bits ", g.num_bits, ", expected 1..8 for integers, 4 or 8 for floats"));
  }
  const bool rounds =
      g.scale_dtype == DType::kF32 || g.scale_dtype == DType::kBF16 || g.scale_dtype == DType::kF16;
  return rounds ? absl::OkStatus()
                : absl::InvalidArgumentError(absl::StrCat("GptqSolve: scale dtype ",
                                                          SafetensorsName(g.scale_dtype),
                                                          ", expected F32, BF16 or F16"));
}

absl::Status CheckColumns(const GptqProblem& p) {
  std::vector<bool> seen(p.in_features, false);
  for (int64_t c = 0; c < p.in_features; ++c) {
    const int64_t group = GroupOf(p.grid, c);
    if (group < 0 || group >= p.grid.num_groups) {
      return absl::InvalidArgumentError(absl::StrCat("GptqSolve: group ", group, " of column ", c,
                                                     ", expected 0..", p.grid.num_groups - 1));
    }
    const int64_t column = p.order ? p.order[c] : c;
    if (column < 0 || column >= p.in_features || seen[column]) {
      return absl::InvalidArgumentError("GptqSolve: order, expected a permutation of the columns");
    }
    seen[column] = true;
    const float diagonal = p.inverse_factor[c * (p.in_features + 1)];
    if (!(diagonal > 0) || !std::isfinite(diagonal)) {
      return absl::FailedPreconditionError(absl::StrCat(
          "GptqSolve: diagonal entry ", c, " of U is ", diagonal, ", expected > 0 and finite"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckScales(const GptqProblem& p) {
  const int64_t first = p.first_row / p.grid.rows_per_scale;
  const int64_t last = (p.first_row + p.rows - 1) / p.grid.rows_per_scale;
  for (int64_t i = first * p.grid.num_groups; i < (last + 1) * p.grid.num_groups; ++i) {
    const float zero_point = p.grid.zero_point ? p.grid.zero_point[i] : 0;
    if (p.grid.scale[i] != 0 && std::isfinite(p.grid.scale[i]) && std::isfinite(zero_point)) {
      continue;
    }
    return absl::FailedPreconditionError(
        absl::StrCat("GptqSolve: scale row ", i / p.grid.num_groups, ", group ",
                     i % p.grid.num_groups, ": scale ", p.grid.scale[i], ", zero point ",
                     zero_point, ", expected finite and a scale other than 0"));
  }
  return absl::OkStatus();
}

// What all units share.
struct SharedParts {
  SharedParts(const GptqProblem& problem, const GptqSolveOptions& options)
      : block_size(std::min(options.block_size, kWidestBlock)),
        keep_zeros(options.keep_zeros),
        factor(problem.inverse_factor, problem.in_features, block_size),
        position(problem.in_features),
        group(problem.in_features) {
    for (int64_t p = 0; p < problem.in_features; ++p) {
      const int64_t column = problem.order ? problem.order[p] : p;
      position[column] = static_cast<int32_t>(p);
      group[p] = static_cast<int32_t>(GroupOf(problem.grid, column));
    }
  }

  const int64_t block_size;
  const bool keep_zeros;
  const PackedFactor factor;
  std::vector<int32_t> position;  // Of each original column.
  std::vector<int32_t> group;     // In visiting order.
};

// Moves rows between W and the lanes of a unit, and solves them.
class Unit {
 public:
  Unit(const GptqProblem& problem, const SharedParts& shared, int64_t first_row, int64_t lanes)
      : problem_(problem),
        shared_(shared),
        lanes_({problem.weight, problem.rows, problem.in_features, shared.position.data()},
               first_row, lanes),
        scale_(DType::kF32, {problem.grid.num_groups, lanes}),
        zero_point_(DType::kF32, {problem.grid.num_groups, lanes}) {}

  void Solve() {
    LoadScales();
    lanes_.Load();
    if (shared_.keep_zeros) zeros_ = lanes_.Zeros();
    SolveLanes();
    lanes_.Store(change_);
  }

  double loss(int64_t lane) const { return loss_[lane]; }
  double change(int64_t lane) const { return change_[lane]; }
  int64_t count() const { return lanes_.count(); }

 private:
  void LoadScales() {
    const SolveGrid& grid = problem_.grid;
    const int64_t lanes = lanes_.lanes();
    for (int64_t l = 0; l < lanes; ++l) {
      const int64_t row = (problem_.first_row + lanes_.first_row() + l) / grid.rows_per_scale;
      for (int64_t g = 0; g < grid.num_groups; ++g) {
        const int64_t from = row * grid.num_groups + g;
        const bool is_row = l < lanes_.count();
        scale_.as<float>()[g * lanes + l] = is_row ? grid.scale[from] : 1;
        zero_point_.as<float>()[g * lanes + l] =
            is_row && grid.zero_point ? grid.zero_point[from] : 0;
      }
    }
  }

  void SolveLanes() {
    HostTensor error(DType::kF32, {shared_.block_size, lanes_.lanes()});
    QuantizationArgs args;
    args.type = problem_.grid.type;
    args.num_bits = problem_.grid.num_bits;
    GptqRows rows;
    rows.walk = {lanes_.lanes(), &shared_.factor, lanes_.weight(), error.as<float>(), loss_};
    rows.scale = scale_.as<float>();
    rows.zero_point = zero_point_.as<float>();
    rows.group = shared_.group.data();
    rows.element = ElementOf(args);
    rows.q_min = static_cast<float>(RangeOf(args).min);
    rows.q_max = static_cast<float>(RangeOf(args).max);
    rows.scale_dtype = problem_.grid.scale_dtype;
    rows.zeros = zeros_.empty() ? nullptr : zeros_.data();
    static const SolveFunction solve = BestSolve();
    solve(rows);
  }

  const GptqProblem& problem_;
  const SharedParts& shared_;
  RowLanes lanes_;  // Columns in visiting order.
  std::vector<uint64_t> zeros_;
  HostTensor scale_;       // F32 [num_groups, lanes].
  HostTensor zero_point_;  // F32 [num_groups, lanes].
  double loss_[kMaxLanes] = {};
  double change_[kMaxLanes] = {};
};

}  // namespace

absl::StatusOr<GptqResult> GptqSolve(const GptqProblem& problem, const GptqSolveOptions& options) {
  LLMC_RETURN_IF_ERROR(CheckSizes(problem, options));
  LLMC_RETURN_IF_ERROR(CheckColumns(problem));
  LLMC_RETURN_IF_ERROR(CheckScales(problem));
  const SharedParts shared(problem, options);
  const int64_t lanes = LanesFor(problem.rows);
  std::vector<double> loss(problem.rows);
  std::vector<double> change(problem.rows);
  ParallelFor((problem.rows + lanes - 1) / lanes, [&](int64_t u) {
    Unit unit(problem, shared, u * lanes, lanes);
    unit.Solve();
    for (int64_t l = 0; l < unit.count(); ++l) {
      loss[u * lanes + l] = unit.loss(l);
      change[u * lanes + l] = unit.change(l);
    }
  });
  if (problem.row_loss) std::copy(loss.begin(), loss.end(), problem.row_loss);
  if (problem.row_change) std::copy(change.begin(), change.end(), problem.row_change);
  GptqResult result;
  for (int64_t r = 0; r < problem.rows; ++r) {
    result.loss += loss[r];
    result.change += change[r];
  }
  return result;
}

double OutputError(const float* dense, const float* quantized, int64_t rows, int64_t in_features,
                   const float* hessian) {
  constexpr int64_t kUnitRows = 64;
  const int64_t num_units = (rows + kUnitRows - 1) / kUnitRows;
  std::vector<double> unit_error(num_units, 0.0);
  ParallelFor(num_units, [&](int64_t u) {
    const int64_t first = u * kUnitRows * in_features;
    const int64_t count = std::min(kUnitRows, rows - u * kUnitRows);
    HostTensor error(DType::kF32, {count, in_features});
    HostTensor product(DType::kF32, {count, in_features});
    const Matrix<float> e{error.as<float>(), count, in_features, in_features};
    for (int64_t i = 0; i < count * in_features; ++i) {
      e.data[i] = dense[first + i] - (quantized ? quantized[first + i] : 0);
    }
    Gemm(e, Matrix<const float>{hessian, in_features, in_features, in_features},
         Matrix<float>{product.as<float>(), count, in_features, in_features});
    for (int64_t i = 0; i < count * in_features; ++i) {
      unit_error[u] += static_cast<double>(e.data[i]) * product.as<float>()[i];
    }
  });
  double sum = 0;
  for (const double error : unit_error) sum += error;
  return sum;
}

}  // namespace llmc::kernels
