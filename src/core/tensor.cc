#include "llmc/tensor.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace llmc {

int64_t NumElements(const Shape& shape) {
  int64_t product = 1;
  for (int64_t dim : shape) product *= dim;
  return product;
}

std::string ShapeString(const Shape& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

namespace {

// Matrices of this size are worth the kernel's large pages: first touches then cost
// one page fault for 2 MiB and not for 4 KiB.
constexpr size_t kLargePage = size_t{2} << 20;
constexpr size_t kLargeTensor = 4 * kLargePage;

std::byte* Allocate(size_t num_bytes) {
  const size_t alignment = num_bytes >= kLargeTensor ? kLargePage : 64;
  const size_t padded = std::max<size_t>(64, (num_bytes + 63) / 64 * 64);
  void* bytes = nullptr;
  if (posix_memalign(&bytes, alignment, padded) != 0) throw std::bad_alloc();
  // Only advice: nothing is wrong when the kernel does not take it.
  if (alignment == kLargePage)
    (void)madvise(bytes, padded / kLargePage * kLargePage, MADV_HUGEPAGE);
  return static_cast<std::byte*>(bytes);
}

}  // namespace

HostTensor::HostTensor(DType dtype, Shape shape)
    : dtype_(dtype),
      shape_(std::move(shape)),
      num_bytes_(NumElements(shape_) * ElementSize(dtype)) {
  bytes_.reset(Allocate(static_cast<size_t>(num_bytes_)));
}

}  // namespace llmc
