// Part of kernels/gptq_solve: the loop over columns for one unit of rows, on one
// thread. Rows are vector lanes, so arrays are transposed: [column, lane].
#ifndef LLMC_KERNELS_GPTQ_ROWS_H_
#define LLMC_KERNELS_GPTQ_ROWS_H_

#include <cstdint>
#include <vector>

#include "kernels/round_to_grid.h"
#include "llmc/dtype.h"
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

struct GptqRows {
  int64_t lanes = 0;  // 16, 32 or 64; rows beyond the weight's are 0 with scale 1.
  const PackedFactor* factor = nullptr;

  float* weight = nullptr;  // In/out, f32 [n, lanes], columns in visiting order.
  float* error = nullptr;   // Scratch, f32 [block_size, lanes].

  const float* scale = nullptr;       // f32 [num_groups, lanes].
  const float* zero_point = nullptr;  // f32 [num_groups, lanes].
  const int32_t* group = nullptr;     // i32 [n], in visiting order.
  Element element = Element::kInt;
  float q_min = 0;
  float q_max = 0;
  DType scale_dtype = DType::kF32;

  double* loss = nullptr;  // Out, f64 [lanes].
};

// The same bits from each.
void SolveGptqRowsAvx512(const GptqRows& rows);
void SolveGptqRowsAvx2(const GptqRows& rows);
void SolveGptqRowsGeneric(const GptqRows& rows);

bool HasGptqRowsAvx512();
bool HasGptqRowsAvx2();

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_GPTQ_ROWS_H_
