// Encodes texts from a file, for comparison with other tokenizers.
//
//   tokenizer_encode MODEL_DIR TEXTS OUT
//
// TEXTS holds records of a 32-bit little-endian length and that many bytes. OUT
// gets two lines of space-separated ids a record: with and without special tokens,
// or one line "error: ..." each.

#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tokenizer/tokenizer.h"

namespace {

std::string Line(const llmc::Tokenizer& tokenizer, absl::string_view text, bool special) {
  const auto ids = tokenizer.Encode(text, {.add_special_tokens = special});
  if (!ids.ok()) return absl::StrCat("error: ", ids.status().message(), "\n");
  return absl::StrCat(absl::StrJoin(*ids, " "), "\n");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: tokenizer_encode MODEL_DIR TEXTS OUT\n";
    return 2;
  }
  const auto tokenizer = llmc::Tokenizer::Load(argv[1]);
  if (!tokenizer.ok()) {
    std::cerr << tokenizer.status() << "\n";
    return 1;
  }
  std::ifstream in(argv[2], std::ios::binary);
  const std::string texts((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  std::ofstream out(argv[3], std::ios::binary);
  for (size_t at = 0; at + 4 <= texts.size();) {
    uint32_t length;
    std::memcpy(&length, texts.data() + at, sizeof(length));
    at += sizeof(length);
    const absl::string_view text(texts.data() + at, length);
    out << Line(**tokenizer, text, true) << Line(**tokenizer, text, false);
    at += length;
  }
  return out.flush() ? 0 : 1;
}
