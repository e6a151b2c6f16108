// Dense bit streams: n values of b bits each, value j at bits [j*b, (j+1)*b) of
// a row of little-endian 32-bit words, lowest bit first; values may straddle
// words and unused high bits of the last word are 0. For 4 bits this is also
// the layout of FP4 pairs (the lower nibble first).
#ifndef LLMC_KERNELS_BIT_PACKING_H_
#define LLMC_KERNELS_BIT_PACKING_H_

#include <cstdint>

namespace llmc::kernels {

// Words that n values of num_bits bits take.
inline int64_t PackedWords(int64_t n, int num_bits) { return (n * num_bits + 31) / 32; }

// The same in the layout before compressed-tensors 0.18: floor(32 / num_bits)
// values in a word, its remaining high bits 0. Equal for 1, 2, 4 and 8 bits.
inline int64_t PaddedWords(int64_t n, int num_bits) {
  const int64_t per_word = 32 / num_bits;
  return (n + per_word - 1) / per_word;
}

// Packs the low num_bits (1..8) bits of n codes, whose other bits are 0, into
// `packed`, of which exactly ceil(n * num_bits / 8) bytes are written. n is a
// multiple of 8 except for the last span of a row.
void PackBits(const uint8_t* codes, int64_t n, int num_bits, uint8_t* packed);

// The reverse: codes [first, first + n) of a packed row of num_bytes bytes;
// first is a multiple of 8. Reads nothing beyond num_bytes.
void UnpackBits(const uint8_t* packed, int64_t num_bytes, int64_t first, int64_t n, int num_bits,
                uint8_t* codes);

// Codes [first, first + n) of a row of 32-bit words in the padded layout.
void UnpackPadded(const uint32_t* words, int64_t first, int64_t n, int num_bits, uint8_t* codes);

}  // namespace llmc::kernels

#endif  // LLMC_KERNELS_BIT_PACKING_H_
