#include "tokenizer/byte_trie.h"

namespace llmc {

void ByteTrie::Insert(absl::string_view key, int32_t value) {
  int32_t node = kRoot;
  for (const char byte : key) {
    int32_t& next = node == kRoot ? first_[static_cast<uint8_t>(byte)]
                                  : edges_.try_emplace(Edge(node, byte), kNowhere).first->second;
    if (next == kNowhere) {
      next = static_cast<int32_t>(values_.size());
      values_.push_back(-1);
    }
    node = next;
  }
  values_[node] = value;
}

int32_t ByteTrie::Step(int32_t node, char byte) const {
  if (node == kRoot) return first_[static_cast<uint8_t>(byte)];
  const auto it = edges_.find(Edge(node, byte));
  return it == edges_.end() ? kNowhere : it->second;
}

}  // namespace llmc
