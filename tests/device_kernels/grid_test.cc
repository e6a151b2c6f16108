#include <cmath>
#include <map>
#include <random>

#include "device_test.h"
#include "kernels/compress.h"
#include "kernels/weight_grid.h"
#include "linear_algebra_reference.h"
#include "llmc/float_formats.h"

namespace llmc::kernels {
namespace {

struct GridCase {
  const char* name = "";
  QuantizationArgs args;
  Format format = Format::kPackQuantized;
  int64_t rows = 37;
  int64_t columns = 128;
};

void PrintTo(const GridCase& c, std::ostream* out) { *out << c.name; }

QuantizationArgs Ints(int num_bits, Strategy strategy, bool symmetric, int64_t group_size = 32) {
  QuantizationArgs args;
  args.num_bits = num_bits;
  args.strategy = strategy;
  args.symmetric = symmetric;
  if (strategy == Strategy::kGroup) args.group_size = group_size;
  return args;
}

QuantizationArgs Floats(int num_bits, Strategy strategy, bool symmetric = true) {
  QuantizationArgs args = Ints(num_bits, strategy, symmetric);
  args.type = NumberType::kFloat;
  if (strategy == Strategy::kBlock) args.block_structure = {16, 48};
  if (strategy == Strategy::kTensorGroup) args.group_size = 16;
  return args;
}

QuantizationArgs Mx(int num_bits) {
  QuantizationArgs args = Floats(num_bits, Strategy::kGroup);
  args.group_size = 32;
  args.scale_dtype = DType::kU8;
  return args;
}

QuantizationArgs Observed(QuantizationArgs args, const char* observer,
                          std::map<std::string, double> kwargs = {}) {
  args.observer = observer;
  args.observer_kwargs = std::move(kwargs);
  return args;
}

// Weights of a layer: small numbers, some outliers, a row and a group of zeros.
HostTensor MakeWeight(const GridCase& c, DType dtype) {
  HostTensor weight(dtype, {c.rows, c.columns});
  std::mt19937 random(21);
  std::normal_distribution<float> normal(0, 0.02f);
  for (int64_t i = 0; i < c.rows * c.columns; ++i) {
    float value = random() % 97 == 0 ? normal(random) * 12 : normal(random);
    if (i / c.columns == 3 || (i / c.columns == 5 && i % c.columns < 32)) value = 0;
    if (random() % 31 == 0) value = -0.0f;
    if (dtype == DType::kF32) {
      weight.as<float>()[i] = value;
    } else {
      weight.as<uint16_t>()[i] = dtype == DType::kBF16 ? FloatToBf16(value) : FloatToF16(value);
    }
  }
  return weight;
}

std::vector<uint8_t> Bytes(const HostTensor& tensor) {
  const auto* const from = reinterpret_cast<const uint8_t*>(tensor.bytes().data());
  return {from, from + tensor.num_bytes()};
}

class GridTest : public DeviceTestWithParam<std::tuple<GridCase, DType>> {
 protected:
  const GridCase& Case() const { return std::get<0>(GetParam()); }
  DType dtype() const { return std::get<1>(GetParam()); }

  DeviceWeight OnTheDevice(const HostTensor& weight) {
    return {Upload(weight), weight.dtype(), weight.dim(0), weight.dim(1), &queue()};
  }

  void ExpectSame(const WeightGrid& grid, const WeightGrid& expected) {
    EXPECT_EQ(grid.scale.shape(), expected.scale.shape());
    EXPECT_TRUE(SameBits(Bytes(grid.scale), Bytes(expected.scale)));
    EXPECT_TRUE(SameBits(Bytes(grid.zero_point), Bytes(expected.zero_point)));
    EXPECT_EQ(grid.global_scale, expected.global_scale);
  }
};

TEST_P(GridTest, ComputeWeightGrid_HasTheCpusBits) {
  const HostTensor weight = MakeWeight(Case(), dtype());
  const absl::StatusOr<WeightGrid> expected = ComputeWeightGrid(weight.view(), Case().args);
  ASSERT_TRUE(expected.ok()) << expected.status();
  const absl::StatusOr<WeightGrid> grid = ComputeWeightGrid(OnTheDevice(weight), Case().args);
  ASSERT_TRUE(grid.ok()) << grid.status();
  ExpectSame(*grid, *expected);
  const absl::StatusOr<float> absmax = SearchedAbsMax(OnTheDevice(weight), Case().args);
  ASSERT_TRUE(absmax.ok());
  EXPECT_EQ(*absmax, *SearchedAbsMax(weight.view(), Case().args));
}

TEST_P(GridTest, CompressWeight_HasTheCpusBytes) {
  const HostTensor weight = MakeWeight(Case(), dtype());
  const WeightGrid grid = *ComputeWeightGrid(weight.view(), Case().args);
  for (const CompressOptions& options :
       {CompressOptions{},
        CompressOptions{
            .quotient = QuotientRounding::kFloat32, .zero_added = false, .total_rows = 1000}}) {
    const auto expected = CompressWeight(weight.view(), grid, Case().args, Case().format, options);
    ASSERT_TRUE(expected.ok()) << expected.status();
    const auto stored =
        CompressWeight(OnTheDevice(weight), grid, Case().args, Case().format, options);
    ASSERT_TRUE(stored.ok()) << stored.status();
    ASSERT_EQ(stored->size(), expected->size());
    for (size_t i = 0; i < stored->size(); ++i) {
      EXPECT_EQ((*stored)[i].suffix, (*expected)[i].suffix);
      EXPECT_EQ((*stored)[i].tensor.dtype(), (*expected)[i].tensor.dtype());
      EXPECT_EQ((*stored)[i].tensor.shape(), (*expected)[i].tensor.shape());
      EXPECT_TRUE(SameBits(Bytes((*stored)[i].tensor), Bytes((*expected)[i].tensor)))
          << (*stored)[i].suffix;
    }
  }
}

TEST_P(GridTest, FakeQuantWeight_HasTheCpusBytes) {
  const HostTensor weight = MakeWeight(Case(), dtype());
  const WeightGrid grid = *ComputeWeightGrid(weight.view(), Case().args);
  const absl::StatusOr<HostTensor> expected = FakeQuantWeight(weight.view(), grid, Case().args);
  ASSERT_TRUE(expected.ok());
  const DeviceWeight device = OnTheDevice(weight);
  auto* const dense = static_cast<uint8_t*>(const_cast<void*>(device.elements));  // In place.
  ASSERT_TRUE(FakeQuantWeight(device, grid, Case().args, {}, dense).ok());
  EXPECT_TRUE(SameBits(Download(dense, weight.num_bytes()), Bytes(*expected)));
}

TEST_P(GridTest, DecompressWeight_HasTheCpusBytes) {
  const HostTensor weight = MakeWeight(Case(), dtype());
  const WeightGrid grid = *ComputeWeightGrid(weight.view(), Case().args);
  const auto stored = CompressWeight(weight.view(), grid, Case().args, Case().format);
  ASSERT_TRUE(stored.ok());
  std::map<std::string, TensorView> views;
  for (const StoredTensor& tensor : *stored) views[tensor.suffix] = tensor.tensor.view();
  const CompressedModule module{[&](absl::string_view suffix) {
                                  const auto it = views.find(std::string(suffix));
                                  return it == views.end() ? nullptr : &it->second;
                                },
                                Case().args, Case().format, weight.shape()};
  for (const DType result : {DType::kBF16, DType::kF16, DType::kF32}) {
    const auto expected =
        DecompressWeight(module.lookup, module.args, module.format, module.shape, result);
    ASSERT_TRUE(expected.ok()) << expected.status();
    auto* const dense = Allocate<uint8_t>(expected->num_bytes());
    const absl::Status status = DecompressWeight(module, result, {dense, &queue()});
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_TRUE(SameBits(Download(dense, expected->num_bytes()), Bytes(*expected)));
  }
}

const GridCase kGrids[] = {
    {"int4 group", Ints(4, Strategy::kGroup, true)},
    {"int4 group asymmetric", Ints(4, Strategy::kGroup, false)},
    {"int3 channel", Ints(3, Strategy::kChannel, true), Format::kPackQuantized, 5, 37},
    {"int5 asymmetric", Ints(5, Strategy::kChannel, false), Format::kPackQuantized, 40, 100},
    {"int1", Ints(1, Strategy::kChannel, true), Format::kPackQuantized, 9, 33},
    {"int8 tensor", Ints(8, Strategy::kTensor, false), Format::kIntQuantized, 33, 70},
    {"int8 packed", Ints(8, Strategy::kChannel, true), Format::kPackQuantized, 17, 41},
    {"int8 one row", Ints(8, Strategy::kTensor, true), Format::kIntQuantized, 1, 70},
    {"fp8 channel", Floats(8, Strategy::kChannel), Format::kFloatQuantized, 20, 50},
    {"fp8 asymmetric", Floats(8, Strategy::kChannel, false), Format::kFloatQuantized, 20, 50},
    {"fp8 block", Floats(8, Strategy::kBlock), Format::kFloatQuantized, 37, 100},
    {"fp8 tensor", Floats(8, Strategy::kTensor), Format::kNaiveQuantized, 37, 100},
    {"nvfp4", Floats(4, Strategy::kTensorGroup), Format::kNvfp4PackQuantized, 21, 96},
    {"mxfp4", Mx(4), Format::kMxfp4PackQuantized, 21, 96},
    {"mxfp8", Mx(8), Format::kMxfp8Quantized, 21, 96},
    {"mse group", Observed(Ints(4, Strategy::kGroup, true), "memoryless_mse")},
    {"mse group of 128", Observed(Ints(4, Strategy::kGroup, false, 128), "mse"),
     Format::kPackQuantized, 12, 256},
    {"mse channel", Observed(Ints(4, Strategy::kChannel, false), "mse", {{"norm", 2}}),
     Format::kPackQuantized, 6, 1100},
    {"mse block", Observed(Floats(8, Strategy::kBlock), "mse", {{"norm", 3}}),
     Format::kFloatQuantized, 37, 100},
    {"mse tensor", Observed(Ints(8, Strategy::kTensor, true), "mse", {{"norm", 2}}),
     Format::kIntQuantized, 20, 60},
    {"mse impatient",
     Observed(Ints(4, Strategy::kChannel, true), "mse", {{"patience", 1}, {"maxshrink", 0.9}}),
     Format::kPackQuantized, 2, 64},
    {"imatrix", Observed(Ints(4, Strategy::kGroup, true), "imatrix_mse")},
    {"nvfp4 expanded", Observed(Floats(4, Strategy::kTensorGroup), "nvfp4_expanded_mse"),
     Format::kNvfp4PackQuantized, 4, 64},
};

// In float32 pow need not agree; those searches are told apart below.
bool UsesPow(const GridCase& c, DType dtype) {
  const bool searches = c.args.observer && *c.args.observer != "imatrix_mse";
  return dtype == DType::kF32 && searches && c.args.observer_kwargs.count("norm") == 0;
}

std::vector<std::tuple<GridCase, DType>> Cases() {
  std::vector<std::tuple<GridCase, DType>> cases;
  for (const GridCase& c : kGrids) {
    for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
      if (!UsesPow(c, dtype)) cases.emplace_back(c, dtype);
    }
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Schemes, GridTest, testing::ValuesIn(Cases()));

class GridSearchTest : public GridTest {};

TEST_P(GridSearchTest, Importance_WeighsAsOnTheCpu) {
  const HostTensor weight = MakeWeight(Case(), dtype());
  std::vector<float> importance(Case().columns);
  for (size_t i = 0; i < importance.size(); ++i) importance[i] = 0.01f * static_cast<float>(i % 17);
  WeightGridOptions options;
  options.importance = importance;
  const auto expected = ComputeWeightGrid(weight.view(), Case().args, options);
  const auto grid = ComputeWeightGrid(OnTheDevice(weight), Case().args, options);
  ASSERT_TRUE(expected.ok() && grid.ok()) << grid.status();
  ExpectSame(*grid, *expected);
  importance[1] = -1;
  EXPECT_EQ(ComputeWeightGrid(OnTheDevice(weight), Case().args, options).status(),
            ComputeWeightGrid(weight.view(), Case().args, options).status());
}

INSTANTIATE_TEST_SUITE_P(Schemes, GridSearchTest,
                         testing::Values(std::tuple(kGrids[21], DType::kBF16),
                                         std::tuple(kGrids[21], DType::kF32)));

class GridErrorsTest : public GridTest {};

TEST_P(GridErrorsTest, NotFinite_IsNamedAsOnTheCpu) {
  for (const float bad : {INFINITY, -INFINITY, NAN}) {
    HostTensor weight = MakeWeight(Case(), DType::kF32);
    weight.as<float>()[5 * Case().columns + 7] = bad;
    weight.as<float>()[6 * Case().columns + 2] = NAN;
    const absl::Status expected = ComputeWeightGrid(weight.view(), Case().args).status();
    EXPECT_EQ(expected.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(ComputeWeightGrid(OnTheDevice(weight), Case().args).status(), expected);
    EXPECT_EQ(FindExtrema(OnTheDevice(weight)).status(), FindExtrema(weight.view()).status());
  }
}

TEST_P(GridErrorsTest, WhatTheCpuRefuses_IsRefused) {
  const HostTensor weight = MakeWeight(Case(), DType::kF32);
  QuantizationArgs args = Case().args;
  args.num_bits = 9;
  EXPECT_EQ(ComputeWeightGrid(OnTheDevice(weight), args).status(),
            ComputeWeightGrid(weight.view(), args).status());
  EXPECT_EQ(ComputeWeightGrid(DeviceWeight{}, Case().args).status().code(),
            absl::StatusCode::kInvalidArgument);
  const WeightGrid empty;
  EXPECT_EQ(CompressWeight(OnTheDevice(weight), empty, Case().args, Case().format).status(),
            CompressWeight(weight.view(), empty, Case().args, Case().format).status());
}

INSTANTIATE_TEST_SUITE_P(Schemes, GridErrorsTest,
                         testing::Values(std::tuple(kGrids[0], DType::kF32),
                                         std::tuple(kGrids[1], DType::kF32),
                                         std::tuple(kGrids[5], DType::kF32)));

}  // namespace
}  // namespace llmc::kernels
