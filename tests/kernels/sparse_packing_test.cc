// Files in testdata/legacy were written by compressed-tensors 0.14.0.1.
#include "kernels/sparse_packing.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "case_file.h"

namespace llmc::kernels {
namespace {

const char kLegacy[] = LLMC_SOURCE_DIR "/tests/kernels/testdata/legacy/";

TensorLookup LookupIn(const TensorFile& file, const std::string& name) {
  return [&file, name](absl::string_view suffix) {
    return file.Find(absl::StrCat(name, "/out.", suffix));
  };
}

void ExpectStored(const TensorFile& file, const std::string& name, const TensorView& weight,
                  SparseFormat format) {
  const auto stored = PackSparse(weight, format);
  ASSERT_TRUE(stored.ok()) << stored.status();
  EXPECT_EQ(stored->size(), format == SparseFormat::kSparseBitmask ? 4u : 3u);
  for (const StoredTensor& tensor : *stored) {
    EXPECT_EQ(Difference(tensor.tensor.view(), file.At(name + "/out." + tensor.suffix)), "")
        << name << " " << tensor.suffix;
  }
}

TEST(PackSparse24, LegacyFile_IsBitEqual) {
  const TensorFile file(std::string(kLegacy) + "sparse_24_bitmask.safetensors");
  for (const std::string name : {"bf16", "bf16_odd", "fp16"}) {
    ExpectStored(file, name, file.At(name + "/in.weight"), SparseFormat::kSparse24Bitmask);
  }
  // Its input has more than two elements in some groups of four, which the original drops.
  ExpectStored(file, "fp8", file.At("fp8/decompressed"), SparseFormat::kSparse24Bitmask);
}

TEST(PackSparse24, LegacyFileOfIntegers_DiffersWhereTheOriginalDropsTheSmallest) {
  const TensorFile file(std::string(kLegacy) + "sparse_24_bitmask.safetensors");
  const TensorView& weight = file.At("int8/in.weight");
  const auto stored = PackSparse(weight, SparseFormat::kSparse24Bitmask);
  ASSERT_TRUE(stored.ok()) << stored.status();
  for (const StoredTensor& tensor : *stored) {
    const TensorView& want = file.At("int8/out." + tensor.suffix);
    const std::string difference = Difference(tensor.tensor.view(), want);
    if (tensor.suffix == "shape") {
      EXPECT_EQ(difference, "");
    } else {
      EXPECT_EQ(difference.substr(0, 11), "1 elements,") << tensor.suffix;
    }
  }
}

TEST(PackSparse, LegacyFile_IsBitEqual) {
  const TensorFile file(std::string(kLegacy) + "sparse_bitmask.safetensors");
  for (const std::string name : {"bf16", "bf16_odd", "fp16", "fp8"}) {
    ExpectStored(file, name, file.At(name + "/in.weight"), SparseFormat::kSparseBitmask);
  }
}

TEST(UnpackSparse, LegacyFiles_GiveTheWeights) {
  const TensorFile file24(std::string(kLegacy) + "sparse_24_bitmask.safetensors");
  for (const std::string name : {"bf16", "bf16_odd", "fp16", "fp8", "int8"}) {
    auto weight = UnpackSparse(LookupIn(file24, name), SparseFormat::kSparse24Bitmask);
    ASSERT_TRUE(weight.ok()) << weight.status();
    const TensorView& want = file24.At(name + "/decompressed");
    // The original gives some of the FP8 elements that it leaves out as -0.
    for (int64_t i = 0; name == "fp8" && i < weight->num_elements(); ++i) {
      if (want.as<uint8_t>()[i] == 0x80) weight->as<uint8_t>()[i] |= 0x80;
    }
    EXPECT_EQ(Difference(weight->view(), want), "") << name;
  }
  const TensorFile file(std::string(kLegacy) + "sparse_bitmask.safetensors");
  for (const std::string name : {"bf16", "bf16_odd", "fp16", "fp8"}) {
    const auto weight = UnpackSparse(LookupIn(file, name), SparseFormat::kSparseBitmask);
    ASSERT_TRUE(weight.ok()) << weight.status();
    EXPECT_EQ(Difference(weight->view(), file.At(name + "/in.weight")), "");
  }
}

TensorView Bytes(const std::vector<uint8_t>& bytes, DType dtype, Shape shape) {
  return {dtype, std::move(shape), std::as_bytes(std::span(bytes))};
}

HostTensor RoundTrip(const TensorView& weight, SparseFormat format) {
  const std::vector<StoredTensor> stored = PackSparse(weight, format).value();
  std::map<std::string, TensorView> views;
  for (const StoredTensor& tensor : stored) views[tensor.suffix] = tensor.tensor.view();
  return UnpackSparse(
             [&](absl::string_view suffix) {
               const auto it = views.find(std::string(suffix));
               return it == views.end() ? nullptr : &it->second;
             },
             format)
      .value();
}

TEST(PackSparse, SmallestInteger_IsKept) {
  const std::vector<uint8_t> bytes = {0, 0x80, 0, 5, 0x80, 0, 0, 0};
  const TensorView weight = Bytes(bytes, DType::kI8, {1, 8});
  for (const SparseFormat format : {SparseFormat::kSparse24Bitmask, SparseFormat::kSparseBitmask}) {
    EXPECT_EQ(Difference(RoundTrip(weight, format).view(), weight), "");
  }
  EXPECT_EQ(CountNonZero(weight), 3);
}

TEST(PackSparse24, ThreeOfFour_AreRefusedByName) {
  const std::vector<uint8_t> bytes = {1, 0, 0, 2, 1, 2, 3, 0};
  const auto stored = PackSparse(Bytes(bytes, DType::kI8, {1, 8}), SparseFormat::kSparse24Bitmask);
  EXPECT_TRUE(absl::IsFailedPrecondition(stored.status()));
  EXPECT_NE(stored.status().message().find("row 0, columns 4 to 7"), absl::string_view::npos);
  EXPECT_FALSE(PackSparse(Bytes(bytes, DType::kI8, {2, 4}), SparseFormat::kDense).ok());
  EXPECT_FALSE(PackSparse(Bytes(bytes, DType::kI8, {4, 2}), SparseFormat::kSparse24Bitmask).ok());
}

// One stored tensor at a time is damaged.
TEST(UnpackSparse, DamagedParts_AreDataLoss) {
  const TensorFile file(std::string(kLegacy) + "sparse_bitmask.safetensors");
  for (const std::string damaged : {"compressed", "bitmask", "row_offsets", "shape"}) {
    for (const bool missing : {true, false}) {
      std::vector<std::byte> bytes(file.At("bf16/out." + damaged).bytes.begin(),
                                   file.At("bf16/out." + damaged).bytes.end());
      TensorView view = file.At("bf16/out." + damaged);
      if (damaged == "compressed") view.shape[0] -= 1;
      bytes[8] ^= std::byte{1};
      view.bytes = bytes;
      const TensorLookup lookup = [&](absl::string_view suffix) -> const TensorView* {
        if (suffix == damaged) return missing ? nullptr : &view;
        return file.Find(absl::StrCat("bf16/out.", suffix));
      };
      EXPECT_TRUE(absl::IsDataLoss(UnpackSparse(lookup, SparseFormat::kSparseBitmask).status()))
          << damaged;
    }
  }
}

}  // namespace
}  // namespace llmc::kernels
