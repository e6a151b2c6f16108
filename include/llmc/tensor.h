// Tensors in host memory, without LibTorch: a name, a dtype, a shape, bytes.
// Layout is always dense and row-major, numbers little-endian.
#ifndef LLMC_TENSOR_H_
#define LLMC_TENSOR_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "llmc/dtype.h"

namespace llmc {

using Shape = std::vector<int64_t>;

// Product of the dimensions; 1 for a scalar. The caller has checked overflow
// (safetensors headers are checked when they are opened).
int64_t NumElements(const Shape& shape);

// "[256, 1024]".
std::string ShapeString(const Shape& shape);

// What a tensor is, without its bytes.
struct TensorSpec {
  std::string name;  // Full checkpoint name, "model.layers.0.mlp.up_proj.weight".
  DType dtype = DType::kF32;
  Shape shape;

  int64_t num_bytes() const { return NumElements(shape) * ElementSize(dtype); }
  bool operator==(const TensorSpec&) const = default;
};

// Borrowed, read-only bytes of a tensor; the owner outlives the view.
struct TensorView {
  DType dtype = DType::kF32;
  Shape shape;
  std::span<const std::byte> bytes;

  template <typename T>
  const T* as() const {
    return reinterpret_cast<const T*>(bytes.data());
  }
  int64_t dim(int i) const { return shape[i]; }
};

// Owned bytes of a tensor, 64-byte aligned and not initialised. Move-only.
class HostTensor {
 public:
  HostTensor() = default;
  HostTensor(DType dtype, Shape shape);

  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int64_t dim(int i) const { return shape_[i]; }
  int64_t num_elements() const { return NumElements(shape_); }
  int64_t num_bytes() const { return num_bytes_; }

  std::span<std::byte> bytes() { return {bytes_.get(), static_cast<size_t>(num_bytes_)}; }
  std::span<const std::byte> bytes() const {
    return {bytes_.get(), static_cast<size_t>(num_bytes_)};
  }
  TensorView view() const { return {dtype_, shape_, bytes()}; }

  template <typename T>
  T* as() {
    return reinterpret_cast<T*>(bytes_.get());
  }
  template <typename T>
  const T* as() const {
    return reinterpret_cast<const T*>(bytes_.get());
  }

 private:
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  DType dtype_ = DType::kF32;
  Shape shape_;
  int64_t num_bytes_ = 0;
  std::unique_ptr<std::byte, Free> bytes_;
};

}  // namespace llmc

#endif  // LLMC_TENSOR_H_
