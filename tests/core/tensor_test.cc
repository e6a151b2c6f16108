#include "llmc/tensor.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <utility>

namespace llmc {
namespace {

constexpr std::array kDTypes = {DType::kBool,   DType::kU8,  DType::kI8,  DType::kF8E4M3,
                                DType::kF8E5M2, DType::kI16, DType::kU16, DType::kF16,
                                DType::kBF16,   DType::kI32, DType::kU32, DType::kF32,
                                DType::kF64,    DType::kI64, DType::kU64};

TEST(NumElements, Shapes_ProductOfDimensions) {
  EXPECT_EQ(NumElements({}), 1);
  EXPECT_EQ(NumElements({7}), 7);
  EXPECT_EQ(NumElements({2, 3, 4}), 24);
  EXPECT_EQ(NumElements({1 << 20, 0, 1 << 20}), 0);
}

TEST(ShapeString, Shapes_AsPythonWritesThem) {
  EXPECT_EQ(ShapeString({}), "[]");
  EXPECT_EQ(ShapeString({256, 1024}), "[256, 1024]");
}

TEST(HostTensor, AnySize_HasItsBytesAligned) {
  for (int64_t elements : {0, 1, 63, 64, 65, 3 << 20}) {
    HostTensor tensor(DType::kF32, {elements});
    EXPECT_EQ(tensor.num_bytes(), 4 * elements);
    EXPECT_EQ(static_cast<int64_t>(tensor.bytes().size()), 4 * elements);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.bytes().data()) % 64, 0u);
    for (int64_t i = 0; i < elements; ++i) tensor.as<float>()[i] = static_cast<float>(i);
    if (elements > 0) {
      EXPECT_EQ(tensor.as<float>()[elements - 1], static_cast<float>(elements - 1));
    }
  }
}

TEST(HostTensor, Default_IsEmpty) {
  const HostTensor tensor;
  EXPECT_EQ(tensor.num_bytes(), 0);
  EXPECT_TRUE(tensor.bytes().empty());
}

TEST(HostTensor, View_SeesTheSameBytes) {
  HostTensor tensor(DType::kI16, {2, 3});
  for (int i = 0; i < 6; ++i) tensor.as<int16_t>()[i] = static_cast<int16_t>(10 * i);
  const TensorView view = tensor.view();
  EXPECT_EQ(view.dtype, DType::kI16);
  EXPECT_EQ(view.shape, (Shape{2, 3}));
  EXPECT_EQ(view.dim(1), 3);
  EXPECT_EQ(view.bytes.data(), tensor.bytes().data());
  EXPECT_EQ(view.as<int16_t>()[5], 50);
}

TEST(HostTensor, Moved_TakesTheBytesAlong) {
  HostTensor from(DType::kU8, {5});
  from.as<uint8_t>()[4] = 9;
  const std::byte* bytes = from.bytes().data();
  const HostTensor to = std::move(from);
  EXPECT_EQ(to.bytes().data(), bytes);
  EXPECT_EQ(to.as<uint8_t>()[4], 9);
}

TEST(TensorSpec, NumBytes_ElementsTimesSize) {
  EXPECT_EQ((TensorSpec{"w", DType::kBF16, {3, 5}}).num_bytes(), 30);
  EXPECT_EQ((TensorSpec{"s", DType::kI64, {}}).num_bytes(), 8);
}

TEST(DType, Names_ReadBack) {
  for (DType dtype : kDTypes) {
    const auto read = DTypeFromSafetensors(SafetensorsName(dtype));
    ASSERT_TRUE(read.ok()) << SafetensorsName(dtype);
    EXPECT_EQ(*read, dtype);
    const absl::string_view torch = TorchName(dtype);
    ASSERT_EQ(torch.substr(0, 6), "torch.");
    EXPECT_EQ(*DTypeFromTorch(torch), dtype);
    EXPECT_EQ(*DTypeFromTorch(torch.substr(6)), dtype);
  }
}

TEST(DType, Sizes_AsTheNamesSay) {
  for (DType dtype : kDTypes) {
    const absl::string_view name = SafetensorsName(dtype);
    int64_t bits = 8;
    for (int64_t width : {16, 32, 64}) {
      if (name.find(std::to_string(width)) != absl::string_view::npos) bits = width;
    }
    EXPECT_EQ(ElementSize(dtype) * 8, bits) << name;
  }
}

TEST(DType, UnknownNames_InvalidArgument) {
  for (absl::string_view name : {"", "bf16", "F4", "torch.", "BF16 "}) {
    EXPECT_EQ(DTypeFromSafetensors(name).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(DTypeFromTorch(name).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(DType, DenseFloats_AreTheFour) {
  for (DType dtype : kDTypes) {
    const bool expected = dtype == DType::kF64 || dtype == DType::kF32 || dtype == DType::kF16 ||
                          dtype == DType::kBF16;
    EXPECT_EQ(IsDenseFloat(dtype), expected) << SafetensorsName(dtype);
  }
}

}  // namespace
}  // namespace llmc
