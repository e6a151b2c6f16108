#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "kernels/cholesky.h"
#include "kernels/damping.h"
#include "kernels/gemm.h"
#include "llmc/parallel.h"

namespace llmc::kernels {
namespace {

constexpr int64_t kTile = 256;

// A square matrix cut into tiles of kTile rows and columns.
template <typename T>
struct Tiled {
  Matrix<T> whole;

  int64_t num_tiles() const { return (whole.rows + kTile - 1) / kTile; }
  int64_t size(int64_t i) const { return std::min(kTile, whole.rows - i * kTile); }
  Matrix<T> tile(int64_t i, int64_t j) const {
    return whole.block(i * kTile, j * kTile, size(i), size(j));
  }
  // Tiles [j, k) of tile row i.
  Matrix<T> row_part(int64_t i, int64_t j, int64_t k) const {
    return whole.block(i * kTile, j * kTile, size(i), std::min(k * kTile, whole.cols) - j * kTile);
  }
};

// Tile (i, j), i >= j, of the trailing triangle that begins at tile `first`,
// number u in an order with the longest rows last.
std::pair<int64_t, int64_t> TrailingTile(int64_t u, int64_t first) {
  int64_t i = 0;
  while (u > i) u -= ++i;
  return {first + i, first + u};
}

// Replaces the lower triangle of a small or halved matrix by its inverse; what lies
// above the diagonal is 0.
template <typename T>
void InvertTriangle(Matrix<T> l) {
  constexpr int64_t kSmall = 32;
  if (l.rows > kSmall) {
    const int64_t h = l.rows / 2;
    const int64_t rest = l.rows - h;
    const Matrix<T> first = l.block(0, 0, h, h);
    const Matrix<T> second = l.block(h, h, rest, rest);
    const Matrix<T> below = l.block(h, 0, rest, h);
    InvertTriangle(first);
    InvertTriangle(second);
    std::vector<T> storage(rest * h);
    const Matrix<T> product{storage.data(), rest, h, h};
    Gemm(second, below, product);
    Gemm(product, first, below, {.alpha = -1});
    return;
  }
  for (int64_t j = l.rows - 1; j >= 0; --j) {
    l.at(j, j) = 1 / l.at(j, j);
    for (int64_t i = l.rows - 1; i > j; --i) {
      T sum = 0;
      for (int64_t k = j + 1; k <= i; ++k) sum += l.at(i, k) * l.at(k, j);
      l.at(i, j) = -sum * l.at(j, j);
    }
  }
}

template <typename T>
bool FactorDiagonalTile(Matrix<T> tile) {
  if (!CholeskyLower(tile)) return false;
  // The updates of the tiles before have left numbers above the diagonal.
  for (int64_t r = 0; r < tile.rows; ++r) {
    std::fill(tile.row(r) + r + 1, tile.row(r) + tile.cols, T{0});
  }
  InvertTriangle(tile);
  return true;
}

template <typename T>
void CopyMatrix(Matrix<T> from, Matrix<T> to) {
  for (int64_t r = 0; r < from.rows; ++r) std::copy_n(from.row(r), from.cols, to.row(r));
}

// Right-looking: factor a diagonal tile, solve the panel below it, update the rest.
// Diagonal tiles become the inverse of L's, so that solving is a product, several
// times faster here than strsm. `column` has kTile columns.
template <typename T>
bool FactorLower(const Tiled<T>& a, Matrix<T> column) {
  for (int64_t k = 0; k < a.num_tiles(); ++k) {
    if (!FactorDiagonalTile(a.tile(k, k))) return false;
    const int64_t rest = a.num_tiles() - k - 1;
    const auto panel = [&](int64_t i) {
      return column.block((i - k - 1) * kTile, 0, a.size(i), a.size(k));
    };
    ParallelFor(rest, [&](int64_t u) {
      const int64_t i = k + 1 + u;
      Gemm(a.tile(i, k), a.tile(k, k), panel(i), {.transposed = Transposed::kSecond});
      CopyMatrix(panel(i), a.tile(i, k));
    });
    ParallelFor(rest * (rest + 1) / 2, [&](int64_t u) {
      const auto [i, j] = TrailingTile(u, k + 1);
      Gemm(panel(i), panel(j), a.tile(i, j),
           {.transposed = Transposed::kSecond, .alpha = -1, .beta = 1});
    });
  }
  return true;
}

// Replaces L, as FactorLower leaves it, by L^-1, tile columns from the right: with
// the inverse M of the columns beyond j done, M_ij = -(sum_k M_ik L_kj) L_jj^-1.
template <typename T>
void InvertLower(const Tiled<T>& l, Matrix<T> column) {
  for (int64_t j = l.num_tiles() - 2; j >= 0; --j) {
    const int64_t below = l.num_tiles() - 1 - j;
    ParallelFor(below, [&](int64_t u) {
      const Matrix<T> from = l.tile(j + 1 + u, j);
      CopyMatrix(from, column.block(u * kTile, 0, from.rows, from.cols));
    });
    ParallelFor(below, [&](int64_t u) {
      const int64_t i = l.num_tiles() - 1 - u;  // The longest sum first.
      const Matrix<T> inverse_row = l.row_part(i, j + 1, i + 1);
      std::vector<T> storage(l.size(i) * kTile);
      const Matrix<T> product{storage.data(), l.size(i), kTile, kTile};
      Gemm(inverse_row, column.block(0, 0, inverse_row.cols, kTile), product);
      Gemm(product, l.tile(j, j), l.tile(i, j), {.alpha = -1});
    });
  }
}

// out = lower triangle of J (H + lambda I) J, and 0 above it, with H in `order`.
template <typename T>
void FillReversed(const TensorView& hessian, std::span<const int32_t> order,
                  const Diagonal& diagonal, double lambda, Matrix<T> out) {
  const int64_t n = out.rows;
  const auto source = [&](int64_t reversed) {
    const int64_t position = n - 1 - reversed;
    return order.empty() ? position : static_cast<int64_t>(order[position]);
  };
  ParallelFor((n + 15) / 16, [&](int64_t unit) {
    for (int64_t r = unit * 16; r < std::min(n, unit * 16 + 16); ++r) {
      const float* const from = hessian.as<float>() + source(r) * n;
      for (int64_t c = 0; c < r; ++c) out.at(r, c) = from[source(c)];
      const double entry = from[source(r)];
      out.at(r, r) = static_cast<T>((entry == 0 ? diagonal.live_mean : entry) + lambda);
      std::fill(out.row(r) + r + 1, out.row(r) + n, T{0});
    }
  });
}

// U = J M J: the elements of the whole matrix in reverse order.
void ReverseElements(float* elements, int64_t count) {
  constexpr int64_t kUnit = 1 << 16;
  const int64_t half = count / 2;
  ParallelFor((half + kUnit - 1) / kUnit, [&](int64_t unit) {
    for (int64_t i = unit * kUnit; i < std::min(half, (unit + 1) * kUnit); ++i) {
      std::swap(elements[i], elements[count - 1 - i]);
    }
  });
}

HostTensor ReversedToFloat(const HostTensor& inverse) {
  HostTensor upper(DType::kF32, inverse.shape());
  const int64_t n = inverse.dim(0);
  ParallelFor(n, [&](int64_t r) {
    const double* const from = inverse.as<double>() + (n - 1 - r) * n;
    float* const to = upper.as<float>() + r * n;
    for (int64_t c = 0; c < n; ++c) to[c] = static_cast<float>(from[n - 1 - c]);
  });
  return upper;
}

// The factor, or nothing when the matrix is not positive definite in type T.
template <typename T>
std::optional<HostTensor> TryFactor(const TensorView& hessian, std::span<const int32_t> order,
                                    const Diagonal& diagonal, double lambda) {
  constexpr DType kDType = std::is_same_v<T, float> ? DType::kF32 : DType::kF64;
  const int64_t n = hessian.dim(0);
  HostTensor work(kDType, {n, n});
  const Tiled<T> tiled{{work.as<T>(), n, n, n}};
  FillReversed(hessian, order, diagonal, lambda, tiled.whole);
  HostTensor storage(kDType, {n, kTile});
  const Matrix<T> column{storage.as<T>(), n, kTile, kTile};
  if (!FactorLower(tiled, column)) return std::nullopt;
  InvertLower(tiled, column);
  if constexpr (std::is_same_v<T, double>) return ReversedToFloat(work);
  ReverseElements(work.as<float>(), n * n);
  return work;
}

bool HasUsableDiagonal(const HostTensor& upper) {
  const int64_t n = upper.dim(0);
  for (int64_t i = 0; i < n; ++i) {
    const float value = upper.as<float>()[i * (n + 1)];
    if (!(value > 0) || !std::isfinite(value)) return false;
  }
  return true;
}

absl::Status CheckArguments(const TensorView& hessian, std::span<const int32_t> order,
                            const InverseFactorOptions& options) {
  const Shape& shape = hessian.shape;
  if (hessian.dtype != DType::kF32 || shape.size() != 2 || shape[0] != shape[1] || shape[0] == 0) {
    return absl::InvalidArgumentError(absl::StrCat("Hessian: ", SafetensorsName(hessian.dtype), " ",
                                                   ShapeString(shape),
                                                   ", expected F32 and square"));
  }
  return CheckFactoring(shape[0], order, options);
}

std::vector<float> DiagonalOf(const TensorView& hessian) {
  const int64_t n = hessian.dim(0);
  std::vector<float> diagonal(n);
  for (int64_t i = 0; i < n; ++i) diagonal[i] = hessian.as<float>()[i * (n + 1)];
  return diagonal;
}

}  // namespace

std::vector<int32_t> OrderByDiagonal(std::span<const float> diagonal) {
  std::vector<int32_t> order(diagonal.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return diagonal[a] > diagonal[b]; });
  return order;
}

std::vector<int32_t> OrderByDiagonal(const HostTensor& hessian) {
  return OrderByDiagonal(DiagonalOf(hessian.view()));
}

absl::StatusOr<InverseFactor> FactorInverseHessian(const HostTensor& hessian,
                                                   std::span<const int32_t> order,
                                                   const InverseFactorOptions& options) {
  return FactorInverseHessian(hessian.view(), order, options);
}

absl::StatusOr<InverseFactor> FactorInverseHessian(const TensorView& hessian,
                                                   std::span<const int32_t> order,
                                                   const InverseFactorOptions& options) {
  LLMC_RETURN_IF_ERROR(CheckArguments(hessian, order, options));
  LLMC_ASSIGN_OR_RETURN(const Diagonal diagonal, ExamineDiagonal(DiagonalOf(hessian)));
  InverseFactor factor;
  const auto try_factor = [&](bool use_fp64, double lambda) -> absl::StatusOr<bool> {
    std::optional<HostTensor> upper = use_fp64 ? TryFactor<double>(hessian, order, diagonal, lambda)
                                               : TryFactor<float>(hessian, order, diagonal, lambda);
    if (!upper || !HasUsableDiagonal(*upper)) return false;
    factor.upper = *std::move(upper);
    return true;
  };
  LLMC_RETURN_IF_ERROR(FactorWithDamping(diagonal, options, try_factor, factor));
  return factor;
}

}  // namespace llmc::kernels
