// A trie over bytes, for finding tokens inside a text.
#ifndef LLMC_TOKENIZER_BYTE_TRIE_H_
#define LLMC_TOKENIZER_BYTE_TRIE_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace llmc {

class ByteTrie {
 public:
  static constexpr int32_t kRoot = 0;
  static constexpr int32_t kNowhere = -1;

  // Maps `key` to `value`, >= 0; a key given twice keeps the last value.
  void Insert(absl::string_view key, int32_t value);

  // The node that `byte` leads to from `node`, or kNowhere.
  int32_t Step(int32_t node, char byte) const;

  // The value of the key that ends at `node`, or -1.
  int32_t ValueAt(int32_t node) const { return values_[node]; }

 private:
  static uint64_t Edge(int32_t node, char byte) {
    return static_cast<uint64_t>(node) << 8 | static_cast<uint8_t>(byte);
  }

  std::vector<int32_t> values_ = {-1};
  std::array<int32_t, 256> first_ = MakeFirst();
  absl::flat_hash_map<uint64_t, int32_t> edges_;

  static std::array<int32_t, 256> MakeFirst() {
    std::array<int32_t, 256> first;
    first.fill(kNowhere);
    return first;
  }
};

}  // namespace llmc

#endif  // LLMC_TOKENIZER_BYTE_TRIE_H_
