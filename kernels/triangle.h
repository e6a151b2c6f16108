// The upper triangle of a symmetric matrix as square tiles, each contiguous.
//
// Tile (i, j), i <= j, holds rows [i * kTile, ...) and columns [j * kTile, ...);
// tiles at the right and lower edge are smaller. Order in memory: tile rows, and
// in a tile row the tiles from the diagonal rightwards. What a
// diagonal tile holds below its diagonal has no meaning. constexpr, so that device code
// may call it.
#ifndef LLMC_KERNELS_TRIANGLE_H_
#define LLMC_KERNELS_TRIANGLE_H_

#include <cstdint>

namespace llmc::kernels {

struct TriangleTile {
  int64_t row = 0;     // First row of the matrix.
  int64_t col = 0;     // First column.
  int64_t rows = 0;    // 1..kTile.
  int64_t cols = 0;    // 1..kTile; elements between rows of the tile too.
  int64_t offset = 0;  // First element in memory; a multiple of 16.
};

class Triangle {
 public:
  static constexpr int64_t kTile = 256;

  explicit constexpr Triangle(int64_t n) : n_(n), tiles_per_side_((n + kTile - 1) / kTile) {}

  constexpr int64_t n() const { return n_; }
  constexpr int64_t num_tiles() const { return tiles_per_side_ * (tiles_per_side_ + 1) / 2; }

  // Elements of the whole triangle, about n * (n + kTile) / 2.
  constexpr int64_t num_elements() const {
    const TriangleTile last = tile(num_tiles() - 1);
    return n_ == 0 ? 0 : last.offset + last.rows * last.cols;
  }

  // The t-th tile in memory order, 0 <= t < num_tiles().
  constexpr TriangleTile tile(int64_t t) const {
    int64_t i = 0;
    while (t >= tiles_per_side_ - i) t -= tiles_per_side_ - i++;
    return At(i, i + t);
  }

  // Where element (row, col), row <= col, lies.
  constexpr int64_t offset(int64_t row, int64_t col) const {
    const TriangleTile t = At(row / kTile, col / kTile);
    return t.offset + (row - t.row) * t.cols + (col - t.col);
  }

 private:
  constexpr TriangleTile At(int64_t i, int64_t j) const {
    TriangleTile t;
    t.row = i * kTile;
    t.col = j * kTile;
    t.rows = n_ - t.row < kTile ? n_ - t.row : kTile;
    t.cols = n_ - t.col < kTile ? n_ - t.col : kTile;
    t.offset = kTile * (i * n_ - kTile * (i * (i - 1) / 2)) + t.rows * (t.col - t.row);
    return t;
  }

  int64_t n_;
  int64_t tiles_per_side_;
};

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_TRIANGLE_H_
