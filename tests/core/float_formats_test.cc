#include "llmc/float_formats.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace llmc {
namespace {

// Every finite code decodes to a value that encodes back to the same code, and
// halfway points go to the even neighbour.
template <typename Code>
void CheckRoundTrip(float (*widen)(Code), Code (*narrow)(float), Code largest) {
  for (uint32_t code = 0; code <= largest; ++code) {
    const float value = widen(static_cast<Code>(code));
    ASSERT_EQ(narrow(value), code);
    if (code == largest) break;
    const double next = widen(static_cast<Code>(code + 1));
    const float halfway = static_cast<float>((value + next) / 2);
    ASSERT_EQ(narrow(halfway), (code & 1) == 0 ? code : code + 1)
        << "between " << value << " and " << next;
    ASSERT_EQ(narrow(std::nextafterf(halfway, 0.0f)), code);
  }
}

TEST(FloatFormats, E4m3_AllCodes_RoundTripAndTiesToEven) {
  CheckRoundTrip<uint8_t>(E4m3ToFloat, FloatToE4m3, 0x7e);
}
TEST(FloatFormats, F16_AllCodes_RoundTripAndTiesToEven) {
  CheckRoundTrip<uint16_t>(F16ToFloat, FloatToF16, 0x7bff);
}
TEST(FloatFormats, Bf16_AllCodes_RoundTripAndTiesToEven) {
  CheckRoundTrip<uint16_t>(Bf16ToFloat, FloatToBf16, 0x7f7f);
}

TEST(FloatFormats, Extremes_MapAsTorchMapsThem) {
  EXPECT_EQ(FloatToE4m3(448.0f), 0x7e);
  EXPECT_EQ(FloatToE4m3(464.0f), 0x7e);
  EXPECT_EQ(FloatToE4m3(480.0f), 0x7f);
  EXPECT_EQ(FloatToE4m3(-0.0f), 0x80);
  EXPECT_EQ(FloatToF16(65520.0f), 0x7c00);
  EXPECT_EQ(FloatToBf16(NAN), 0x7fc0);
}

}  // namespace
}  // namespace llmc
