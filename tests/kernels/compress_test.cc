#include "kernels/compress.h"

#include <cmath>
#include <cstring>
#include <random>

#include "case_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/bit_packing.h"
#include "kernels/round_to_grid.h"

namespace llmc::kernels {
namespace {

using testing::HasSubstr;

const char kLegacy[] = LLMC_SOURCE_DIR "/tests/kernels/testdata/legacy/";

HostTensor RandomWeight(DType dtype, int64_t rows, int64_t columns) {
  HostTensor weight(dtype, {rows, columns});
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0.0f, 0.1f);
  for (int64_t i = 0; i < weight.num_elements(); ++i) {
    const float x = normal(random);
    if (dtype == DType::kF32) {
      weight.as<float>()[i] = x;
    } else {
      weight.as<uint16_t>()[i] = dtype == DType::kBF16 ? Bf16Bits(x) : F16Bits(x);
    }
  }
  return weight;
}

QuantizationArgs Args(NumberType type, int bits, Strategy strategy, bool symmetric = true) {
  QuantizationArgs args;
  args.type = type;
  args.num_bits = bits;
  args.strategy = strategy;
  args.symmetric = symmetric;
  if (strategy == Strategy::kGroup) args.group_size = 32;
  if (strategy == Strategy::kTensorGroup) args.group_size = 16;
  if (strategy == Strategy::kBlock) args.block_structure = {32, 32};
  return args;
}

// What a module stores, by suffix.
class Stored {
 public:
  explicit Stored(std::vector<StoredTensor> tensors) : tensors_(std::move(tensors)) {
    for (const StoredTensor& tensor : tensors_) views_[tensor.suffix] = tensor.tensor.view();
  }
  void Set(const std::string& suffix, TensorView view) { views_[suffix] = std::move(view); }
  void Remove(const std::string& suffix) { views_.erase(suffix); }
  const TensorView& At(const std::string& suffix) const { return views_.at(suffix); }
  const std::map<std::string, TensorView>& views() const { return views_; }

  TensorLookup Lookup() const {
    return [this](absl::string_view suffix) -> const TensorView* {
      const auto it = views_.find(std::string(suffix));
      return it == views_.end() ? nullptr : &it->second;
    };
  }

 private:
  std::vector<StoredTensor> tensors_;
  std::map<std::string, TensorView> views_;
};

struct Kind {
  QuantizationArgs args;
  Format format;
};

std::vector<Kind> EveryKind() {
  const auto kInt = NumberType::kInt;
  const auto kFloat = NumberType::kFloat;
  std::vector<Kind> kinds;
  for (int bits = 2; bits <= 8; ++bits) {
    for (const bool symmetric : {true, false}) {
      kinds.push_back({Args(kInt, bits, Strategy::kGroup, symmetric), Format::kPackQuantized});
      kinds.push_back({Args(kInt, bits, Strategy::kChannel, symmetric), Format::kPackQuantized});
    }
  }
  kinds.push_back({Args(kInt, 8, Strategy::kChannel), Format::kIntQuantized});
  kinds.push_back({Args(kFloat, 8, Strategy::kChannel), Format::kFloatQuantized});
  kinds.push_back({Args(kFloat, 8, Strategy::kBlock), Format::kFloatQuantized});
  kinds.push_back({Args(kFloat, 8, Strategy::kGroup), Format::kNaiveQuantized});
  kinds.push_back({Args(kFloat, 4, Strategy::kTensorGroup), Format::kNvfp4PackQuantized});
  Kind mxfp4 = {Args(kFloat, 4, Strategy::kGroup), Format::kMxfp4PackQuantized};
  mxfp4.args.scale_dtype = DType::kU8;
  kinds.push_back(mxfp4);
  Kind mxfp8 = {Args(kFloat, 8, Strategy::kGroup), Format::kMxfp8Quantized};
  mxfp8.args.scale_dtype = DType::kU8;
  kinds.push_back(mxfp8);
  return kinds;
}

TensorView Rows(const HostTensor& weight, int64_t first, int64_t count) {
  const int64_t row = weight.dim(1) * ElementSize(weight.dtype());
  return {
      weight.dtype(),
      {count, weight.dim(1)},
      weight.bytes().subspan(static_cast<size_t>(first * row), static_cast<size_t>(count * row))};
}

TEST(CompressWeight, RowRanges_ConcatenateToTheWhole) {
  const HostTensor weight = RandomWeight(DType::kBF16, 81, 96);
  for (const Kind& kind : EveryKind()) {
    const WeightGrid grid = ComputeWeightGrid(weight.view(), kind.args).value();
    const Stored whole(CompressWeight(weight.view(), grid, kind.args, kind.format).value());
    std::map<std::string, std::string> joined;
    for (int64_t first = 0; first < 81; first += 32) {
      const int64_t count = std::min<int64_t>(32, 81 - first);
      const WeightGrid slice = SliceGrid(grid, kind.args, first, count).value();
      const Stored part(CompressWeight(Rows(weight, first, count), slice, kind.args, kind.format,
                                       {.total_rows = 81})
                            .value());
      for (const auto& [suffix, view] : part.views()) {
        const bool repeated = suffix == "weight_shape" || suffix == "weight_global_scale";
        if (repeated) joined[suffix].clear();
        joined[suffix].append(reinterpret_cast<const char*>(view.bytes.data()), view.bytes.size());
      }
    }
    for (const auto& [suffix, view] : whole.views()) {
      const std::string bytes(reinterpret_cast<const char*>(view.bytes.data()), view.bytes.size());
      EXPECT_EQ(joined[suffix], bytes) << suffix << " bits " << kind.args.num_bits;
    }
  }
}

TEST(DecompressWeight, OwnOutput_IsWhatFakeQuantWeightGives) {
  const HostTensor weight = RandomWeight(DType::kBF16, 37, 96);
  for (const Kind& kind : EveryKind()) {
    const WeightGrid grid = ComputeWeightGrid(weight.view(), kind.args).value();
    const Stored stored(CompressWeight(weight.view(), grid, kind.args, kind.format).value());
    const auto dense =
        DecompressWeight(stored.Lookup(), kind.args, kind.format, weight.shape(), DType::kBF16);
    ASSERT_TRUE(dense.ok()) << dense.status();
    const auto fake = FakeQuantWeight(weight.view(), grid, kind.args);
    EXPECT_EQ(Difference(dense->view(), fake->view()), "") << kind.args.num_bits;
  }
}

// FP4 has two codes for zero, and -0.0 becomes the positive one.
std::vector<uint8_t> WithoutNegativeZeros(const TensorView& view, Format format) {
  const auto* bytes = view.as<uint8_t>();
  std::vector<uint8_t> codes(bytes, bytes + view.bytes.size());
  if (format != Format::kNvfp4PackQuantized && format != Format::kMxfp4PackQuantized) return codes;
  for (uint8_t& pair : codes) {
    if ((pair & 0x0f) == 0x08) pair &= 0xf0;
    if ((pair & 0xf0) == 0x80) pair &= 0x0f;
  }
  return codes;
}

TEST(CompressWeight, AlreadyRoundedWeight_KeepsItsCodes) {
  const HostTensor weight = RandomWeight(DType::kF32, 16, 96);
  for (const Kind& kind : EveryKind()) {
    const WeightGrid grid = ComputeWeightGrid(weight.view(), kind.args).value();
    const HostTensor rounded = FakeQuantWeight(weight.view(), grid, kind.args).value();
    const Stored first(CompressWeight(weight.view(), grid, kind.args, kind.format).value());
    const Stored second(CompressWeight(rounded.view(), grid, kind.args, kind.format).value());
    const std::string suffix = first.views().count("weight") > 0 ? "weight" : "weight_packed";
    EXPECT_EQ(WithoutNegativeZeros(second.At(suffix), kind.format),
              WithoutNegativeZeros(first.At(suffix), kind.format))
        << kind.args.num_bits;
  }
}

TEST(CompressWeight, Float32Quotient_RoundsOnce) {
  // Among 256 neighbouring BF16 numbers some have a quotient that rounds to another
  // integer when it passes through BF16.
  HostTensor weight(DType::kBF16, {1, 4096});
  for (int i = 0; i < 4096; ++i) {
    weight.as<uint16_t>()[i] = static_cast<uint16_t>(0x3e93 + i % 256);
  }
  const QuantizationArgs args = Args(NumberType::kInt, 8, Strategy::kChannel);
  const WeightGrid grid = ComputeWeightGrid(weight.view(), args).value();
  const Stored stored(CompressWeight(weight.view(), grid, args, Format::kIntQuantized,
                                     {.quotient = QuotientRounding::kFloat32})
                          .value());
  const float scale = FromBf16Bits(grid.scale.as<uint16_t>()[0]);
  int differ = 0;
  for (int i = 0; i < 256; ++i) {
    const float x = FromBf16Bits(weight.as<uint16_t>()[i]);
    const double once = std::clamp(std::nearbyint(static_cast<double>(x / scale)), -128.0, 127.0);
    EXPECT_EQ(stored.At("weight").as<int8_t>()[i], once);
    const double twice = std::nearbyint(FromBf16Bits(Bf16Bits(x / scale)));
    differ += std::clamp(twice, -128.0, 127.0) != once;
  }
  EXPECT_GT(differ, 0);
}

TEST(CompressWeight, NegativeZeros_FollowTheFlow) {
  HostTensor weight(DType::kBF16, {1, 2});
  weight.as<uint16_t>()[0] = 0x8000;
  weight.as<uint16_t>()[1] = 0x3f80;
  const QuantizationArgs args = Args(NumberType::kFloat, 8, Strategy::kChannel);
  const WeightGrid grid = ComputeWeightGrid(weight.view(), args).value();
  const auto code = [&](bool zero_added) {
    const Stored stored(CompressWeight(weight.view(), grid, args, Format::kFloatQuantized,
                                       {.zero_added = zero_added})
                            .value());
    return stored.At("weight").as<uint8_t>()[0];
  };
  EXPECT_EQ(code(true), 0x00);
  EXPECT_EQ(code(false), 0x80);
}

TEST(CompressWeight, GridOfAnotherWeight_IsInvalid) {
  const HostTensor weight = RandomWeight(DType::kBF16, 8, 64);
  const QuantizationArgs args = Args(NumberType::kInt, 4, Strategy::kGroup, false);
  const HostTensor other = RandomWeight(DType::kBF16, 8, 32);
  const WeightGrid narrow = ComputeWeightGrid(other.view(), args).value();
  const auto stored = CompressWeight(weight.view(), narrow, args, Format::kPackQuantized);
  EXPECT_EQ(stored.status().code(), absl::StatusCode::kInvalidArgument);
  WeightGrid no_zeros = ComputeWeightGrid(weight.view(), args).value();
  no_zeros.zero_point = HostTensor();
  EXPECT_FALSE(CompressWeight(weight.view(), no_zeros, args, Format::kPackQuantized).ok());
  const WeightGrid grid = ComputeWeightGrid(weight.view(), args).value();
  for (const Format format : {Format::kDense, Format::kFloatQuantized, Format::kMxfp8Quantized,
                              Format::kNvfp4PackQuantized}) {
    EXPECT_FALSE(CompressWeight(weight.view(), grid, args, format).ok());
  }
}

// Every stored tensor in turn is left out, cut short, given another shape and
// another dtype: an error, never a read beyond its bytes.
TEST(DecompressWeight, DamagedTensors_AreDataLoss) {
  const HostTensor weight = RandomWeight(DType::kBF16, 8, 96);
  const std::vector<std::byte> empty;
  for (const Kind& kind : EveryKind()) {
    const WeightGrid grid = ComputeWeightGrid(weight.view(), kind.args).value();
    const auto compress = [&] {
      return Stored(CompressWeight(weight.view(), grid, kind.args, kind.format).value());
    };
    const auto expect_loss = [&](const Stored& stored, const std::string& what) {
      const auto dense =
          DecompressWeight(stored.Lookup(), kind.args, kind.format, weight.shape(), DType::kBF16);
      EXPECT_EQ(dense.status().code(), absl::StatusCode::kDataLoss) << what << dense.status();
    };
    const Stored sound = compress();
    for (const auto& [suffix, view] : sound.views()) {
      Stored missing = compress();
      missing.Remove(suffix);
      if (suffix != "weight_shape") expect_loss(missing, suffix + " missing");
      Stored cut = compress();
      cut.Set(suffix, {view.dtype, view.shape, view.bytes.first(view.bytes.size() - 1)});
      expect_loss(cut, suffix + " cut");
      Stored reshaped = compress();
      reshaped.Set(suffix, {view.dtype, {3, 5, 7}, view.bytes});
      expect_loss(reshaped, suffix + " reshaped");
      Stored retyped = compress();
      retyped.Set(suffix, {DType::kF64, view.shape, view.bytes});
      expect_loss(retyped, suffix + " retyped");
    }
  }
}

TEST(DecompressWeight, ClaimedHugeShape_IsRefusedWithoutAllocating) {
  const HostTensor weight = RandomWeight(DType::kBF16, 8, 96);
  const QuantizationArgs args = Args(NumberType::kInt, 4, Strategy::kChannel);
  const WeightGrid grid = ComputeWeightGrid(weight.view(), args).value();
  const Stored stored(CompressWeight(weight.view(), grid, args, Format::kPackQuantized).value());
  const int64_t huge = int64_t{1} << 40;
  for (const Shape& shape : {Shape{huge, 96}, Shape{8, huge}, Shape{8}, Shape{-1, 96}}) {
    const auto dense =
        DecompressWeight(stored.Lookup(), args, Format::kPackQuantized, shape, DType::kBF16);
    EXPECT_FALSE(dense.ok());
  }
}

TEST(DecompressWeight, ScaleInverseOfFp8Sources_IsTheScale) {
  const HostTensor weight = RandomWeight(DType::kF32, 40, 70);
  const QuantizationArgs args = Args(NumberType::kFloat, 8, Strategy::kBlock);
  const WeightGrid grid = ComputeWeightGrid(weight.view(), args).value();
  Stored stored(CompressWeight(weight.view(), grid, args, Format::kFloatQuantized).value());
  const HostTensor want =
      DecompressWeight(stored.Lookup(), args, Format::kFloatQuantized, weight.shape(), DType::kBF16)
          .value();
  stored.Set("weight_scale_inv", stored.At("weight_scale"));
  stored.Remove("weight_scale");
  const auto got = DecompressWeight(stored.Lookup(), args, Format::kFloatQuantized, weight.shape(),
                                    DType::kBF16);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(Difference(got->view(), want.view()), "");
}

TEST(DecompressWeight, ColumnOrderOfOldCheckpoints_IsFollowed) {
  const TensorFile file(std::string(kLegacy) + "actorder_group.safetensors");
  QuantizationArgs args = Args(NumberType::kInt, 4, Strategy::kGroup);
  args.group_size = 32;
  const auto lookup = [&](absl::string_view suffix) {
    if (suffix == "weight_scale") return file.Find("in.weight_scale");
    return file.Find("out." + std::string(suffix));
  };
  const auto dense = DecompressWeight(lookup, args, Format::kPackQuantized, {8, 128}, DType::kBF16);
  ASSERT_TRUE(dense.ok()) << dense.status();
  EXPECT_EQ(Difference(dense->view(), file.At("dequant.weight")), "");
}

TEST(DecompressWeight, ColumnOrderOutOfRange_IsDataLoss) {
  const HostTensor weight = RandomWeight(DType::kBF16, 8, 96);
  const QuantizationArgs args = Args(NumberType::kInt, 4, Strategy::kGroup);
  const WeightGrid grid = ComputeWeightGrid(weight.view(), args).value();
  Stored stored(CompressWeight(weight.view(), grid, args, Format::kPackQuantized).value());
  for (const int32_t group : {-1, 3}) {
    HostTensor order(DType::kI32, {96});
    std::memset(order.bytes().data(), 0, 96 * 4);
    order.as<int32_t>()[95] = group;
    stored.Set("weight_g_idx", order.view());
    const auto dense =
        DecompressWeight(stored.Lookup(), args, Format::kPackQuantized, {8, 96}, DType::kBF16);
    EXPECT_EQ(dense.status().code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(dense.status().message()), HasSubstr("column 95"));
  }
}

// Values in the layout before compressed-tensors 0.18, made by that version:
// with scale 1 the dense weight is the value.
TEST(DecompressWeight, PaddedPackingOfOldCheckpoints_IsRead) {
  const TensorFile file(std::string(kLegacy) + "padded_packing.safetensors");
  HostTensor scale(DType::kF32, {1});
  *scale.as<float>() = 1;
  const TensorView scale_view = scale.view();
  for (int bits = 2; bits <= 8; ++bits) {
    const std::string name = "int" + std::to_string(bits);
    const auto lookup = [&](absl::string_view suffix) -> const TensorView* {
      if (suffix == "weight_scale") return &scale_view;
      return suffix == "weight_packed" ? file.Find(name + "/packed_dim1") : nullptr;
    };
    DecompressOptions options(DType::kF32);
    options.padded_packing = true;
    const auto dense = DecompressWeight(lookup, Args(NumberType::kInt, bits, Strategy::kTensor),
                                        Format::kPackQuantized, {5, 45}, options);
    ASSERT_TRUE(dense.ok()) << dense.status();
    const auto* want = file.At(name + "/values").as<int8_t>();
    for (int i = 0; i < 5 * 45; ++i) {
      ASSERT_EQ(dense->as<float>()[i], want[i]) << bits << " bits, element " << i;
    }
  }
}

TEST(PackBits, EveryWidthAndLength_IsTheBitStream) {
  std::mt19937 random(3);
  for (int bits = 1; bits <= 8; ++bits) {
    for (int64_t n = 0; n <= 70; ++n) {
      std::vector<uint8_t> codes(static_cast<size_t>(n));
      for (uint8_t& code : codes) code = random() & ((1u << bits) - 1);
      const int64_t bytes = (n * bits + 7) / 8;
      std::vector<uint8_t> packed(static_cast<size_t>(bytes) + 1, 0xab);
      PackBits(codes.data(), n, bits, packed.data());
      EXPECT_EQ(packed[bytes], 0xab) << "wrote beyond the end";
      for (int64_t p = 0; p < 8 * bytes; ++p) {
        const int want = p < n * bits ? codes[p / bits] >> (p % bits) & 1 : 0;
        ASSERT_EQ(packed[p / 8] >> (p % 8) & 1, want) << bits << " bits, " << n << " codes";
      }
      std::vector<uint8_t> back(static_cast<size_t>(n));
      UnpackBits(packed.data(), bytes, 0, n, bits, back.data());
      ASSERT_EQ(back, codes);
    }
  }
}

}  // namespace
}  // namespace llmc::kernels
