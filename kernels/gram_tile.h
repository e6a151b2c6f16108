// Part of kernels/hessian: one tile of X^T X from packed panels, on one thread.
//
// A panel holds kPanel features of consecutive steps, u32 [num_steps, kPanel]; a
// lane is one float (one token a step) or two BF16 numbers (tokens 2 s and 2 s + 1,
// the earlier one in the low half).
#ifndef LLMC_KERNELS_GRAM_TILE_H_
#define LLMC_KERNELS_GRAM_TILE_H_

#include <cstdint>

namespace llmc::kernels {

inline constexpr int64_t kPanel = 16;

struct GramTile {
  const uint32_t* row_panels = nullptr;  // ceil(rows / kPanel) panels, consecutive.
  const uint32_t* col_panels = nullptr;  // ceil(cols / kPanel) panels, consecutive.
  int64_t num_steps = 0;
  int64_t rows = 0;
  int64_t cols = 0;
  bool is_diagonal = false;  // Below the diagonal may be left out.
  float* out = nullptr;      // f32 [rows, cols], is added to; 64-byte aligned.
};

// Whether this CPU has the instructions.
bool HasGramTileFma();
bool HasGramTileBf16Dot();

// out += rows^T cols, steps in rising order.
void AddGramTileFma(const GramTile& tile);
void AddGramTileBf16Dot(const GramTile& tile);

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_GRAM_TILE_H_
