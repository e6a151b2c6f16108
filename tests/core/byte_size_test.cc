#include "llmc/byte_size.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

TEST(ByteSize, KnownUnits_AreParsed) {
  EXPECT_EQ(*ParseByteSize("5GB"), 5'000'000'000);
  EXPECT_EQ(*ParseByteSize("24GiB"), int64_t{24} << 30);
  EXPECT_EQ(*ParseByteSize("1.5kib"), 1536);
  EXPECT_EQ(*ParseByteSize("4096"), 4096);
}

TEST(ByteSize, Nonsense_IsRefused) {
  for (const char* text : {"", "GB", "-1", "5 apples", "1e3", "0", "99999999TiB", "1.2.3MB"}) {
    EXPECT_FALSE(ParseByteSize(text).ok()) << text;
  }
}

TEST(ByteSize, Format_UsesThreeDigits) {
  EXPECT_EQ(FormatByteSize(999), "999 B");
  EXPECT_EQ(FormatByteSize(1340), "1.34 kB");
  EXPECT_EQ(FormatByteSize(12'345'678), "12.3 MB");
  EXPECT_EQ(FormatByteSize(999'600), "1.00 MB");
}

}  // namespace
}  // namespace llmc
