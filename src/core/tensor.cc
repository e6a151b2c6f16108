#include "llmc/tensor.h"

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

HostTensor::HostTensor(DType dtype, Shape shape)
    : dtype_(dtype),
      shape_(std::move(shape)),
      num_bytes_(NumElements(shape_) * ElementSize(dtype)) {
  const size_t padded = (static_cast<size_t>(num_bytes_) + 63) / 64 * 64;
  bytes_.reset(static_cast<std::byte*>(std::aligned_alloc(64, padded == 0 ? 64 : padded)));
  if (bytes_ == nullptr) throw std::bad_alloc();
}

}  // namespace llmc
