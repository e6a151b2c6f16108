// Part of kernels/compress: the tensors of a compressed module, checked, for the CPU's
// DecompressWeight and the device's.
#ifndef LLMC_KERNELS_COMPRESSED_SOURCE_H_
#define LLMC_KERNELS_COMPRESSED_SOURCE_H_

#include <vector>

#include "kernels/compress.h"
#include "kernels/grid_layout.h"
#include "kernels/row_kernels.h"

namespace llmc::kernels {

// Pointers into the tensors and how to read them.
struct CompressedSource {
  GridLayout layout;
  NumberRule rule;
  const TensorView* weight = nullptr;
  int packed_bits = 8;
  bool padded = false;  // 32-bit words with floor(32 / bits) values each.
  int64_t row_bytes = 0;
  const TensorView* group_of_column = nullptr;  // I32 [C] or null.
  std::vector<float> scale;                     // Effective, [scale_rows, scale_columns].
  std::vector<float> zero;                      // Empty when symmetric.
};

// Errors as DecompressWeight.
absl::StatusOr<CompressedSource> ReadSource(const TensorLookup& lookup,
                                            const QuantizationArgs& args, Format format,
                                            const Shape& shape, const DecompressOptions& options);

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_COMPRESSED_SOURCE_H_
