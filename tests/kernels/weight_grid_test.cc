#include "kernels/weight_grid.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "case_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/grid_point.h"
#include "kernels/round_to_grid.h"

namespace llmc::kernels {
namespace {

using testing::HasSubstr;

const char kTestData[] = LLMC_SOURCE_DIR "/tests/kernels/testdata/";

HostTensor Floats(Shape shape, const std::vector<float>& numbers) {
  HostTensor tensor(DType::kF32, std::move(shape));
  std::copy(numbers.begin(), numbers.end(), tensor.as<float>());
  return tensor;
}

QuantizationArgs Group(int bits, int64_t group_size) {
  QuantizationArgs args;
  args.num_bits = bits;
  args.strategy = Strategy::kGroup;
  args.group_size = group_size;
  return args;
}

QuantizationArgs Channel(int bits) {
  QuantizationArgs args;
  args.num_bits = bits;
  args.strategy = Strategy::kChannel;
  return args;
}

bool SameBytes(const HostTensor& a, const HostTensor& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() &&
         std::memcmp(a.bytes().data(), b.bytes().data(), a.num_bytes()) == 0;
}

bool IsFinite(const TensorView& view, int64_t i) {
  if (view.dtype == DType::kF8E4M3) return (view.as<uint8_t>()[i] & 0x7f) != 0x7f;
  if (view.dtype == DType::kF32) return std::isfinite(view.as<float>()[i]);
  if (view.dtype == DType::kBF16) return std::isfinite(FromBf16Bits(view.as<uint16_t>()[i]));
  if (view.dtype == DType::kF16) return std::isfinite(FromF16Bits(view.as<uint16_t>()[i]));
  return true;
}

// Where the library's scale overflows to infinity, or an FP8 zero point of
// nothing but zeros is a NaN, llmc has a finite number on purpose; returns how
// many elements of the grid these are after making them equal.
int ForgiveOverflow(const TensorView& scale, const TensorView* zero, WeightGrid& grid) {
  int forgiven = 0;
  for (int64_t i = 0; i < NumElements(scale.shape); ++i) {
    if (IsFinite(scale, i) && (zero == nullptr || IsFinite(*zero, i))) continue;
    ++forgiven;
    EXPECT_TRUE(IsFinite(grid.scale.view(), i));
    const int64_t size = ElementSize(scale.dtype);
    std::memcpy(grid.scale.bytes().data() + i * size, scale.bytes.data() + i * size, size);
    if (zero != nullptr) grid.zero_point.as<uint8_t>()[i] = zero->as<uint8_t>()[i];
  }
  return forgiven;
}

struct Compared {
  int tensors = 0;
  int forgiven_elements = 0;
};

void CompareScales(const std::string& stem, Compared& compared) {
  const TensorFile file(stem + ".safetensors");
  for (const auto& json : ReadCases(stem + ".json")) {
    const std::string name = json.at("name");
    const auto args = ArgsFromJson(json.at("args"));
    auto grid = ComputeWeightGrid(file.At("input/" + name.substr(0, name.find('/'))), args).value();
    const TensorView& scale = file.At(name + "/weight_scale");
    const TensorView* zero = file.Find(name + "/weight_zero_point");
    compared.forgiven_elements += ForgiveOverflow(scale, zero, grid);
    EXPECT_EQ(Difference(grid.scale.view(), scale), "") << stem << " " << name;
    ++compared.tensors;
    if (zero != nullptr) {
      EXPECT_EQ(Difference(grid.zero_point.view(), *zero), "") << stem << " " << name;
      ++compared.tensors;
    }
    if (const TensorView* global = file.Find(name + "/weight_global_scale")) {
      EXPECT_EQ(grid.global_scale, *global->as<float>()) << name;
      ++compared.tensors;
    }
  }
}

TEST(ComputeWeightGrid, StoredScales_AreBitIdentical) {
  Compared compared;
  for (const char* kind : {"int", "float"}) {
    for (const char* dtype : {"bf16", "fp16", "fp32"}) {
      CompareScales(std::string(kTestData) + "scales/" + kind + "_minmax_" + dtype, compared);
    }
  }
  EXPECT_GT(compared.tensors, 500);
  EXPECT_LT(compared.forgiven_elements, 200);
  RecordProperty("tensors", compared.tensors);
  RecordProperty("forgiven_elements", compared.forgiven_elements);
}

// Extrema over three batches of a module input [2, 5, 64] or of keys
// [2, 4, 5, 16], per head for `heads` > 1.
std::vector<Extrema> BatchExtrema(const TensorFile& file, const std::string& batch, int heads) {
  std::vector<Extrema> extrema(static_cast<size_t>(heads));
  for (int i = 0; i < 3; ++i) {
    const TensorView& view = file.At(batch + std::to_string(i));
    const int64_t count = NumElements(view.shape);
    for (int64_t e = 0; e < count; ++e) {
      const float x =
          view.dtype == DType::kF32 ? view.as<float>()[e] : FromBf16Bits(view.as<uint16_t>()[e]);
      const int64_t head = heads == 1 ? 0 : e / (5 * 16) % 4;
      extrema[head] = {std::min(extrema[head].min, x), std::max(extrema[head].max, x)};
    }
  }
  return extrema;
}

TEST(ActivationScale, StoredStaticScales_AreBitIdentical) {
  const std::string stem = std::string(kTestData) + "scales/activation_observers";
  const TensorFile file(stem + ".safetensors");
  int compared = 0;
  for (const auto& json : ReadCases(stem + ".json")) {
    if (json.at("observer") != "static_minmax") continue;
    const std::string name = json.at("name");
    const QuantizationArgs args = ArgsFromJson(json.at("args"));
    const std::string batch =
        name.substr(0, 5) + (json.at("base") == "k" ? "kv_batch" : "input_batch");
    const int heads = args.strategy == Strategy::kAttnHead ? 4 : 1;
    const DType dtype = name.starts_with("bf16") ? DType::kBF16 : DType::kF32;
    const auto grid = ActivationScale(BatchExtrema(file, batch, heads), args, dtype);
    ASSERT_TRUE(grid.ok()) << grid.status();
    ++compared;
    if (args.strategy == Strategy::kTensorGroup) {
      EXPECT_EQ(grid->global_scale, *file.At(name + "/global_scale").as<float>()) << name;
      continue;
    }
    EXPECT_EQ(Difference(grid->scale.view(), file.At(name + "/scale")), "") << name;
    if (args.symmetric) continue;
    EXPECT_EQ(Difference(grid->zero_point.view(), file.At(name + "/zero_point")), "") << name;
  }
  EXPECT_GE(compared, 14);
}

TEST(ActivationScale, NonFiniteOrMissingExtrema_AreInvalid) {
  const QuantizationArgs args;
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<Extrema> bad = {{-1, infinity}};
  EXPECT_FALSE(ActivationScale(bad, args, DType::kBF16).ok());
  EXPECT_FALSE(ActivationScale({}, args, DType::kBF16).ok());
}

TEST(ComputeWeightGrid, NanOrInfinity_IsNamedByRowAndColumn) {
  std::vector<float> numbers(7 * 8, 0.5f);
  for (const Strategy strategy : {Strategy::kTensor, Strategy::kChannel, Strategy::kBlock}) {
    for (const bool symmetric : {true, false}) {
      for (const float bad : {std::nanf(""), -std::nanf(""), INFINITY, -INFINITY}) {
        auto damaged = numbers;
        damaged[3 * 8 + 5] = bad;
        damaged[6 * 8] = NAN;
        QuantizationArgs args = Channel(8);
        args.strategy = strategy;
        args.symmetric = symmetric;
        args.block_structure = {4, 4};
        const auto grid = ComputeWeightGrid(Floats({7, 8}, damaged).view(), args);
        EXPECT_EQ(grid.status().code(), absl::StatusCode::kInvalidArgument);
        EXPECT_THAT(std::string(grid.status().message()), HasSubstr("row 3, column 5"));
      }
    }
  }
}

TEST(ComputeWeightGrid, RowSlices_GiveTheRowsOfTheWhole) {
  HostTensor weight(DType::kBF16, {96, 256});
  for (int64_t i = 0; i < weight.num_elements(); ++i) {
    weight.as<uint16_t>()[i] = Bf16Bits(std::sin(static_cast<float>(i) * 0.7f));
  }
  for (const Strategy strategy : {Strategy::kChannel, Strategy::kGroup, Strategy::kBlock}) {
    QuantizationArgs args = Group(4, 64);
    args.strategy = strategy;
    args.symmetric = false;
    args.block_structure = {32, 64};
    const WeightGrid whole = ComputeWeightGrid(weight.view(), args).value();
    const TensorView rows = {DType::kBF16, {32, 256}, weight.bytes().subspan(32 * 512, 32 * 512)};
    const WeightGrid part = ComputeWeightGrid(rows, args).value();
    const WeightGrid slice = SliceGrid(whole, args, 32, 32).value();
    EXPECT_TRUE(SameBytes(part.scale, slice.scale));
    EXPECT_TRUE(SameBytes(part.zero_point, slice.zero_point));
  }
}

TEST(ComputeWeightGrid, TensorExtremaGiven_ReplaceThoseOfTheSlice) {
  QuantizationArgs args = Channel(8);
  args.strategy = Strategy::kTensor;
  const HostTensor weight = Floats({2, 2}, {1, 2, 3, 4});
  const auto grid =
      ComputeWeightGrid(weight.view(), args, {.tensor_extrema = Extrema{-255, 1}}).value();
  EXPECT_EQ(grid.scale.as<float>()[0], 2.0f);
}

TEST(ComputeWeightGrid, ArgsThatDoNotFit_AreInvalid) {
  const HostTensor weight = Floats({2, 6}, std::vector<float>(12, 1.0f));
  QuantizationArgs wide = Channel(9);
  QuantizationArgs token = Channel(8);
  token.strategy = Strategy::kToken;
  QuantizationArgs unknown = Channel(8);
  unknown.observer = "percentile";
  QuantizationArgs endless = Channel(8);
  endless.observer = "mse";
  endless.observer_kwargs["grid"] = 1e9;
  QuantizationArgs huge = Channel(8);
  huge.strategy = Strategy::kBlock;
  huge.block_structure = {int64_t{1} << 40, 1};
  QuantizationArgs fp4 = Group(4, 2);
  fp4.type = NumberType::kFloat;
  fp4.symmetric = false;
  for (const QuantizationArgs& args :
       {Group(4, 4), Group(4, 0), wide, token, unknown, endless, huge, fp4}) {
    const auto grid = ComputeWeightGrid(weight.view(), args);
    EXPECT_EQ(grid.status().code(), absl::StatusCode::kInvalidArgument) << grid.status();
  }
}

TEST(ComputeWeightGrid, WrongTensor_IsInvalid) {
  const HostTensor bytes(DType::kI8, {2, 2});
  EXPECT_FALSE(ComputeWeightGrid(bytes.view(), Channel(8)).ok());
  const HostTensor cube(DType::kF32, {2, 2, 2});
  EXPECT_FALSE(ComputeWeightGrid(cube.view(), Channel(8)).ok());
  const HostTensor flat = Floats({1, 2}, {1, 2});
  EXPECT_FALSE(ComputeWeightGrid({DType::kF32, {2, 2}, flat.bytes()}, Channel(8)).ok());
}

TEST(ComputeWeightGrid, EmptyWeight_HasAnEmptyGrid) {
  const HostTensor weight(DType::kBF16, {0, 64});
  EXPECT_EQ(ComputeWeightGrid(weight.view(), Channel(4))->scale.shape(), (Shape{0, 1}));
}

TEST(ComputeWeightGrid, LargestFiniteMxGroup_KeepsAFiniteScale) {
  HostTensor weight(DType::kBF16, {1, 32});
  for (int i = 0; i < 32; ++i) weight.as<uint16_t>()[i] = 0x7f7f;
  QuantizationArgs args = Group(4, 32);
  args.type = NumberType::kFloat;
  args.scale_dtype = DType::kU8;
  const WeightGrid grid = ComputeWeightGrid(weight.view(), args).value();
  EXPECT_EQ(FromBf16Bits(grid.scale.as<uint16_t>()[0]), std::ldexp(1.0f, 125));
}

TEST(PointOf, ZerosOfEitherSign_AreTheSmallestMxScale) {
  QuantizationArgs args = Group(4, 32);
  args.type = NumberType::kFloat;
  args.scale_dtype = DType::kU8;
  const GridRule rule = RuleOf(args, DType::kBF16);
  for (const Extrema e : {Extrema{0.0f, 0.0f}, Extrema{-0.0f, 0.0f}, Extrema{-0.0f, -0.0f}}) {
    EXPECT_EQ(E8m0Byte(PointOf(rule, e).scale), 0);
  }
}

TEST(ComputeWeightGrid, RangeBeyondTheDType_KeepsAFiniteScale) {
  HostTensor weight(DType::kF16, {1, 2});
  weight.as<uint16_t>()[0] = 0x7bff;
  weight.as<uint16_t>()[1] = 0xfbff;
  QuantizationArgs args = Channel(4);
  args.symmetric = false;
  const WeightGrid grid = ComputeWeightGrid(weight.view(), args).value();
  EXPECT_NEAR(FromF16Bits(grid.scale.as<uint16_t>()[0]), 2 * 65504.0 / 15, 4);
}

TEST(ComputeWeightGrid, SmallF16WeightUnderNvfp4_ExactGlobalScaleIsFinite) {
  HostTensor weight(DType::kF16, {1, 16});
  for (int i = 0; i < 16; ++i) weight.as<uint16_t>()[i] = F16Bits(0.01f);
  QuantizationArgs args = Group(4, 16);
  args.type = NumberType::kFloat;
  args.strategy = Strategy::kTensorGroup;
  EXPECT_EQ(ComputeWeightGrid(weight.view(), args)->global_scale, 1.0f);
  const auto exact = ComputeWeightGrid(weight.view(), args, {.exact_f16_global_scale = true});
  EXPECT_NEAR(exact->global_scale, 2688 / 0.01, 100);
}

// The error of a grid: sum of |dequantised - weight|^2.4 in double precision.
double ErrorOf(const HostTensor& weight, const WeightGrid& grid, int64_t group_size) {
  double error = 0;
  for (int64_t i = 0; i < weight.num_elements(); ++i) {
    const float scale = grid.scale.as<float>()[i / group_size];
    const float x = weight.as<float>()[i];
    const double q = std::clamp(std::nearbyint(x / scale), -8.0f, 7.0f);
    error += std::pow(std::fabs(q * scale - x), 2.4);
  }
  return error;
}

TEST(ComputeWeightGrid, SearchingObserver_LowersTheError) {
  HostTensor weight(DType::kF32, {32, 128});
  for (int64_t i = 0; i < weight.num_elements(); ++i) {
    weight.as<float>()[i] = std::pow(std::sin(static_cast<float>(i * i % 1009)), 5.0f);
  }
  QuantizationArgs args = Group(4, 64);
  const double plain = ErrorOf(weight, ComputeWeightGrid(weight.view(), args).value(), 64);
  args.observer = "mse";
  const double searched = ErrorOf(weight, ComputeWeightGrid(weight.view(), args).value(), 64);
  EXPECT_LT(searched, plain);
}

}  // namespace
}  // namespace llmc::kernels
