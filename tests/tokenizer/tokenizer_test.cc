#include "tokenizer/tokenizer.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

TEST(Tokenizer, LoadNoDirectory_NotFound) {
  EXPECT_EQ(Tokenizer::Load("/nowhere/at/all").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace llmc
