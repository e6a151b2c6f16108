#include "verify/inspect.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "editable_checkpoint.h"

namespace llmc {
namespace {

using ::testing::HasSubstr;

const ModuleGroup* Find(const Inspection& inspection, const std::string& pattern) {
  const auto it = std::find_if(inspection.groups.begin(), inspection.groups.end(),
                               [&](const ModuleGroup& group) { return group.pattern == pattern; });
  return it == inspection.groups.end() ? nullptr : &*it;
}

TEST(Inspect, PackedCheckpoint_CountsWeightsNotWords) {
  const auto dense = InspectCheckpoint(TestData("dense"));
  const auto packed = InspectCheckpoint(TestData("W4A16"));
  ASSERT_TRUE(dense.ok() && packed.ok());
  EXPECT_EQ(packed->num_parameters, dense->num_parameters);
  EXPECT_EQ(dense->bits_per_weight, 16);
  const ModuleGroup* down = Find(*packed, "model.layers.*.mlp.down_proj");
  ASSERT_NE(down, nullptr);
  EXPECT_EQ(down->num_parameters, 128 * 128);
  // 4 bits a weight, 128 scales of 2 bytes, weight_shape of 16.
  EXPECT_EQ(down->num_bytes, 128 * 128 / 2 + 128 * 2 + 16);
  EXPECT_EQ(down->format, "pack-quantized int4 group 128");
}

TEST(Inspect, SameModuleInTwoFormats_IsTwoGroups) {
  const auto mixed = InspectCheckpoint(TestData("mixed_W4A16_FP8"));
  ASSERT_TRUE(mixed.ok());
  EXPECT_EQ(mixed->format, "mixed-precision");
}

TEST(Inspect, Table_EscapesHostileNames) {
  const auto checkpoint = EditableCheckpoint::Make(nlohmann::json::object());
  checkpoint->Add("\x1b[31mevil.weight", DType::kF32, {1}, std::string(4, '\0'));
  checkpoint->Save();
  const auto inspection = InspectCheckpoint(checkpoint->dir());
  ASSERT_TRUE(inspection.ok());
  const std::string table = ToTable(*inspection, /*every_tensor=*/true);
  EXPECT_EQ(table.find('\x1b'), std::string::npos);
  EXPECT_THAT(table, HasSubstr("\\x1b[31mevil"));
  EXPECT_EQ(ToJson(*inspection)["num_bytes"], 4);
}

}  // namespace
}  // namespace llmc
