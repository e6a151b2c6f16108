#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/gemm.h"
#include "kernels/gptq_rows.h"
#include "kernels/gptq_solve.h"
#include "llmc/parallel.h"

namespace llmc::kernels {
namespace {

constexpr int64_t kMaxLanes = 64;

// Rows and columns that are transposed together: one cache line of each.
constexpr int64_t kSquare = 16;

// Wider blocks are no faster: their errors leave the first-level cache.
constexpr int64_t kWidestBlock = 64;

using SolveFunction = void (*)(const GptqRows&);

SolveFunction BestSolve() {
  if (HasGptqRowsAvx512()) return SolveGptqRowsAvx512;
  return HasGptqRowsAvx2() ? SolveGptqRowsAvx2 : SolveGptqRowsGeneric;
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
  explicit SharedParts(const GptqProblem& problem, int64_t block_size)
      : factor(problem.inverse_factor, problem.in_features, block_size),
        block_size(block_size),
        position(problem.in_features),
        group(problem.in_features) {
    for (int64_t p = 0; p < problem.in_features; ++p) {
      const int64_t column = problem.order ? problem.order[p] : p;
      position[column] = static_cast<int32_t>(p);
      group[p] = static_cast<int32_t>(GroupOf(problem.grid, column));
    }
  }

  const PackedFactor factor;
  const int64_t block_size;
  std::vector<int32_t> position;  // Of each original column.
  std::vector<int32_t> group;     // In visiting order.
};

// Moves rows between W and the lanes of a unit, and solves them.
class Unit {
 public:
  Unit(const GptqProblem& problem, const SharedParts& shared, int64_t first_row, int64_t lanes)
      : problem_(problem),
        shared_(shared),
        first_(first_row),
        count_(std::min(lanes, problem.rows - first_row)),
        lanes_(lanes),
        weight_(DType::kF32, {problem.in_features, lanes}),
        scale_(DType::kF32, {problem.grid.num_groups, lanes}),
        zero_point_(DType::kF32, {problem.grid.num_groups, lanes}) {}

  void Solve() {
    LoadScales();
    ForEachSquare([this](const Square& square) { LoadSquare(square); });
    SolveLanes();
    ForEachSquare([this](const Square& square) { StoreSquare(square); });
  }

  double loss(int64_t lane) const { return loss_[lane]; }
  double change(int64_t lane) const { return change_[lane]; }
  int64_t count() const { return count_; }

 private:
  // Columns [column, column + columns) of rows [lane, lane + rows) of the unit.
  struct Square {
    int64_t lane = 0;
    int64_t rows = 0;
    int64_t column = 0;
    int64_t columns = 0;
  };

  template <typename Visit>
  void ForEachSquare(const Visit& visit) {
    for (int64_t column = 0; column < problem_.in_features; column += kSquare) {
      for (int64_t lane = 0; lane < lanes_; lane += kSquare) {
        visit({lane, std::clamp<int64_t>(count_ - lane, 0, kSquare), column,
               std::min(kSquare, problem_.in_features - column)});
      }
    }
  }

  float* Row(int64_t lane) const {
    return problem_.weight + (first_ + lane) * problem_.in_features;
  }
  // The lanes of a column.
  float* Lanes(int64_t column) { return weight_.as<float>() + shared_.position[column] * lanes_; }

  void LoadSquare(const Square& square) {
    float rows[kSquare][kSquare] = {};
    for (int64_t r = 0; r < square.rows; ++r) {
      std::copy_n(Row(square.lane + r) + square.column, square.columns, rows[r]);
    }
    for (int64_t c = 0; c < square.columns; ++c) {
      float* const lanes = Lanes(square.column + c) + square.lane;
      for (int64_t l = 0; l < kSquare; ++l) lanes[l] = rows[l][c];
    }
  }

  void StoreSquare(const Square& square) {
    float columns[kSquare][kSquare];
    for (int64_t c = 0; c < square.columns; ++c) {
      std::copy_n(Lanes(square.column + c) + square.lane, kSquare, columns[c]);
    }
    for (int64_t r = 0; r < square.rows; ++r) {
      float* const row = Row(square.lane + r) + square.column;
      double change = change_[square.lane + r];
      for (int64_t c = 0; c < square.columns; ++c) {
        const double difference = static_cast<double>(row[c]) - columns[c][r];
        change += difference * difference;
        row[c] = columns[c][r];
      }
      change_[square.lane + r] = change;
    }
  }

  void LoadScales() {
    const SolveGrid& grid = problem_.grid;
    for (int64_t l = 0; l < lanes_; ++l) {
      const int64_t row = (problem_.first_row + first_ + l) / grid.rows_per_scale;
      for (int64_t g = 0; g < grid.num_groups; ++g) {
        const int64_t from = row * grid.num_groups + g;
        const bool is_row = l < count_;
        scale_.as<float>()[g * lanes_ + l] = is_row ? grid.scale[from] : 1;
        zero_point_.as<float>()[g * lanes_ + l] =
            is_row && grid.zero_point ? grid.zero_point[from] : 0;
      }
    }
  }

  void SolveLanes() {
    HostTensor error(DType::kF32, {shared_.block_size, lanes_});
    QuantizationArgs args;
    args.type = problem_.grid.type;
    args.num_bits = problem_.grid.num_bits;
    GptqRows rows;
    rows.lanes = lanes_;
    rows.factor = &shared_.factor;
    rows.weight = weight_.as<float>();
    rows.error = error.as<float>();
    rows.scale = scale_.as<float>();
    rows.zero_point = zero_point_.as<float>();
    rows.group = shared_.group.data();
    rows.element = ElementOf(args);
    rows.q_min = static_cast<float>(RangeOf(args).min);
    rows.q_max = static_cast<float>(RangeOf(args).max);
    rows.scale_dtype = problem_.grid.scale_dtype;
    rows.loss = loss_;
    static const SolveFunction solve = BestSolve();
    solve(rows);
  }

  const GptqProblem& problem_;
  const SharedParts& shared_;
  const int64_t first_;
  const int64_t count_;
  const int64_t lanes_;
  HostTensor weight_;      // F32 [in_features, lanes], columns in visiting order.
  HostTensor scale_;       // F32 [num_groups, lanes].
  HostTensor zero_point_;  // F32 [num_groups, lanes].
  double loss_[kMaxLanes] = {};
  double change_[kMaxLanes] = {};
};

// Lanes of a unit, chosen for speed alone: few rows are spread over all threads.
int64_t LanesFor(int64_t rows) {
  int64_t lanes = kMaxLanes;
  while (lanes > 16 && (rows + lanes - 1) / lanes < NumThreads()) lanes /= 2;
  return lanes;
}

}  // namespace

PackedFactor::PackedFactor(const float* upper, int64_t n, int64_t block_size)
    : n_(n), block_size_(block_size) {
  int64_t offset = 0;
  for (int64_t begin = 0; begin < n; begin += block_size) {
    Block block;
    block.width = std::min(block_size, n - begin);
    block.num_panels = (n - begin - block.width + kUpdateColumns - 1) / kUpdateColumns;
    block.offset = offset;
    offset += block.width * (block.width + block.num_panels * kUpdateColumns);
    blocks_.push_back(block);
  }
  packed_ = HostTensor(DType::kF32, {offset});
  ParallelFor(num_blocks(), [&](int64_t b) { PackBlock(b, upper); });
}

void PackedFactor::PackBlock(int64_t block, const float* upper) {
  const int64_t w = width(block);
  const int64_t first = begin(block);
  float* to = packed_.as<float>() + blocks_[block].offset;
  for (int64_t r = 0; r < w; ++r) to = std::copy_n(upper + (first + r) * n_ + first, w, to);
  // Some panels at a time, so that both sides touch few pages at once.
  constexpr int64_t kPanelsAtOnce = 16;
  for (int64_t first_panel = 0; first_panel < blocks_[block].num_panels;
       first_panel += kPanelsAtOnce) {
    const int64_t end = std::min(blocks_[block].num_panels, first_panel + kPanelsAtOnce);
    for (int64_t r = 0; r < w; ++r) {
      for (int64_t p = first_panel; p < end; ++p) {
        const int64_t column = first + w + p * kUpdateColumns;
        const int64_t present = std::min(kUpdateColumns, n_ - column);
        float* const lanes = to + (p * w + r) * kUpdateColumns;
        const float* const from = upper + (first + r) * n_ + column;
        if (present == kUpdateColumns) {
          std::memcpy(lanes, from, kUpdateColumns * sizeof(float));
        } else {
          std::fill(std::copy_n(from, present, lanes), lanes + kUpdateColumns, 0.0f);
        }
      }
    }
  }
}

absl::StatusOr<GptqResult> GptqSolve(const GptqProblem& problem, const GptqSolveOptions& options) {
  LLMC_RETURN_IF_ERROR(CheckSizes(problem, options));
  LLMC_RETURN_IF_ERROR(CheckColumns(problem));
  LLMC_RETURN_IF_ERROR(CheckScales(problem));
  const SharedParts shared(problem, std::min(options.block_size, kWidestBlock));
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
