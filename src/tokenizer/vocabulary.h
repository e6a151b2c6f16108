// Token strings and their ids.
#ifndef LLMC_TOKENIZER_VOCABULARY_H_
#define LLMC_TOKENIZER_VOCABULARY_H_

#include <cstdint>
#include <deque>
#include <optional>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace llmc {

// Move-only; views of its strings stay valid when it is moved.
class Vocabulary {
 public:
  Vocabulary() = default;
  Vocabulary(Vocabulary&&) = default;
  Vocabulary& operator=(Vocabulary&&) = default;

  void Reserve(size_t num_tokens);

  // Adds `token`, or gives it a new id. Two tokens may share an id.
  void Set(absl::string_view token, int32_t id);

  std::optional<int32_t> IdOf(absl::string_view token) const;
  std::optional<absl::string_view> TokenOf(int32_t id) const;

  // Number of different token strings.
  size_t size() const { return ids_.size(); }

  // Largest id, -1 when empty.
  int32_t max_id() const { return max_id_; }

 private:
  std::deque<std::string> strings_;
  absl::flat_hash_map<absl::string_view, int32_t> ids_;
  absl::flat_hash_map<int32_t, absl::string_view> tokens_;
  int32_t max_id_ = -1;
};

}  // namespace llmc

#endif  // LLMC_TOKENIZER_VOCABULARY_H_
