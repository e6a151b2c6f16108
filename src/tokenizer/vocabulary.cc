#include "tokenizer/vocabulary.h"

#include <algorithm>

namespace llmc {

void Vocabulary::Reserve(size_t num_tokens) {
  ids_.reserve(num_tokens);
  tokens_.reserve(num_tokens);
}

void Vocabulary::Set(absl::string_view token, int32_t id) {
  const auto it = ids_.find(token);
  if (it != ids_.end()) {
    it->second = id;
    tokens_[id] = it->first;
  } else {
    const absl::string_view kept = strings_.emplace_back(token.data(), token.size());
    ids_.emplace(kept, id);
    tokens_[id] = kept;
  }
  max_id_ = std::max(max_id_, id);
}

std::optional<int32_t> Vocabulary::IdOf(absl::string_view token) const {
  const auto it = ids_.find(token);
  if (it == ids_.end()) return std::nullopt;
  return it->second;
}

std::optional<absl::string_view> Vocabulary::TokenOf(int32_t id) const {
  const auto it = tokens_.find(id);
  if (it == tokens_.end()) return std::nullopt;
  return it->second;
}

}  // namespace llmc
