#include "tokenizer/byte_alphabet.h"

#include <array>

#include "tokenizer/unicode.h"

namespace llmc {
namespace {

struct Alphabet {
  std::array<std::array<char, 2>, 256> utf8 = {};
  std::array<uint8_t, 256> length = {};

  Alphabet() {
    char32_t next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD);
      std::string character;
      AppendUtf8(printable ? static_cast<char32_t>(byte) : next++, &character);
      length[byte] = static_cast<uint8_t>(character.size());
      for (size_t i = 0; i < character.size(); ++i) utf8[byte][i] = character[i];
    }
  }
};

const Alphabet& TheAlphabet() {
  static const auto* const kAlphabet = new Alphabet();
  return *kAlphabet;
}

}  // namespace

absl::string_view ByteCharacter(uint8_t byte) {
  const Alphabet& alphabet = TheAlphabet();
  return {alphabet.utf8[byte].data(), alphabet.length[byte]};
}

std::string ToByteAlphabet(absl::string_view bytes) {
  const Alphabet& alphabet = TheAlphabet();
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char c : bytes) {
    const auto byte = static_cast<uint8_t>(c);
    out.append(alphabet.utf8[byte].data(), alphabet.length[byte]);
  }
  return out;
}

}  // namespace llmc
