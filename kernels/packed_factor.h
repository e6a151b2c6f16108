// The factor U of kernels/cholesky, laid out for a walk over its columns in blocks.
#ifndef LLMC_KERNELS_PACKED_FACTOR_H_
#define LLMC_KERNELS_PACKED_FACTOR_H_

#include <cstdint>
#include <vector>

#include "llmc/tensor.h"

namespace llmc::kernels {

// Columns of U that one pass over a block's errors updates.
inline constexpr int64_t kUpdateColumns = 6;

// The upper triangle of U, copied so that each part is read in memory order.
class PackedFactor {
 public:
  // `upper` is f32 [n, n].
  PackedFactor(const float* upper, int64_t n, int64_t block_size);

  int64_t n() const { return n_; }
  int64_t num_blocks() const { return static_cast<int64_t>(blocks_.size()); }
  int64_t begin(int64_t block) const { return block * block_size_; }
  int64_t width(int64_t block) const { return blocks_[block].width; }

  // [width, width]: rows and columns of the block.
  const float* diagonal(int64_t block) const { return packed_.as<float>() + blocks_[block].offset; }

  // [width, kUpdateColumns]: rows of the block, columns from
  // begin + width + panel * kUpdateColumns; 0 beyond n.
  const float* panel(int64_t block, int64_t panel) const {
    const int64_t w = width(block);
    return diagonal(block) + w * (w + panel * kUpdateColumns);
  }

 private:
  struct Block {
    int64_t width = 0;
    int64_t num_panels = 0;
    int64_t offset = 0;
  };
  void PackBlock(int64_t block, const float* upper);

  int64_t n_;
  int64_t block_size_;
  std::vector<Block> blocks_;
  HostTensor packed_;
};

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_PACKED_FACTOR_H_
