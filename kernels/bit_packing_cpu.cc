#include <algorithm>
#include <cstring>

#include "kernels/bit_packing.h"
#include "kernels/cpu_clones.h"

namespace llmc::kernels {
namespace {

// Moves eight codes, one a byte, together: first within 16 bits, then 32, 64.
template <int kBits>
LLMC_INLINE uint64_t Gather8(uint64_t x) {
  constexpr uint64_t kOne = 0x00ff00ff00ff00ffu;
  constexpr uint64_t kTwo = 0x0000ffff0000ffffu;
  constexpr uint64_t kFour = 0x00000000ffffffffu;
  x = (x & kOne) | ((x & ~kOne) >> (8 - kBits));
  x = (x & kTwo) | ((x & ~kTwo) >> (16 - 2 * kBits));
  return (x & kFour) | ((x & ~kFour) >> (32 - 4 * kBits));
}

// The reverse of Gather8; bits of `x` from 8 * kBits on are ignored.
template <int kBits>
LLMC_INLINE uint64_t Spread8(uint64_t x) {
  constexpr uint64_t kField = (uint64_t{1} << kBits) - 1;
  constexpr uint64_t kFour = (uint64_t{1} << (4 * kBits)) - 1;
  constexpr uint64_t kTwo = ((uint64_t{1} << (2 * kBits)) - 1) * 0x0000000100000001u;
  constexpr uint64_t kOne = kField * 0x0001000100010001u;
  x = (x & kFour) | ((x & (kFour << (4 * kBits))) << (32 - 4 * kBits));
  x = (x & kTwo) | ((x & (kTwo << (2 * kBits))) << (16 - 2 * kBits));
  return (x & kOne) | ((x & (kOne << kBits)) << (8 - kBits));
}

// kBits bytes of eight codes; wider stores would touch what follows.
template <int kBits>
LLMC_INLINE void PackEights(const uint8_t* __restrict codes, int64_t eights,
                            uint8_t* __restrict packed) {
  for (int64_t i = 0; i < eights; ++i) {
    uint64_t x;
    std::memcpy(&x, codes + 8 * i, 8);
    x = Gather8<kBits>(x);
    std::memcpy(packed + kBits * i, &x, kBits);
  }
}

template <int kBits>
LLMC_INLINE void UnpackEights(const uint8_t* __restrict packed, int64_t eights,
                              uint8_t* __restrict codes) {
  for (int64_t i = 0; i < eights; ++i) {
    uint64_t x = 0;
    std::memcpy(&x, packed + kBits * i, kBits);
    x = Spread8<kBits>(x);
    std::memcpy(codes + 8 * i, &x, 8);
  }
}

// Four bits are a whole word for eight codes, which vectorises.
LLMC_CLONES void PackNibbles(const uint8_t* codes, int64_t eights, uint8_t* packed) {
  PackEights<4>(codes, eights, packed);
}

LLMC_CLONES void UnpackNibbles(const uint8_t* packed, int64_t eights, uint8_t* codes) {
  UnpackEights<4>(packed, eights, codes);
}

void PackWhole(const uint8_t* codes, int64_t eights, int num_bits, uint8_t* packed) {
  if (eights == 0) return;  // The pointers may be null.
  switch (num_bits) {
    case 1:
      return PackEights<1>(codes, eights, packed);
    case 2:
      return PackEights<2>(codes, eights, packed);
    case 3:
      return PackEights<3>(codes, eights, packed);
    case 4:
      return PackNibbles(codes, eights, packed);
    case 5:
      return PackEights<5>(codes, eights, packed);
    case 6:
      return PackEights<6>(codes, eights, packed);
    case 7:
      return PackEights<7>(codes, eights, packed);
    default:
      std::memcpy(packed, codes, 8 * eights);
  }
}

void UnpackWhole(const uint8_t* packed, int64_t eights, int num_bits, uint8_t* codes) {
  if (eights == 0) return;
  switch (num_bits) {
    case 1:
      return UnpackEights<1>(packed, eights, codes);
    case 2:
      return UnpackEights<2>(packed, eights, codes);
    case 3:
      return UnpackEights<3>(packed, eights, codes);
    case 4:
      return UnpackNibbles(packed, eights, codes);
    case 5:
      return UnpackEights<5>(packed, eights, codes);
    case 6:
      return UnpackEights<6>(packed, eights, codes);
    case 7:
      return UnpackEights<7>(packed, eights, codes);
    default:
      std::memcpy(codes, packed, 8 * eights);
  }
}

}  // namespace

void PackBits(const uint8_t* codes, int64_t n, int num_bits, uint8_t* packed) {
  const int64_t eights = n / 8;
  PackWhole(codes, eights, num_bits, packed);
  const int64_t rest = n - 8 * eights;
  if (rest == 0) return;
  uint8_t last_codes[8] = {};
  uint8_t last_packed[8] = {};
  std::memcpy(last_codes, codes + 8 * eights, rest);
  PackWhole(last_codes, 1, num_bits, last_packed);
  std::memcpy(packed + eights * num_bits, last_packed, (rest * num_bits + 7) / 8);
}

void UnpackBits(const uint8_t* packed, int64_t num_bytes, int64_t first, int64_t n, int num_bits,
                uint8_t* codes) {
  const int64_t begin = first / 8 * num_bits;
  const int64_t eights = n / 8;
  UnpackWhole(packed + begin, eights, num_bits, codes);
  const int64_t rest = n - 8 * eights;
  if (rest == 0) return;
  uint8_t last_packed[8] = {};
  uint8_t last_codes[8];
  const int64_t last = begin + eights * num_bits;
  std::memcpy(last_packed, packed + last, std::min<int64_t>(num_bits, num_bytes - last));
  UnpackWhole(last_packed, 1, num_bits, last_codes);
  std::memcpy(codes + 8 * eights, last_codes, rest);
}

void UnpackPadded(const uint32_t* words, int64_t first, int64_t n, int num_bits, uint8_t* codes) {
  const int64_t per_word = 32 / num_bits;
  const uint32_t field = (1u << num_bits) - 1;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t position = first + i;
    codes[i] = words[position / per_word] >> (position % per_word * num_bits) & field;
  }
}

}  // namespace llmc::kernels
