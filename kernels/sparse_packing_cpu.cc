#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "kernels/sparse_packing.h"
#include "llmc/parallel.h"

namespace llmc::kernels {
namespace {

// For every set of non-zero columns of a group of four (bit 0: the first), which two
// are kept; 0: more than two are not zero.
constexpr std::array<uint8_t, 16> kKept = {0b1100, 0b0101, 0b1010, 0b0011, 0b1100, 0b0101,
                                           0b0110, 0,      0b1100, 0b1001, 0b1010, 0,
                                           0b1100, 0,      0,      0};

// The bits of an element that are not its sign's, for floats; all bits of integers.
uint32_t ValueBits(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return 0x7fffffff;
    case DType::kBF16:
    case DType::kF16:
      return 0x7fff;
    case DType::kF8E4M3:
      return 0x7f;
    case DType::kI8:
      return 0xff;
    default:
      return 0;
  }
}

// Calls visit(T) with T unsigned of the size of an element.
template <typename Visit>
auto WithElement(DType dtype, const Visit& visit) {
  switch (ElementSize(dtype)) {
    case 1:
      return visit(uint8_t{});
    case 2:
      return visit(uint16_t{});
    default:
      return visit(uint32_t{});
  }
}

absl::Status CheckWeight(const TensorView& weight, SparseFormat format) {
  const bool known =
      ValueBits(weight.dtype) != 0 && weight.shape.size() == 2 && format != SparseFormat::kDense;
  if (!known) {
    return absl::InvalidArgumentError(absl::StrCat(
        "sparse layout of ", SafetensorsName(weight.dtype), " ", ShapeString(weight.shape),
        ", expected a matrix of F32, BF16, F16, F8_E4M3 "
        "or I8"));
  }
  if (format == SparseFormat::kSparse24Bitmask && weight.dim(1) % 4 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("sparse-24-bitmask: ", weight.dim(1), " columns, expected a multiple of 4"));
  }
  return absl::OkStatus();
}

template <typename T>
int64_t CountNonZeroOf(const T* elements, int64_t count, T value_bits) {
  int64_t non_zero = 0;
  for (int64_t i = 0; i < count; ++i) non_zero += (elements[i] & value_bits) != 0;
  return non_zero;
}

// Marks what is kept of one row; the first column of a group of four that has more
// than two, or -1.
template <typename T>
int64_t MarkRow(const T* row, int64_t columns, SparseFormat format, T value_bits, uint8_t* mask) {
  std::fill_n(mask, (columns + 7) / 8, uint8_t{0});
  for (int64_t c = 0; c < columns; ++c) {
    if ((row[c] & value_bits) != 0) mask[c / 8] |= static_cast<uint8_t>(1 << c % 8);
  }
  if (format == SparseFormat::kSparseBitmask) return -1;
  for (int64_t c = 0; c < columns; c += 4) {
    const int shift = static_cast<int>(c % 8);
    const uint8_t kept = kKept[mask[c / 8] >> shift & 15];
    if (kept == 0) return c;
    mask[c / 8] = static_cast<uint8_t>((mask[c / 8] & ~(15 << shift)) | kept << shift);
  }
  return -1;
}

template <typename T>
void GatherRow(const T* row, int64_t columns, const uint8_t* mask, T* kept) {
  for (int64_t c = 0; c < columns; ++c) {
    if ((mask[c / 8] >> c % 8 & 1) != 0) *kept++ = row[c];
  }
}

template <typename T>
void ScatterRow(const T* kept, int64_t columns, const uint8_t* mask, T* row) {
  for (int64_t c = 0; c < columns; ++c) {
    row[c] = (mask[c / 8] >> c % 8 & 1) != 0 ? *kept++ : T{0};
  }
}

int64_t CountBits(const uint8_t* mask, int64_t bytes) {
  int64_t count = 0;
  for (int64_t i = 0; i < bytes; ++i) count += std::popcount(mask[i]);
  return count;
}

// Elements kept before each row, and of all rows.
std::vector<int64_t> RowOffsets(const uint8_t* mask, int64_t rows, int64_t mask_columns) {
  std::vector<int64_t> offsets(rows + 1, 0);
  for (int64_t r = 0; r < rows; ++r) {
    offsets[r + 1] = offsets[r] + CountBits(mask + r * mask_columns, mask_columns);
  }
  return offsets;
}

HostTensor Integers(Shape shape, const int64_t* values) {
  HostTensor tensor(DType::kI64, std::move(shape));
  std::copy_n(values, tensor.num_elements(), tensor.as<int64_t>());
  return tensor;
}

template <typename T>
absl::StatusOr<std::vector<StoredTensor>> Pack(const TensorView& weight, SparseFormat format) {
  const int64_t rows = weight.dim(0);
  const int64_t columns = weight.dim(1);
  const int64_t mask_columns = (columns + 7) / 8;
  const T value_bits = static_cast<T>(ValueBits(weight.dtype));
  HostTensor mask(DType::kU8, {rows, mask_columns});
  std::vector<int64_t> crowded(rows);
  ParallelFor(rows, [&](int64_t r) {
    crowded[r] = MarkRow(weight.as<T>() + r * columns, columns, format, value_bits,
                         mask.as<uint8_t>() + r * mask_columns);
  });
  for (int64_t r = 0; r < rows; ++r) {
    if (crowded[r] < 0) continue;
    return absl::FailedPreconditionError(
        absl::StrCat("sparse-24-bitmask: row ", r, ", columns ", crowded[r], " to ", crowded[r] + 3,
                     ": more than two are not 0, expected a 2:4 pattern"));
  }
  const std::vector<int64_t> offsets = RowOffsets(mask.as<uint8_t>(), rows, mask_columns);
  const bool is_24 = format == SparseFormat::kSparse24Bitmask;
  HostTensor kept(weight.dtype, is_24 ? Shape{rows, columns / 2} : Shape{offsets[rows]});
  ParallelFor(rows, [&](int64_t r) {
    GatherRow(weight.as<T>() + r * columns, columns, mask.as<uint8_t>() + r * mask_columns,
              kept.as<T>() + offsets[r]);
  });
  std::vector<StoredTensor> stored;
  stored.push_back({"compressed", std::move(kept)});
  stored.push_back({"bitmask", std::move(mask)});
  if (!is_24) stored.push_back({"row_offsets", Integers({rows}, offsets.data())});
  stored.push_back({"shape", Integers(is_24 ? Shape{2, 1} : Shape{2}, weight.shape.data())});
  return stored;
}

absl::Status Damaged(absl::string_view suffix, absl::string_view expected) {
  return absl::DataLossError(absl::StrCat(suffix, ": expected ", expected));
}

// The tensors of one packed weight, checked against each other.
struct PackedWeight {
  const TensorView* kept = nullptr;
  const TensorView* mask = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;
  std::vector<int64_t> offsets;
};

absl::StatusOr<PackedWeight> FindParts(const TensorLookup& lookup, bool is_24) {
  PackedWeight packed;
  const TensorView* shape = lookup("shape");
  if (shape == nullptr || shape->dtype != DType::kI64 || NumElements(shape->shape) != 2) {
    return Damaged("shape", "two I64 numbers");
  }
  packed.rows = shape->as<int64_t>()[0];
  packed.columns = shape->as<int64_t>()[1];
  constexpr int64_t kMaxSize = int64_t{1} << 31;
  if (packed.rows <= 0 || packed.columns <= 0 || packed.rows > kMaxSize ||
      packed.columns > kMaxSize || (is_24 && packed.columns % 4 != 0)) {
    return Damaged("shape", "[rows, columns] of a weight");
  }
  packed.mask = lookup("bitmask");
  const Shape mask_shape = {packed.rows, (packed.columns + 7) / 8};
  if (packed.mask == nullptr || packed.mask->dtype != DType::kU8 ||
      packed.mask->shape != mask_shape) {
    return Damaged("bitmask", absl::StrCat("U8 ", ShapeString(mask_shape)));
  }
  packed.kept = lookup("compressed");
  if (packed.kept == nullptr || ValueBits(packed.kept->dtype) == 0) {
    return Damaged("compressed", "F32, BF16, F16, F8_E4M3 or I8 elements");
  }
  return packed;
}

absl::Status CheckMask(const PackedWeight& packed, bool is_24) {
  const int64_t bytes = packed.mask->dim(1);
  const int used = static_cast<int>(packed.columns - 8 * (bytes - 1));
  const uint8_t* const mask = packed.mask->as<uint8_t>();
  for (int64_t i = 0; i < packed.rows * bytes; ++i) {
    if (i % bytes == bytes - 1 && mask[i] >> used != 0) {
      return Damaged("bitmask", absl::StrCat("no bits beyond column ", packed.columns));
    }
    const bool is_pair = std::popcount(static_cast<uint8_t>(mask[i] & 15)) == 2 &&
                         (std::popcount(static_cast<uint8_t>(mask[i] >> 4)) == 2 ||
                          (i % bytes == bytes - 1 && used == 4));
    if (is_24 && !is_pair) return Damaged("bitmask", "two bits for every four columns");
  }
  return absl::OkStatus();
}

absl::Status CheckCounts(const TensorLookup& lookup, const PackedWeight& packed, bool is_24) {
  const int64_t total = packed.offsets.back();
  const Shape shape = is_24 ? Shape{packed.rows, packed.columns / 2} : Shape{total};
  if (packed.kept->shape != shape) {
    return Damaged("compressed", absl::StrCat("shape ", ShapeString(shape)));
  }
  if (is_24) return absl::OkStatus();
  const TensorView* offsets = lookup("row_offsets");
  const bool fits =
      offsets != nullptr && offsets->dtype == DType::kI64 && offsets->shape == Shape{packed.rows} &&
      std::equal(packed.offsets.begin(), packed.offsets.end() - 1, offsets->as<int64_t>());
  return fits ? absl::OkStatus() : Damaged("row_offsets", "the counts of bitmask, added up");
}

}  // namespace

int64_t CountNonZero(const TensorView& weight) {
  return WithElement(weight.dtype, [&](auto element) {
    using T = decltype(element);
    const int64_t rows = weight.dim(0);
    const int64_t columns = NumElements(weight.shape) / std::max<int64_t>(1, rows);
    std::vector<int64_t> counts(rows);
    ParallelFor(rows, [&](int64_t r) {
      counts[r] = CountNonZeroOf<T>(weight.as<T>() + r * columns, columns,
                                    static_cast<T>(ValueBits(weight.dtype)));
    });
    return std::accumulate(counts.begin(), counts.end(), int64_t{0});
  });
}

absl::StatusOr<std::vector<StoredTensor>> PackSparse(const TensorView& weight,
                                                     SparseFormat format) {
  LLMC_RETURN_IF_ERROR(CheckWeight(weight, format));
  return WithElement(weight.dtype,
                     [&](auto element) { return Pack<decltype(element)>(weight, format); });
}

absl::StatusOr<HostTensor> UnpackSparse(const TensorLookup& lookup, SparseFormat format) {
  const bool is_24 = format == SparseFormat::kSparse24Bitmask;
  LLMC_ASSIGN_OR_RETURN(PackedWeight packed, FindParts(lookup, is_24));
  LLMC_RETURN_IF_ERROR(CheckMask(packed, is_24));
  packed.offsets = RowOffsets(packed.mask->as<uint8_t>(), packed.rows, packed.mask->dim(1));
  LLMC_RETURN_IF_ERROR(CheckCounts(lookup, packed, is_24));
  HostTensor weight(packed.kept->dtype, {packed.rows, packed.columns});
  WithElement(weight.dtype(), [&](auto element) {
    using T = decltype(element);
    ParallelFor(packed.rows, [&](int64_t r) {
      ScatterRow(packed.kept->as<T>() + packed.offsets[r], packed.columns,
                 packed.mask->as<uint8_t>() + r * packed.mask->dim(1),
                 weight.as<T>() + r * packed.columns);
    });
  });
  return weight;
}

}  // namespace llmc::kernels
