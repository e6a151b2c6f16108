#include <algorithm>
#include <cstring>

#include "kernels/packed_factor.h"
#include "llmc/parallel.h"

namespace llmc::kernels {

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

}  // namespace llmc::kernels
